"""Verifies a pack's snapshots and blobs by several processes, which take them in turn."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import repeat
from tempfile import TemporaryFile
from typing import Final

from musehub_plugin.client.beside import MOST_TASKS, Beside
from musehub_plugin.client.progress import Progress
from musehub_plugin.mpack import MPackReader, blob_shares, verify_blobs
from musehub_plugin.mpack.sharing import HashedShare, SnapshotShare, hash_share, join, snapshot_shares

# What is said of a share of snapshots: whether the pack states an id, how many changes and how many entries there are.
_HASHED: Final = struct.Struct("?QQ")


class Together:
    """Hashes a pack's snapshots and blobs in several processes; used as a context manager.

    Args:
        reader: the pack.
        handle: its file.
        processes: how many there are beside this one.
        progress: told about snapshots.
    """

    def __init__(self, reader: MPackReader, handle: int, processes: int, progress: Progress) -> None:
        self._reader = reader
        self._progress = progress
        self._shares = snapshot_shares(reader)
        if len(self._shares) > MOST_TASKS // 2:
            self._shares = []
        # Blobs last: commits are read when all snapshots are done, by this process alone.
        tasks: list[SnapshotShare | range] = [*self._shares, *blob_shares(reader, MOST_TASKS // 2)]
        # What is hashed is put where it belongs, unbuffered, by whoever has hashed it.
        self._digests = TemporaryFile(dir=reader.folder, buffering=0)  # noqa: SIM115 - closed by __exit__
        handles = [handle, self._digests.fileno(), *reader.handles]
        self._beside = Beside(self._work, tasks, handles, processes=processes)

    def __enter__(self) -> Together:
        return self

    def __exit__(self, *_: object) -> None:
        self._beside.__exit__()
        self._digests.close()

    def snapshots(self) -> Iterator[tuple[bytes, bool]] | None:
        """Return what `MPackReader.hashed_snapshots` gives, and let the reader know it; None where that must say it."""
        joined = join(self._reader, self._hashed())
        if joined is None:
            return None
        digests, stated = joined
        return zip(digests, repeat(stated))

    def finish(self) -> None:
        """Wait until all blobs are verified.

        Raises:
            MPackError: one of them is wrong.
        """
        self._beside.finish()

    def _hashed(self) -> Iterator[HashedShare | None]:
        """Yield the shares of the snapshots, in their order, as they are hashed."""
        done = 0
        for number, share in enumerate(self._shares):
            said = self._beside.result(number)
            if not said:
                yield None
                return
            size = 32 * (share.stop - share.start)
            yield HashedShare(os.pread(self._digests.fileno(), size, 32 * share.first), *_HASHED.unpack(said))
            done += share.stop - share.start
            self._progress("snapshots", done, self._reader.snapshot_count)

    def _work(self, task: SnapshotShare | range) -> bytes:
        if isinstance(task, range):
            verify_blobs(self._reader, task)
            return b""
        hashed = hash_share(self._reader, task)
        if hashed is None:
            return b""
        place, rest = 32 * task.first, memoryview(hashed.digests)
        while rest:
            written = os.pwrite(self._digests.fileno(), rest, place)
            place, rest = place + written, rest[written:]
        return _HASHED.pack(hashed.stated, hashed.changes, hashed.entries)
