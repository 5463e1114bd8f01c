"""The contract of object storage, for each backend that needs no server and for one of a third party."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import pytest

from musehub_plugin.errors import HubError
from musehub_plugin.ids import PREFIX
from musehub_plugin.storage import FileStorage, Grant, MemoryStorage, ServedByPlugin
from musehub_plugin.testing.contract import (
    DeletesContract,
    HttpGet,
    HttpPut,
    PingsContract,
    PresignContract,
    StorageContract,
    StreamsMPacksContract,
    TakesUploadsContract,
)

# What the plugin's storage routes do, without an app.


def verified(storage: ServedByPlugin, method: str, url: str) -> Grant:
    parts = urlsplit(url)
    kind, key = parts.path.rsplit("/", 2)[1:]
    return storage.signer.verify(method, kind, key, parse_qsl(parts.query, keep_blank_values=True))


def served_get(storage: ServedByPlugin, url: str) -> bytes | None:
    try:
        grant = verified(storage, "GET", url)
    except HubError:
        return None
    opened = storage.open_blob if grant.kind == "blob" else storage.open_mpack
    file = opened(PREFIX + grant.key)
    if file is None:
        return None
    with file:
        return file.read()


def served_put(storage: ServedByPlugin, url: str, body: bytes) -> int:
    try:
        grant = verified(storage, "PUT", url)
        storage.receive_upload(grant.key, io.BytesIO(body), size=grant.size, digest=grant.digest)
    except HubError as error:
        return int(error.status)
    return 200


class ServedByPluginContract(
    PresignContract, StreamsMPacksContract, TakesUploadsContract, DeletesContract, PingsContract, StorageContract
):
    @pytest.fixture
    def http_get(self, storage: ServedByPlugin) -> HttpGet:
        return partial(served_get, storage)

    @pytest.fixture
    def http_put(self, storage: ServedByPlugin) -> HttpPut:
        return lambda url, headers, body: served_put(storage, url, body)


class TestMemoryStorage(ServedByPluginContract):
    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()

    @pytest.fixture
    def broken_storage(self) -> None:
        return None


class TestFileStorage(ServedByPluginContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> FileStorage:
        return FileStorage(tmp_path / "made" / "when needed")

    @pytest.fixture
    def broken_storage(self, tmp_path: Path) -> FileStorage:
        (tmp_path / "file").touch()
        return FileStorage(tmp_path / "file")


class ThirdPartyStorage:
    """A backend of somebody else: the contract's eight names and nothing more."""

    supports_presign = False

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], bytes] = {}

    def put(self, oid: str, data: bytes) -> str:
        self._kept["blob", oid] = data
        return f"third-party:{oid}"

    def get(self, oid: str) -> bytes | None:
        return self._kept.get(("blob", oid))

    def exists(self, oid: str) -> bool:
        return ("blob", oid) in self._kept

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        self._kept["mpack", mpack_id] = data
        return f"third-party:mpack:{mpack_id}"

    def get_mpack(self, mpack_id: str) -> bytes | None:
        return self._kept.get(("mpack", mpack_id))

    def presign_get(self, oid: str, ttl_seconds: int = 3600) -> str:
        raise NotImplementedError

    def presign_mpack_get(self, mpack_id: str, ttl: int) -> str:
        raise NotImplementedError


class TestThirdPartyStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> ThirdPartyStorage:
        return ThirdPartyStorage()


class ForgetfulStorage(ThirdPartyStorage):
    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        super().put_mpack(mpack_id, data)
        return cast(str, None)


def test_a_put_that_returns_nothing_fails_the_contract() -> None:
    with pytest.raises(AssertionError):
        StorageContract().test_put_mpack_returns_a_uri_for_the_record(ForgetfulStorage())


class UnreachableStorage(ThirdPartyStorage):
    def ping(self) -> None:
        raise ConnectionRefusedError


def test_a_ping_may_raise_what_python_does_where_a_server_is_away() -> None:
    PingsContract().test_a_store_that_is_away_says_so(UnreachableStorage())


def test_a_capability_that_is_not_tested_fails_the_contract() -> None:
    with pytest.raises(AssertionError, match="TakesUploads"):
        StorageContract().test_what_the_backend_can_do_is_tested(MemoryStorage())
