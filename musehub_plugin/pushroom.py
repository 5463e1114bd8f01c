"""How much a process takes in at once: what pushes hold in memory adds up, and each thread may have one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

SMALL_PACK = 1 << 20
"""Bytes of packs that never wait for others: they hold a few megabytes."""


class PushRoom:
    """The packs that a process is taking in, by their bytes.

    Args:
        most: bytes of packs, small ones apart, that are taken in at once. One that has more is taken in alone. 0: there
            is no such bound.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._lock = threading.Lock()

    @contextmanager
    def take(self, size_bytes: int) -> Iterator[bool]:
        """Take room for a pack until the end of the block, and say whether there was any."""
        if size_bytes <= SMALL_PACK or not self._most:
            yield True
            return
        with self._lock:
            has_room = not self._taken or self._taken + size_bytes <= self._most
            if has_room:
                self._taken += size_bytes
        try:
            yield has_room
        finally:
            if has_room:
                with self._lock:
                    self._taken -= size_bytes
