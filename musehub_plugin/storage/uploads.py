"""Moving mpacks in and out of whatever storage there is: a backend's own way where it has one, `Storage`
else.

A backend of a third party may have only the contract's methods. Then uploads go through the plugin's own
route, and lie in storage as mpacks under an id that is derived from the upload's random key (`staged_id`): no
bytes can be found that hash to it, so that it never meets a real mpack, and nothing but the holder of the key
asks for it.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from typing import IO, Any, BinaryIO, Protocol, cast

from musehub_plugin.ids import PREFIX
from musehub_plugin.storage.base import (
    Deletes,
    PresignedUpload,
    ServedByPlugin,
    Storage,
    StreamsMPacks,
    TakesUploads,
    ask,
    stored_name,
    upload_name,
)
from musehub_plugin.storage.served import checked_chunks
from musehub_plugin.storage.signing import UrlSigner

_SPOOL = 8 * 1024 * 1024


class Readable(Protocol):
    """A stream that is read once, from its start to its end."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        ...


def signer_of(storage: Storage, signer: UrlSigner) -> UrlSigner:
    """Return the signer whose URLs the routes accept for `storage`: its own, where it has one, or
    `signer`."""
    return storage.signer if isinstance(storage, ServedByPlugin) else signer


def mpack_url(storage: Storage, signer: UrlSigner, mpack_id: str, ttl_seconds: int) -> str:
    """Return a URL from which anyone can GET the mpack for `ttl_seconds`.

    A backend that cannot presign is served by the plugin.
    """
    if storage.supports_presign:
        return ask(storage.presign_mpack_get, mpack_id, ttl_seconds)
    return signer.sign("GET", "mpack", stored_name(mpack_id), ttl_seconds=ttl_seconds)


def open_mpack(storage: Storage, mpack_id: str) -> BinaryIO | None:
    """Return an mpack as a seekable binary file, or None where it is not stored.

    A backend that does not stream gives the whole mpack at once, in memory.
    """
    if isinstance(storage, ServedByPlugin):
        return ask(storage.open_mpack, mpack_id)
    if isinstance(storage, StreamsMPacks):
        return _asked(ask(storage.open_mpack, mpack_id))
    return _file(ask(storage.get_mpack, mpack_id))


def open_blob(storage: Storage, object_id: str) -> BinaryIO | None:
    """Return a blob as a seekable binary file, or None where it is not stored."""
    if isinstance(storage, ServedByPlugin):
        return ask(storage.open_blob, object_id)
    return _file(ask(storage.get, object_id))


def put_mpack_file(storage: Storage, mpack_id: str, file: IO[bytes]) -> str:
    """Store an mpack from a file's current position to its end, and return its URI."""
    if isinstance(storage, StreamsMPacks):
        # What tempfile returns is typed IO[bytes]; the two differ in name alone.
        return ask(storage.put_mpack_file, mpack_id, cast(BinaryIO, file))
    return ask(storage.put_mpack, mpack_id, file.read())


def presign_upload(
    storage: Storage, signer: UrlSigner, key: str, *, mpack_id: str, size_bytes: int, ttl_seconds: int
) -> PresignedUpload:
    """Return how a client uploads an mpack.

    Args:
        storage: where it goes.
        signer: signs, where the backend takes no uploads by itself and the plugin's route has to.
        key: 64 lowercase hex digits chosen at random; names the upload from now on.
        mpack_id: the id that the bytes must have.
        size_bytes: the size that they must have.
        ttl_seconds: life of the URL, 1 second to 7 days.
    """
    if isinstance(storage, TakesUploads):
        return ask(storage.presign_upload, key, mpack_id=mpack_id, size_bytes=size_bytes, ttl_seconds=ttl_seconds)
    url = signer.sign(
        "PUT",
        "upload",
        upload_name(key),
        ttl_seconds=ttl_seconds,
        size=size_bytes,
        digest=stored_name(mpack_id),
    )
    return PresignedUpload(url=url, method="PUT", headers={"Content-Type": "application/octet-stream"})


def takes_bytes(storage: Storage) -> bool:
    """Say whether uploads for `storage` come through the plugin's route."""
    return isinstance(storage, ServedByPlugin) or not isinstance(storage, TakesUploads)


def receive_upload(storage: Storage, key: str, body: Readable, *, size: int, digest: str) -> None:
    """Store what a client sends to the plugin's route.

    Args:
        storage: where it goes; `takes_bytes` holds for it.
        key: the upload's key.
        body: at most `size` + 1 bytes of it are read.
        size: bytes that it must have.
        digest: SHA-256 in hex that it must have.

    Raises:
        UploadRefused: size or digest differ; nothing is stored.
    """
    stream = cast(BinaryIO, body)  # nothing but read() is used of it
    if isinstance(storage, ServedByPlugin):
        storage.receive_upload(key, stream, size=size, digest=digest)
        return
    # To the disk first: what is not what was signed must not cost its size in memory.
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL) as spool:
        for chunk in checked_chunks(stream, size=size, digest=digest):
            spool.write(chunk)
        spool.seek(0)
        put_mpack_file(storage, staged_id(key), spool)


def open_upload(storage: Storage, key: str) -> BinaryIO | None:
    """Return what was uploaded under `key` as a seekable binary file, or None where nothing was."""
    if isinstance(storage, TakesUploads):
        file = ask(storage.open_upload, key)
        return file if isinstance(storage, ServedByPlugin) else _asked(file)
    return open_mpack(storage, staged_id(key))


def delete_upload(storage: Storage, key: str) -> None:
    """Forget the upload; absence is no error.

    A backend that takes no uploads by itself and cannot delete keeps the bytes; its own lifecycle rules must
    clear them away.
    """
    if isinstance(storage, TakesUploads):
        ask(storage.delete_upload, key)
    elif isinstance(storage, Deletes):
        ask(storage.delete_mpack, staged_id(key))


class _AskedFile:
    """A file of a backend, each read of which may fail as the backend's methods do."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        return ask(self._file.read, size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return ask(self._file.seek, offset, whence)

    def __enter__(self) -> _AskedFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _asked(file: BinaryIO | None) -> BinaryIO | None:
    return None if file is None else cast(BinaryIO, _AskedFile(file))


def staged_id(key: str) -> str:
    """Return the id under which a backend that takes no uploads by itself keeps the upload `key`."""
    return PREFIX + hashlib.sha256(b"musehub-upload\0" + upload_name(key).encode()).hexdigest()


def _file(data: bytes | None) -> BinaryIO | None:
    return None if data is None else io.BytesIO(data)
