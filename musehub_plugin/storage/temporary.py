"""Temporary files on a disk that may be full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from musehub_plugin.errors import StorageUnavailable


@contextmanager
def temporary_room() -> Iterator[None]:
    """Turn what the operating system raises over a temporary file into `StorageUnavailable`.

    Put it around the file's own `with`: what is buffered may be refused as late as when the file is closed.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageUnavailable(f"there is no room for a temporary file: {reason}") from error
