"""Uploads into a backend that knows nothing of uploads."""

from __future__ import annotations

import io
import secrets

import pytest

from musehub_plugin.ids import blob_id, is_id, to_hex
from musehub_plugin.storage import MemoryStorage, UploadRefused, uploads

CONTENT = b"an mpack" * 1000
MPACK = blob_id(CONTENT)


class Minimal:
    """The contract's names that uploads need, and no others."""

    supports_presign = True

    def __init__(self) -> None:
        self.mpacks: dict[str, bytes] = {}

    def put(self, oid: str, data: bytes) -> str:
        raise NotImplementedError

    def get(self, oid: str) -> bytes | None:
        return None

    def exists(self, oid: str) -> bool:
        return False

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        assert is_id(mpack_id)
        assert type(data) is bytes
        self.mpacks[mpack_id] = data
        return f"minimal:{mpack_id}"

    def get_mpack(self, mpack_id: str) -> bytes | None:
        return self.mpacks.get(mpack_id)

    def presign_get(self, oid: str, ttl_seconds: int = 3600) -> str:
        return f"https://cdn.example/{oid}"

    def presign_mpack_get(self, mpack_id: str, ttl: int) -> str:
        return f"https://cdn.example/{mpack_id}"


class Deleting(Minimal):
    """It can also delete."""

    def delete(self, oid: str) -> None:
        raise NotImplementedError

    def delete_mpack(self, mpack_id: str) -> None:
        self.mpacks.pop(mpack_id, None)


def receive(storage: Minimal, key: str, content: bytes = CONTENT) -> None:
    body = io.BytesIO(content)
    uploads.receive_upload(storage, key, body, size=len(CONTENT), digest=to_hex(MPACK))


def test_an_upload_can_be_read_and_deleted() -> None:
    storage, key = Deleting(), secrets.token_hex(32)
    receive(storage, key)
    file = uploads.open_upload(storage, key)
    assert file is not None
    assert file.read() == CONTENT
    uploads.delete_upload(storage, key)
    assert (storage.mpacks, uploads.open_upload(storage, key)) == ({}, None)


def test_deleting_an_upload_of_a_backend_that_cannot_delete_is_no_error() -> None:
    storage, key = Minimal(), secrets.token_hex(32)
    receive(storage, key)
    uploads.delete_upload(storage, key)
    assert list(storage.mpacks) == [uploads.staged_id(key)]


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b"x" * len(CONTENT), b""])
def test_other_bytes_than_signed_are_not_kept(content: bytes) -> None:
    storage = Minimal()
    with pytest.raises(UploadRefused):
        receive(storage, secrets.token_hex(32), content)
    assert storage.mpacks == {}


def test_two_uploads_do_not_meet() -> None:
    assert uploads.staged_id("0" * 64) != uploads.staged_id("1" * 64)


@pytest.mark.parametrize("key", ["", "x", "0" * 63, "A" * 64, "../" + "0" * 61])
def test_an_upload_key_of_another_form_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="upload key"):
        uploads.staged_id(key)


def test_a_backend_that_presigns_is_asked_for_the_url() -> None:
    signer = MemoryStorage().signer
    assert uploads.mpack_url(Minimal(), signer, MPACK, 60) == f"https://cdn.example/{MPACK}"


def test_an_mpack_is_stored_from_the_files_position() -> None:
    storage, file = Minimal(), io.BytesIO(b"skipped" + CONTENT)
    file.seek(7)
    uploads.put_mpack_file(storage, MPACK, file)
    assert storage.mpacks == {MPACK: CONTENT}


def test_a_missing_mpack_is_none() -> None:
    assert [uploads.open_mpack(storage, MPACK) for storage in (Minimal(), MemoryStorage())] == [None, None]
