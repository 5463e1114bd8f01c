"""What every storage backend has to do, as test classes that its author subclasses.

    class TestMyStorage(DeletesContract, PresignContract, StorageContract):
        @pytest.fixture
        def storage(self) -> MyStorage:
            return MyStorage(...)

`StorageContract` needs the contract's names alone. Each thing more that a backend can do has a class of its own, and
`StorageContract` fails where a backend can do more than is tested. Ids are of random bytes, so that the tests can share
a store that has other content.
"""

# ruff: noqa: S101 - asserts are what a test class is made of

from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Protocol

import pytest

from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.ids import blob_id, to_hex
from musehub_plugin.storage.base import (
    Deletes,
    Pings,
    PresignedUpload,
    Storage,
    StreamsMPacks,
    TakesUploads,
    ask,
)

HttpGet = Callable[[str], bytes | None]
"""Returns the body of a GET, or None where the answer is not 200."""
HttpPut = Callable[[str, dict[str, str], bytes], int]
"""Sends a PUT with a URL, headers and a body; returns the status of the answer."""


class _TakesUploads(Storage, TakesUploads, Protocol):
    """A backend that takes uploads is a `Storage` as well."""


class _Deletes(Storage, Deletes, Protocol):
    """A backend that deletes is a `Storage` as well."""


class StorageContract:
    """Tests of `musehub_plugin.storage.base.Storage`: override `storage`."""

    @pytest.fixture
    def storage(self) -> Storage:
        """Return the backend under test."""
        raise NotImplementedError("override the fixture `storage`")

    def test_a_blob_comes_back_as_it_was_stored(self, storage: Storage) -> None:
        """All byte values, and more bytes than fit one read."""
        content = bytes(range(256)) * 4096 + secrets.token_bytes(8)
        storage.put(blob_id(content), content)
        assert storage.get(blob_id(content)) == content

    def test_an_empty_blob_is_stored(self, storage: Storage) -> None:
        """No bytes is not the same as not stored."""
        storage.put(blob_id(b""), b"")
        assert (storage.get(blob_id(b"")), storage.exists(blob_id(b""))) == (b"", True)

    def test_a_blob_that_was_never_stored_is_none(self, storage: Storage) -> None:
        """Absence is an answer, not an error."""
        assert storage.get(_unknown()) is None

    def test_a_blob_that_was_never_stored_does_not_exist(self, storage: Storage) -> None:
        """Absence is an answer, not an error."""
        assert storage.exists(_unknown()) is False

    def test_a_stored_blob_exists(self, storage: Storage) -> None:
        """`exists` agrees with `get`."""
        content = secrets.token_bytes(16)
        storage.put(blob_id(content), content)
        assert storage.exists(blob_id(content)) is True

    def test_storing_a_blob_again_is_harmless(self, storage: Storage) -> None:
        """Jobs run twice."""
        content = secrets.token_bytes(16)
        assert storage.put(blob_id(content), content) == storage.put(blob_id(content), content)
        assert storage.get(blob_id(content)) == content

    def test_put_returns_a_uri_for_the_record(self, storage: Storage) -> None:
        """A URI names its blob: two blobs have two."""
        first, second = secrets.token_bytes(16), secrets.token_bytes(16)
        uris = {storage.put(blob_id(first), first), storage.put(blob_id(second), second)}
        assert (len(uris), {type(uri) for uri in uris}) == (2, {str})

    def test_put_mpack_returns_a_uri_for_the_record(self, storage: Storage) -> None:
        """A push has to note it."""
        first, second = secrets.token_bytes(16), secrets.token_bytes(16)
        uris = {storage.put_mpack(blob_id(first), first), storage.put_mpack(blob_id(second), second)}
        assert (len(uris), {type(uri) for uri in uris}) == (2, {str})

    def test_an_mpack_comes_back_as_it_was_stored(self, storage: Storage) -> None:
        """A few megabytes, since mpacks are large."""
        content = secrets.token_bytes(3 * 1024 * 1024 + 1)
        storage.put_mpack(blob_id(content), content)
        assert storage.get_mpack(blob_id(content)) == content

    def test_an_mpack_that_was_never_stored_is_none(self, storage: Storage) -> None:
        """Absence is an answer, not an error."""
        assert storage.get_mpack(_unknown()) is None

    def test_an_mpack_is_no_blob(self, storage: Storage) -> None:
        """What a member pushed as a pack cannot be asked for as a file."""
        content = secrets.token_bytes(16)
        storage.put_mpack(blob_id(content), content)
        assert (storage.get(blob_id(content)), storage.exists(blob_id(content))) == (None, False)

    def test_a_blob_is_no_mpack(self, storage: Storage) -> None:
        """The other way round."""
        content = secrets.token_bytes(16)
        storage.put(blob_id(content), content)
        assert storage.get_mpack(blob_id(content)) is None

    def test_many_threads_may_store_and_read_at_once(self, storage: Storage) -> None:
        """A web worker has several threads; some store the same blob."""
        contents = [secrets.token_bytes(1000) for _ in range(8)] * 3

        def store_and_read(content: bytes) -> bytes | None:
            storage.put(blob_id(content), content)
            return storage.get(blob_id(content))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(store_and_read, contents)) == contents

    def test_what_the_backend_can_do_is_tested(self, storage: Storage) -> None:
        """No capability goes untested because a class was left out."""
        can = {name for name, (able, _) in _CAPABILITIES.items() if able(storage)}
        tested = {name for name, (_, contract) in _CAPABILITIES.items() if isinstance(self, contract)}
        assert can == tested


