"""What the plugin asks of object storage.

`Storage` is the contract's section 6: third parties implement it, nothing more is ever required. What else a backend
can do is found by `isinstance` against the capability protocols below; where a backend lacks one, the plugin does the
same work through `Storage` alone, with more memory or one more hop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol, runtime_checkable


class Storage(Protocol):
    """Blobs and mpacks by content address.

    Methods raise `musehub_plugin.errors.StorageUnavailable` where the store does not answer; absence is not an error.
    """

    supports_presign: bool
    """Whether `presign_get` and `presign_mpack_get` give URLs that a client can fetch without the plugin's help."""

    def put(self, oid: str, data: bytes) -> str:
        """Store a blob and return its URI for the record (`storage_uri`); storing it again is harmless."""
        ...

    def get(self, oid: str) -> bytes | None:
        """Return a blob's bytes, or None where it is not stored."""
        ...

    def exists(self, oid: str) -> bool:
        """Say whether a blob is stored."""
        ...

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        """Store an mpack and return its URI."""
        ...

    def get_mpack(self, mpack_id: str) -> bytes | None:
        """Return an mpack's bytes, or None where it is not stored."""
        ...

    def presign_get(self, oid: str, ttl_seconds: int = 3600) -> str:
        """Return a URL from which anyone can GET the blob for `ttl_seconds`."""
        ...

    def presign_mpack_get(self, mpack_id: str, ttl: int) -> str:
        """Return a URL from which anyone can GET the mpack for `ttl` seconds."""
        ...


@runtime_checkable
class StreamsMPacks(Protocol):
    """A backend that moves mpacks without holding them in memory."""

    def open_mpack(self, mpack_id: str) -> BinaryIO | None:
        """Return the mpack as a seekable binary file (reads may be range requests), or None where it is not stored."""
        ...

    def put_mpack_file(self, mpack_id: str, file: BinaryIO) -> str:
        """Store an mpack from a file's current position to its end, and return its URI."""
        ...

    def mpack_size(self, mpack_id: str) -> int | None:
        """Return the size in bytes, or None where it is not stored."""
        ...


@dataclass(frozen=True)
class PresignedUpload:
    """How a client sends bytes straight to storage."""

    url: str
    method: str
    headers: Mapping[str, str]
    """Headers that the client must send exactly, since they are signed."""


@runtime_checkable
class TakesUploads(Protocol):
    """A backend to which clients upload by themselves, into a staging area that nothing else reads.

    `key` is 64 lowercase hex digits chosen by the plugin at random, never derived from what a client sent.
    """

    def presign_upload(self, key: str, *, mpack_id: str, size_bytes: int, ttl_seconds: int) -> PresignedUpload:
        """Return a URL that takes exactly these bytes: the checksum and, where the store can, the size are signed."""
        ...

    def open_upload(self, key: str) -> BinaryIO | None:
        """Return what was uploaded under `key` as a seekable binary file, or None where nothing was."""
        ...

    def promote_upload(self, key: str, mpack_id: str) -> str:
        """Make the upload the mpack `mpack_id` (server-side copy where possible) and return its URI."""
        ...

    def delete_upload(self, key: str) -> None:
        """Forget the upload; absence is no error."""
        ...


@runtime_checkable
class Deletes(Protocol):
    """A backend from which garbage can be collected."""

    def delete(self, oid: str) -> None:
        """Remove a blob; absence is no error."""
        ...

    def delete_mpack(self, mpack_id: str) -> None:
        """Remove an mpack; absence is no error."""
        ...


@runtime_checkable
class Pings(Protocol):
    """A backend that can say whether it is there."""

    def ping(self) -> None:
        """Return where the store answers and the credentials hold; raise `StorageUnavailable` with the reason else."""
        ...
