"""Too little of something: limits of this process, which need no root."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk(after: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: the nearest thing to a full disk."""
    with _at_most(resource.RLIMIT_FSIZE, after):
        yield


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let no file be opened."""
    with _at_most(resource.RLIMIT_NOFILE, 1):
        yield


@contextmanager
def _at_most(what: int, most: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)