class _Http:
    """How the tests reach what URLs lead to: override where URLs lead to an app."""

    @pytest.fixture
    def http_get(self) -> HttpGet:
        """Return a function that GETs a URL over the network."""
        import urllib3

        def get(url: str) -> bytes | None:
            answer = urllib3.request("GET", url, retries=False, timeout=10)
            return answer.data if answer.status == 200 else None

        return get

    @pytest.fixture
    def http_put(self) -> HttpPut:
        """Return a function that PUTs a body over the network."""
        import urllib3

        def put(url: str, headers: dict[str, str], body: bytes) -> int:
            return urllib3.request("PUT", url, headers=headers, body=body, retries=False, timeout=10).status

        return put


class PresignContract(_Http):
    """Tests of a backend whose `supports_presign` is true: override `http_get` where URLs lead to an app."""

    def test_a_presigned_url_gives_the_blob(self, storage: Storage, http_get: HttpGet) -> None:
        """Without any credential."""
        content = secrets.token_bytes(1000)
        storage.put(blob_id(content), content)
        assert http_get(storage.presign_get(blob_id(content), ttl_seconds=60)) == content

    def test_a_presigned_url_gives_the_mpack(self, storage: Storage, http_get: HttpGet) -> None:
        """Without any credential."""
        content = secrets.token_bytes(1000)
        storage.put_mpack(blob_id(content), content)
        assert http_get(storage.presign_mpack_get(blob_id(content), 60)) == content

    def test_a_presigned_url_for_another_blob_is_refused(self, storage: Storage, http_get: HttpGet) -> None:
        """A URL is for one file; nobody makes another of it."""
        mine, other = secrets.token_bytes(16), secrets.token_bytes(16)
        storage.put(blob_id(mine), mine)
        storage.put(blob_id(other), other)
        url = storage.presign_get(blob_id(mine), ttl_seconds=60)
        assert to_hex(blob_id(mine))[2:] in url
        # The first two digits may be a directory of their own.
        forged = url.replace(to_hex(blob_id(mine))[2:], to_hex(blob_id(other))[2:])
        forged = forged.replace(f"/{to_hex(blob_id(mine))[:2]}", f"/{to_hex(blob_id(other))[:2]}")
        assert http_get(forged) is None

    def test_a_presigned_url_of_a_blob_that_is_not_stored_gives_nothing(
        self, storage: Storage, http_get: HttpGet
    ) -> None:
        """Signing needs no look at the store, so it may sign for what is not there."""
        assert http_get(storage.presign_get(_unknown(), ttl_seconds=60)) is None

    @pytest.mark.parametrize("ttl", [0, -1, 7 * 24 * 3600 + 1])
    def test_s69_a_life_below_a_second_or_above_a_week_is_refused(self, storage: Storage, ttl: int) -> None:
        """SigV4 knows no longer one: such a URL would die at the store."""
        with pytest.raises(ValueError, match=r"second|day"):
            storage.presign_get(_unknown(), ttl_seconds=ttl)


