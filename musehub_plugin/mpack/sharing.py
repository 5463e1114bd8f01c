"""Computes the ids of a pack's snapshots in shares, which several processes can take in turn.

A frame of snapshots stands by itself, but where one manifest is too large for it. A share that cannot be hashed on its
own is not looked into any further: `MPackReader.hashed_snapshots`, which reads from the first to the last, has the same
answer, or the error.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

from musehub_plugin.mpack.digestlist import DigestList
from musehub_plugin.mpack.layout import Kind
from musehub_plugin.mpack.limits import MPackError
from musehub_plugin.mpack.reader import MPackReader

# From so many frames on, each is a share; of fewer, each half is. What is before a half is decoded once more, which
# takes 5 microseconds a snapshot, where hashing one takes 25 (200 paths) to 110 (2,000).
_MANY_FRAMES: Final = 8
# Decoded metadata takes up to some 25 times its raw size: what is larger is read by one process alone. Writers make
# frames of about 1 MiB at most.
_SHARED_BYTES: Final = 3 << 19


class SnapshotShare(NamedTuple):
    """Snapshots that are hashed without those before them.

    Attributes:
        frame: ordinal of their frame in the file.
        first: ordinal of the first of them in the pack.
        start: ordinal of the first of them in the frame.
        stop: ordinal in the frame of the one after the last.
    """

    frame: int
    first: int
    start: int
    stop: int


class HashedShare(NamedTuple):
    """The ids of a share's snapshots.

    Attributes:
        digests: 32 bytes of each.
        stated: whether the pack states any of them; the others are true.
        changes: changes of manifests in the frame, where the share is its end; otherwise 0.
        entries: entries of all manifests in the frame, likewise.
    """

    digests: bytes
    stated: bool
    changes: int
    entries: int


def snapshot_shares(reader: MPackReader) -> list[SnapshotShare]:
    """Return the shares of a pack's snapshots, in the order of the pack.

    They are none where a frame is larger than writers make them, or is a part of one snapshot alone: that is a manifest
    of very many paths, and several of these at once may take too much memory.
    """
    frames = [(number, frame) for number, frame in enumerate(reader.frames) if frame.kind == Kind.SNAPSHOTS]
    if any(frame.raw > _SHARED_BYTES or not frame.count for _, frame in frames):
        return []
    parts = 1 if len(frames) >= _MANY_FRAMES else 2
    shares: list[SnapshotShare] = []
    first = 0
    for number, frame in frames:
        cuts = [frame.count * part // parts for part in range(parts + 1)]
        shares += [SnapshotShare(number, first + start, start, stop) for start, stop in pairwise(cuts)]
        first += frame.count
    return shares


def hash_share(reader: MPackReader, share: SnapshotShare) -> HashedShare | None:
    """Compute the ids of a share's snapshots.

    Returns:
        None where they are not to be had so: the frame goes on from the one before or in the next one, or its manifests
        are wide, or something is wrong with it.
    """
    hashed = reader.snapshot_hasher()
    decoder = reader.snapshot_decoder()
    digests = bytearray()
    stated = False
    count = reader.frames[share.frame].count
    try:
        raw, where = reader.raw_frame(share.frame)
        for row, change in enumerate(decoder.decode(raw, count, where)):
            if change.is_wide:
                return None
            if row < share.start:
                continue
            if row == share.stop:
                # Whoever has the other share sees to the end of the frame.
                return HashedShare(bytes(digests), stated, 0, 0)
            digests += hashed(decoder.whole(change) if row == share.start else change)
            stated = stated or change.stored is not None
        decoder.finish()
    except MPackError:
        # `hashed_snapshots` says which, and what is wrong before it.
        return None
    return HashedShare(bytes(digests), stated, decoder.changes, decoder.entries)


def join(reader: MPackReader, shares: Iterable[HashedShare | None]) -> tuple[DigestList, bool] | None:
    """Let a reader know the ids of all snapshots, from the shares that were hashed.

    Args:
        reader: the pack.
        shares: what `hash_share` returned for each of `snapshot_shares`, in their order.

    Returns:
        The ids, and whether the pack states any of them. None where a share could not be hashed on its own, an id is
        there twice, or there are more changes or entries than the limits allow.
    """
    limits = reader.limits
    digests = DigestList(reader.folder)
    changes = entries = 0
    stated = False
    for share in shares:
        if share is None or digests.extend(share.digests) is not None:
            return None
        changes += share.changes
        entries += share.entries
        stated = stated or share.stated
        if changes > limits.max_manifest_changes or entries > limits.max_total_entries:
            return None
    if digests.first_repeat() is not None or len(digests) != reader.snapshot_count:
        return None
    reader.know_snapshots(digests)
    return digests, stated
