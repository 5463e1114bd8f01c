"""Object storage in the process's memory: for tests and a first look. Nothing outlives the process."""

from __future__ import annotations

import io
import threading
from typing import BinaryIO

from musehub_plugin.storage.base import stored_name, upload_name
from musehub_plugin.storage.served import SignsForPlugin, checked_chunks
from musehub_plugin.storage.signing import UrlSigner


class MemoryStorage(SignsForPlugin):
    """Everything that a backend can do, over dictionaries; safe to share between threads.

    Args:
        signer: makes the URLs; left out: one with a random key.
    """

    def __init__(self, signer: UrlSigner | None = None) -> None:
        super().__init__(signer)
        self._lock = threading.Lock()
        self._blobs: dict[str, bytes] = {}
        self._mpacks: dict[str, bytes] = {}
        self._uploads: dict[str, bytes] = {}

    def put(self, oid: str, data: bytes) -> str:
        """Store a blob and return its URI."""
        name = stored_name(oid)
        with self._lock:
            self._blobs[name] = bytes(data)
        return f"memory://blobs/{name}"

    def get(self, oid: str) -> bytes | None:
        """Return a blob's bytes, or None where it is not stored."""
        with self._lock:
            return self._blobs.get(stored_name(oid))

    def exists(self, oid: str) -> bool:
        """Say whether a blob is stored."""
        with self._lock:
            return stored_name(oid) in self._blobs

    def open_blob(self, oid: str) -> BinaryIO | None:
        """Return a blob as a seekable binary file, or None where it is not stored."""
        return _file(self.get(oid))

    def delete(self, oid: str) -> None:
        """Remove a blob; absence is no error."""
        with self._lock:
            self._blobs.pop(stored_name(oid), None)

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        """Store an mpack and return its URI."""
        name = stored_name(mpack_id)
        with self._lock:
            self._mpacks[name] = bytes(data)
        return f"memory://mpacks/{name}"

    def put_mpack_file(self, mpack_id: str, file: BinaryIO) -> str:
        """Store an mpack from a file's current position to its end, and return its URI."""
        return self.put_mpack(mpack_id, file.read())

    def get_mpack(self, mpack_id: str) -> bytes | None:
        """Return an mpack's bytes, or None where it is not stored."""
        with self._lock:
            return self._mpacks.get(stored_name(mpack_id))

    def open_mpack(self, mpack_id: str) -> BinaryIO | None:
        """Return an mpack as a seekable binary file, or None where it is not stored."""
        return _file(self.get_mpack(mpack_id))

    def delete_mpack(self, mpack_id: str) -> None:
        """Remove an mpack; absence is no error."""
        with self._lock:
            self._mpacks.pop(stored_name(mpack_id), None)

    def receive_upload(self, key: str, file: BinaryIO, *, size: int | None, digest: str | None) -> None:
        """Store what a client uploads, if it has the signed size and digest.

        Raises:
            UploadRefused: it has not; nothing is stored.
        """
        name = upload_name(key)
        data = b"".join(checked_chunks(file, size=size, digest=digest))
        with self._lock:
            self._uploads[name] = data

    def open_upload(self, key: str) -> BinaryIO | None:
        """Return an upload as a seekable binary file, or None where nothing was uploaded."""
        with self._lock:
            return _file(self._uploads.get(upload_name(key)))

    def delete_upload(self, key: str) -> None:
        """Forget the upload; absence is no error."""
        with self._lock:
            self._uploads.pop(upload_name(key), None)

    def ping(self) -> None:
        """Return: memory is always there."""


def _file(data: bytes | None) -> BinaryIO | None:
    return None if data is None else io.BytesIO(data)