class StreamsMPacksContract:
    """Tests of `musehub_plugin.storage.base.StreamsMPacks`."""

    def test_an_mpack_is_stored_from_a_file(self, storage: StreamsMPacks) -> None:
        """From where the file stands, not from its start."""
        content = secrets.token_bytes(100_000)
        file = io.BytesIO(b"head" + content)
        file.seek(4)
        uri = storage.put_mpack_file(blob_id(content), file)
        assert (_whole(storage, content), type(uri)) == (content, str)

    def test_an_empty_file_is_stored_as_an_empty_mpack(self, storage: StreamsMPacks) -> None:
        """No bytes is not the same as not stored."""
        storage.put_mpack_file(blob_id(b""), io.BytesIO())
        assert _whole(storage, b"") == b""

    def test_an_open_mpack_is_read_anywhere(self, storage: StreamsMPacks) -> None:
        """From the start, from the end, across both, and beyond."""
        content = secrets.token_bytes(700_000)
        storage.put_mpack_file(blob_id(content), io.BytesIO(content))
        file = storage.open_mpack(blob_id(content))
        assert file is not None
        with file:
            file.seek(-10, io.SEEK_END)
            tail = file.read(100)
            file.seek(300_000)
            middle = file.read(5)
            file.seek(2, io.SEEK_CUR)
            after = file.read(3)
            file.seek(800_000)
            beyond = file.read(1)
        wanted = (content[-10:], content[300_000:300_005], content[300_007:300_010], b"")
        assert (tail, middle, after, beyond) == wanted

    def test_a_read_is_short_at_the_end_only(self, storage: StreamsMPacks) -> None:
        """Readers of a format count on it."""
        content = secrets.token_bytes(1_500_000)
        storage.put_mpack_file(blob_id(content), io.BytesIO(content))
        file = storage.open_mpack(blob_id(content))
        assert file is not None
        with file:
            sizes = [len(file.read(400_000)) for _ in range(5)]
        assert sizes == [400_000, 400_000, 400_000, 300_000, 0]

    def test_an_mpack_that_was_never_stored_does_not_open(self, storage: StreamsMPacks) -> None:
        """Absence is an answer, not an error."""
        assert storage.open_mpack(_unknown()) is None


class TakesUploadsContract(_Http):
    """Tests of `musehub_plugin.storage.base.TakesUploads`: override `http_put` where URLs lead to an app."""

    content: ClassVar[bytes] = b"an mpack, as far as storage can tell"

    def test_an_upload_is_read_back(self, storage: _TakesUploads, http_put: HttpPut) -> None:
        """What was sent under a key is what opens under it."""
        key = secrets.token_hex(32)
        status = self._send(storage, http_put, key, self.content)
        file = storage.open_upload(key)
        assert file is not None
        with file:
            assert (status, file.read()) == (200, self.content)

    def test_nothing_uploaded_does_not_open(self, storage: _TakesUploads) -> None:
        """Absence is an answer, not an error."""
        assert storage.open_upload(secrets.token_hex(32)) is None

    def test_s66_other_bytes_than_were_signed_are_refused(self, storage: _TakesUploads, http_put: HttpPut) -> None:
        """Of the right size, with the right headers."""
        key = secrets.token_hex(32)
        status = self._send(storage, http_put, key, self.content[::-1])
        assert (status >= 400, storage.open_upload(key)) == (True, None)

    def test_s68_more_bytes_than_were_signed_are_refused(self, storage: _TakesUploads, http_put: HttpPut) -> None:
        """A URL is no way to fill the store."""
        key = secrets.token_hex(32)
        upload = self._presign(storage, key)
        headers = {name: value for name, value in upload.headers.items() if name != "Content-Length"}
        status = http_put(upload.url, headers, self.content * 10)
        assert (status >= 400, storage.open_upload(key)) == (True, None)

    def test_an_upload_is_no_mpack(self, storage: _TakesUploads, http_put: HttpPut) -> None:
        """Nothing reads the staging area by content address."""
        content = secrets.token_bytes(100)
        self._send(storage, http_put, secrets.token_hex(32), content, mpack_id=blob_id(content))
        assert storage.get_mpack(blob_id(content)) is None

    def test_a_deleted_upload_is_gone(self, storage: _TakesUploads, http_put: HttpPut) -> None:
        """Deleting it twice is harmless."""
        key, content = secrets.token_hex(32), secrets.token_bytes(100)
        self._send(storage, http_put, key, content, mpack_id=blob_id(content))
        storage.delete_upload(key)
        storage.delete_upload(key)
        assert storage.open_upload(key) is None

    def _presign(self, storage: _TakesUploads, key: str, mpack_id: str | None = None) -> PresignedUpload:
        expected = mpack_id or blob_id(self.content)
        size = len(self.content) if mpack_id is None else 100
        return storage.presign_upload(key, mpack_id=expected, size_bytes=size, ttl_seconds=60)

    def _send(
        self, storage: _TakesUploads, http_put: HttpPut, key: str, body: bytes, mpack_id: str | None = None
    ) -> int:
        upload = self._presign(storage, key, mpack_id)
        assert upload.method == "PUT"
        return http_put(upload.url, dict(upload.headers), body)


