"""Object storage in a directory.

Below the root: `blobs/`, `mpacks/` and `uploads/`, each fanned out by the first two hex digits, and `parts/`
for files that are being written. A file gets its final name by a rename, once its bytes are on the disk, so
that what has a final name is whole. Names come from checked hex digits only, and no symlink below the root is
followed: what an attacker plants there is absent to us.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.storage.base import stored_name, upload_name
from musehub_plugin.storage.served import CHUNK, SignsForPlugin, checked_chunks
from musehub_plugin.storage.signing import UrlSigner

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a planted fifo must not hang; it changes nothing for a regular file.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What "not stored" looks like: no such name, a file where a directory belongs, a symlink.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_PARTS = "parts"
_KEY_FILE = ".signing-key"


class FileStorage(SignsForPlugin):
    """Everything that a backend can do, in one directory of one filesystem.

    Files are readable by their owner alone (0600, directories 0700): they hold private repos as well. All
    processes of a hub (web workers, job workers) run as one user.

    Args:
        root: the directory; made where it is missing. It may itself be a symlink.
        signer: makes the URLs; left out: one whose key is kept in `root/.signing-key`, so that all processes
            that share the directory accept each other's URLs.
    """

    def __init__(self, root: str | os.PathLike[str], signer: UrlSigner | None = None) -> None:
        super().__init__(signer)
        self.root = Path(root).absolute()

    # Blobs

    def put(self, oid: str, data: bytes) -> str:
        """Store a blob and return its URI."""
        return self._store("blobs", stored_name(oid), [data])

    def get(self, oid: str) -> bytes | None:
        """Return a blob's bytes, or None where it is not stored."""
        return self._read("blobs", stored_name(oid))

    def exists(self, oid: str) -> bool:
        """Say whether a blob is stored."""
        return self._size("blobs", stored_name(oid)) is not None

    def open_blob(self, oid: str) -> BinaryIO | None:
        """Return a blob as a seekable binary file, or None where it is not stored."""
        return self._open("blobs", stored_name(oid))

    def delete(self, oid: str) -> None:
        """Remove a blob; absence is no error."""
        self._remove("blobs", stored_name(oid))

    # Mpacks

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        """Store an mpack and return its URI."""
        return self._store("mpacks", stored_name(mpack_id), [data])

    def put_mpack_file(self, mpack_id: str, file: BinaryIO) -> str:
        """Store an mpack from a file's current position to its end, and return its URI."""
        return self._store("mpacks", stored_name(mpack_id), iter(lambda: file.read(CHUNK), b""))

    def get_mpack(self, mpack_id: str) -> bytes | None:
        """Return an mpack's bytes, or None where it is not stored."""
        return self._read("mpacks", stored_name(mpack_id))

    def open_mpack(self, mpack_id: str) -> BinaryIO | None:
        """Return an mpack as a seekable binary file, or None where it is not stored."""
        return self._open("mpacks", stored_name(mpack_id))

    def delete_mpack(self, mpack_id: str) -> None:
        """Remove an mpack; absence is no error."""
        self._remove("mpacks", stored_name(mpack_id))

    # Uploads

    def receive_upload(self, key: str, file: BinaryIO, *, size: int | None, digest: str | None) -> None:
        """Store what a client uploads, if it has the signed size and digest.

        Raises:
            UploadRefused: it has not; nothing is stored.
        """
        self._store("uploads", upload_name(key), checked_chunks(file, size=size, digest=digest))

    def open_upload(self, key: str) -> BinaryIO | None:
        """Return an upload as a seekable binary file, or None where nothing was uploaded."""
        return self._open("uploads", upload_name(key))

    def delete_upload(self, key: str) -> None:
        """Forget the upload; absence is no error."""
        self._remove("uploads", upload_name(key))

    # The store itself

    def ping(self) -> None:
        """Write and remove a file; raise `StorageUnavailable` where that fails."""
        with _failing("write to its directory"), self._part() as (parts, part):
            os.close(os.open(part, _CREATE, 0o600, dir_fd=parts))

    def remove_leftovers(self, older_than_seconds: int = 24 * 3600) -> int:
        """Remove what writers that were killed left in `parts/`, and return how many files that were.

        Args:
            older_than_seconds: younger files may still be being written.
        """
        removed = 0
        oldest = time.time() - older_than_seconds
        with _failing("remove leftovers"), self._directory(_PARTS, None, make=True) as parts:
            for name in os.listdir(parts):  # noqa: PTH208 - pathlib cannot list an open directory
                with suppress(FileNotFoundError):  # another process sweeps, too, or the writer finished
                    if os.stat(name, dir_fd=parts, follow_symlinks=False).st_mtime <= oldest:
                        os.unlink(name, dir_fd=parts)
                        removed += 1
        return removed

    def own_key(self) -> bytes:
        """Return the key in `root/.signing-key`, made when first needed; the first process wins."""
        with _failing("read its signing key"), self._directory(None, None, make=True) as root:
            if not _is_file(_KEY_FILE, root):
                with self._part() as (parts, part):
                    with os.fdopen(os.open(part, _CREATE, 0o600, dir_fd=parts), "wb") as file:
                        file.write(secrets.token_bytes(32))
                        _sync(file)
                    with suppress(FileExistsError):  # another process was first: its key counts
                        os.link(part, _KEY_FILE, src_dir_fd=parts, dst_dir_fd=root, follow_symlinks=False)
            with os.fdopen(os.open(_KEY_FILE, _READ, dir_fd=root), "rb") as file:
                key = file.read(1024)
        if len(key) < 32:
            raise StorageUnavailable(f"the file store's {_KEY_FILE} is damaged; remove it to get a new one")
        return key

    def _store(self, area: str, name: str, chunks: Iterable[bytes]) -> str:
        """Write a file under a temporary name, then give it its final one."""
        with _failing(f"write to {area}"), self._part() as (parts, part):
            with os.fdopen(os.open(part, _CREATE, 0o600, dir_fd=parts), "wb", buffering=0) as file:
                for chunk in chunks:
                    view = memoryview(chunk)
                    while view:
                        view = view[file.write(view) :]
                _sync(file)
            with self._directory(area, name[:2], make=True) as shard:
                os.rename(part, name[2:], src_dir_fd=parts, dst_dir_fd=shard)
                os.fsync(shard)
        return self._uri(area, name)

    def _read(self, area: str, name: str) -> bytes | None:
        file = self._open(area, name)
        if file is None:
            return None
        with _failing(f"read from {area}"), file:
            return file.read()

    def _open(self, area: str, name: str) -> BinaryIO | None:
        with _failing(f"read from {area}"):
            try:
                with self._directory(area, name[:2], make=False) as shard:
                    descriptor = os.open(name[2:], _READ, dir_fd=shard)
            except OSError as error:
                if error.errno in _ABSENT:
                    return None
                raise
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return os.fdopen(descriptor, "rb")
            os.close(descriptor)  # a directory, a fifo, a device: nothing that we stored
            return None

    def _size(self, area: str, name: str) -> int | None:
        file = self._open(area, name)
        if file is None:
            return None
        with file:
            return os.fstat(file.fileno()).st_size

    def _remove(self, area: str, name: str) -> None:
        with _failing(f"remove from {area}"):
            try:
                with self._directory(area, name[:2], make=False) as shard:
                    os.unlink(name[2:], dir_fd=shard)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise

    def _uri(self, area: str, name: str) -> str:
        return (self.root / area / name[:2] / name[2:]).as_uri()

    @contextmanager
    def _part(self) -> Iterator[tuple[int, str]]:
        """Give a name in `parts/` for a file to be written, and take care that nothing stays there."""
        with self._directory(_PARTS, None, make=True) as parts:
            part = f"{secrets.token_hex(16)}.part"
            try:
                yield parts, part
            finally:
                with suppress(FileNotFoundError):  # it has its final name, or was never made
                    os.unlink(part, dir_fd=parts)

    @contextmanager
    def _directory(self, area: str | None, shard: str | None, *, make: bool) -> Iterator[int]:
        """Open `root[/area[/shard]]` step by step, so that no step follows a symlink."""
        if make:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in (area, shard):
                if name is not None:
                    below = _step(descriptor, name, make=make)
                    os.close(descriptor)
                    descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)


def _step(parent: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # another thread or process made it
        os.mkdir(name, 0o700, dir_fd=parent)
        os.fsync(parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _is_file(name: str, directory: int) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Turn an error of the operating system into `StorageUnavailable` that names the reason and no path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageUnavailable(f"the file store cannot {what}: {reason}") from error
