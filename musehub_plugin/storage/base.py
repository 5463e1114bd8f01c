"""What the plugin asks of object storage.

`Storage` is the contract's section 6: third parties implement it, nothing more is ever required. What else a
backend can do is found by `isinstance` against the capability protocols below; where a backend lacks one, the
plugin does the same work through `Storage` alone, with more memory or one more hop.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, ParamSpec, Protocol, TypeVar, runtime_checkable

from musehub_plugin.errors import HubError, Invalid, StorageUnavailable
from musehub_plugin.ids import is_hex, is_id, to_hex
from musehub_plugin.storage.signing import UrlSigner

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

# The time limit of a job, which RQ raises wherever the job is at, and a backend that keeps bytes in a database.
_NOT_OF_STORAGE = ("rq", "sqlalchemy")
# The query of a URL, and the credentials before a host.
_SECRETS = re.compile(r"(?<=\?)[^\s'\"<>=]+=[^\s'\"<>]*|(?<=://)[^\s/@]+(?=@)")


class Storage(Protocol):
    """Blobs and mpacks by content address.

    Methods raise `musehub_plugin.errors.StorageUnavailable` or an `OSError` where the store does not answer; absence
    is no error. The plugin calls them by `ask`, which says what else they may raise. Storing an id again replaces the
    bytes at once: a reader sees the old ones or the new ones, never a mixture.
    """

    supports_presign: bool
    """Whether the `presign_...` methods give URLs that a client can fetch."""

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
        """Return the mpack as a seekable binary file, or None where it is not stored.

        Reads may be range requests. They all see one version of the file, or fail as methods of a `Storage` do.
        """
        ...

    def put_mpack_file(self, mpack_id: str, file: BinaryIO) -> str:
        """Store an mpack from a file's current position to its end, and return its URI."""
        ...


@dataclass(frozen=True)
class PresignedUpload:
    """How a client sends bytes straight to storage."""

    url: str
    method: str
    headers: Mapping[str, str]
    """Headers that the client must send exactly, since they are signed."""


class UploadRefused(Invalid):
    """Uploaded bytes are not those that the URL was signed for; the text says how."""

    code = "upload-refused"


@runtime_checkable
class TakesUploads(Protocol):
    """A backend to which clients upload by themselves, into a staging area that nothing else reads.

    `key` is 64 lowercase hex digits chosen by the plugin at random, never derived from what a client sent.
    """

    def presign_upload(self, key: str, *, mpack_id: str, size_bytes: int, ttl_seconds: int) -> PresignedUpload:
        """Return a URL that takes exactly these bytes.

        The checksum and the size are signed; a store that ignores one of them takes other bytes, so that what
        was uploaded must be hashed before it is believed.
        """
        ...

    def open_upload(self, key: str) -> BinaryIO | None:
        """Return what was uploaded under `key` as a seekable binary file, or None where nothing was."""
        ...

    def delete_upload(self, key: str) -> None:
        """Forget the upload; absence is no error."""
        ...


@runtime_checkable
class ServedByPlugin(Protocol):
    """A backend whose signed URLs lead to the plugin's own storage routes."""

    @property
    def signer(self) -> UrlSigner:
        """Makes and checks this backend's URLs."""
        ...

    def use_signer(self, signer: UrlSigner) -> None:
        """Take the app's signer, unless the backend was built with one of its own."""
        ...

    def open_blob(self, oid: str) -> BinaryIO | None:
        """Return a blob as a seekable binary file, or None where it is not stored."""
        ...

    def open_mpack(self, mpack_id: str) -> BinaryIO | None:
        """Return an mpack as a seekable binary file, or None where it is not stored."""
        ...

    def receive_upload(self, key: str, file: BinaryIO, *, size: int | None, digest: str | None) -> None:
        """Store what a client uploads.

        Args:
            key: the key of the grant.
            file: the request's body; no more than `size` + 1 bytes of it are read.
            size: bytes that it must have, or None.
            digest: SHA-256 in hex that it must have, or None.

        Raises:
            UploadRefused: size or digest differ; nothing is stored.
        """
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
class KeepsParts(Protocol):
    """A backend whose writers leave something behind where they are killed."""

    def remove_leftovers(self, older_than_seconds: int = 24 * 3600) -> int:
        """Remove what was left, and return how many files that were; younger ones may still be being written."""
        ...


@runtime_checkable
class Pings(Protocol):
    """A backend that can say whether it is there."""

    def ping(self) -> None:
        """Return where the store answers and the credentials hold.

        Raises:
            StorageUnavailable: they do not; the text says why, for an operator.
        """
        ...


def ask(method: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a method of a backend, and return what it returns.

    The interface names no exception, so one of a third party lets through what its library raises where a server is
    away. What Python itself raises over a mistake, such as a `TypeError`, goes on as it is.

    Raises:
        StorageUnavailable: the method did, or raised an `OSError`, whose text is dropped: it may hold a signed URL. Or
            it raised an exception of a library's own; its traceback is logged, since it may be a mistake all the same.
    """
    try:
        return method(*args, **kwargs)
    except (StorageUnavailable, HubError):
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageUnavailable(f"{_name(method)} failed: {reason}") from None
    except Exception as error:  # what a third party's library raises has no name here
        if not _is_of_a_library(error):
            raise
        told = _SECRETS.sub("...", "".join(traceback.format_exception(error)))
        logger.error("%s raised what is no OSError, which is taken for an outage:\n%s", _name(method), told)
        raise StorageUnavailable(f"{_name(method)} failed: {type(error).__name__}") from None


def _name(method: Callable[..., object]) -> str:
    return getattr(method, "__qualname__", "storage")


def _is_of_a_library(error: Exception) -> bool:
    """Say whether an exception is a library's, or one that says nothing more than that something failed."""
    package = type(error).__module__.partition(".")[0]
    return package not in {"builtins", *_NOT_OF_STORAGE} or type(error) in {Exception, RuntimeError}


def stored_name(identifier: str) -> str:
    """Return the 64 hex digits under which an id is stored.

    Raises:
        ValueError: `identifier` is no id; a storage name never comes from anything else.
    """
    if not is_id(identifier):
        raise ValueError(f"not an id: {identifier!r:.100}")
    return to_hex(identifier)


def upload_name(key: str) -> str:
    """Return an upload's key, checked.

    Raises:
        ValueError: `key` is not 64 lowercase hex digits.
    """
    if not is_hex(key):
        raise ValueError(f"not an upload key: {key!r:.100}")
    return key