class DeletesContract:
    """Tests of `musehub_plugin.storage.base.Deletes`."""

    def test_a_deleted_blob_is_gone(self, storage: _Deletes) -> None:
        """And deleting it twice is harmless."""
        content = secrets.token_bytes(16)
        storage.put(blob_id(content), content)
        storage.delete(blob_id(content))
        storage.delete(blob_id(content))
        assert storage.get(blob_id(content)) is None

    def test_a_deleted_mpack_is_gone(self, storage: _Deletes) -> None:
        """And deleting it twice is harmless."""
        content = secrets.token_bytes(16)
        storage.put_mpack(blob_id(content), content)
        storage.delete_mpack(blob_id(content))
        storage.delete_mpack(blob_id(content))
        assert storage.get_mpack(blob_id(content)) is None

    def test_deleting_an_mpack_keeps_the_blob_of_the_same_id(self, storage: _Deletes) -> None:
        """They are two things."""
        content = secrets.token_bytes(16)
        storage.put(blob_id(content), content)
        storage.put_mpack(blob_id(content), content)
        storage.delete_mpack(blob_id(content))
        assert storage.get(blob_id(content)) == content


class PingsContract:
    """Tests of `musehub_plugin.storage.base.Pings`: override `broken_storage`."""

    @pytest.fixture
    def broken_storage(self) -> Pings | None:
        """Return the same backend, unable to reach what it stores in; None where that cannot be."""
        raise NotImplementedError("override the fixture `broken_storage`")

    def test_a_store_that_is_there_answers(self, storage: Pings) -> None:
        """By returning."""
        storage.ping()

    def test_a_store_that_is_away_says_so(self, broken_storage: Pings | None) -> None:
        """By an error that the plugin takes for that: `StorageUnavailable`, an `OSError`, or one of a library's own."""
        if broken_storage is not None:
            with pytest.raises(StorageUnavailable):
                ask(broken_storage.ping)


_CAPABILITIES: dict[str, tuple[Callable[[Storage], bool], type]] = {
    "supports_presign": (lambda storage: storage.supports_presign, PresignContract),
    "StreamsMPacks": (lambda storage: isinstance(storage, StreamsMPacks), StreamsMPacksContract),
    "TakesUploads": (lambda storage: isinstance(storage, TakesUploads), TakesUploadsContract),
    "Deletes": (lambda storage: isinstance(storage, Deletes), DeletesContract),
    "Pings": (lambda storage: isinstance(storage, Pings), PingsContract),
}


def _unknown() -> str:
    return blob_id(secrets.token_bytes(32))


def _whole(storage: StreamsMPacks, content: bytes) -> bytes | None:
    file = storage.open_mpack(blob_id(content))
    if file is None:
        return None
    with file:
        return file.read()
