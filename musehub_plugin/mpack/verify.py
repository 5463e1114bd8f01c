"""Checks every id of a pack against what it names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

from musehub_plugin import ids
from musehub_plugin.mpack.entities import SnapshotDelta
from musehub_plugin.mpack.following import FollowedManifest
from musehub_plugin.mpack.history import IdRule, id_rule
from musehub_plugin.mpack.layout import Kind
from musehub_plugin.mpack.limits import MPackError
from musehub_plugin.mpack.manifests import ManifestHasher
from musehub_plugin.mpack.reader import MPackReader

EntityKind = Literal["snapshot", "commit", "blob"]


class FalseIdError(MPackError):
    """An entity does not hash to the id that the pack states for it.

    Attributes:
        kind: "snapshot", "commit" or "blob".
        entity_id: the id that the pack states.
        ordinal: its number among the pack's entities of that kind.
    """

    def __init__(self, kind: EntityKind, entity_id: str, ordinal: int) -> None:
        super().__init__(f"{kind} {ordinal} does not hash to its id {entity_id}")
        self.kind = kind
        self.entity_id = entity_id
        self.ordinal = ordinal


def verify(reader: MPackReader) -> None:
    """Hash every snapshot, commit and blob, in this order, reading the whole pack once.

    Whether what they refer to is there is another question: the pack alone cannot answer it.

    Raises:
        FalseIdError: the first entity that does not hash to its id.
        MPackError: the pack is malformed, or exceeds a limit.
    """
    verify_snapshots(reader)
    verify_commits(reader)
    verify_blobs(reader)


def verify_snapshots(reader: MPackReader) -> None:
    """Check the snapshots alone, as `verify` does."""
    for _ in verified_snapshots(reader):
        pass


def verified_snapshots(reader: MPackReader) -> Iterator[SnapshotDelta]:
    """Yield the snapshots as the reader gives them, each checked; ids that the pack leaves to it are true already."""
    hasher = ManifestHasher(reader.folder)
    in_step = False
    manifest = FollowedManifest(reader.folder)
    for delta in reader.snapshot_deltas():
        manifest.follow(delta)
        if not delta.id_is_stored:
            in_step = False
            yield delta
            continue
        if in_step:
            hasher.change(delta.removed, delta.changed, full=delta.full, is_wide=delta.is_wide)
        else:
            hasher.change((), manifest.entries, full=True, is_wide=delta.is_wide)
            in_step = True
        if ids.from_digest(hasher.digest()) != delta.snapshot_id:
            raise FalseIdError("snapshot", delta.snapshot_id, delta.ordinal)
        yield delta


def verify_commits(reader: MPackReader) -> None:
    """Check the commits alone, as `verify` does."""
    for _ in verified_commits(reader):
        pass


def verified_commits(reader: MPackReader) -> Iterator[dict[str, Any]]:
    """Yield the commits as the reader gives them, each checked."""
    for ordinal, read in enumerate(reader.read_commits()):
        record = read.record
        if read.rule == IdRule.STORED and id_rule(record["commit_id"], record["parent_ids"], record) == IdRule.STORED:
            raise FalseIdError("commit", record["commit_id"], ordinal)
        yield record


def verify_blobs(reader: MPackReader, frames: range | None = None) -> None:
    """Check the blobs alone, as `verify` does; streams, whatever their size.

    Args:
        reader: the pack.
        frames: check those blobs alone that begin in these frames: one of `blob_shares`; None: all.
    """
    if frames is None:
        frames = range(sum(1 for frame in reader.frames if frame.kind == Kind.BLOBS))
    placed = reader.placed_digests(frames)
    sha256 = hashlib.sha256
    digest = None
    stated = b""
    ordinal = missing = 0
    for number in frames:
        for piece in reader.blob_pieces(number):
            view = memoryview(piece)
            while True:
                if digest is None:
                    following = next(placed, None)
                    if following is None:
                        break
                    stated, (ordinal, _, _, missing) = following
                    digest = sha256()
                part = view[:missing]
                digest.update(part)
                missing -= len(part)
                if missing:
                    break
                if digest.digest() != stated:
                    raise FalseIdError("blob", ids.from_digest(stated), ordinal)
                digest = None
                view = view[len(part) :]
    if digest is not None:
        raise MPackError(f"blobs: blob {ordinal} lacks {missing} bytes")


def blob_shares(reader: MPackReader, count: int) -> list[range]:
    """Split the frames of a pack's blobs into up to `count` runs of about equal size, to be verified side by side.

    Each begins with a blob, so that no blob is in two of them.
    """
    total = 0
    begin = reader.blob_borders
    frames = [frame.raw for frame in reader.frames if frame.kind == Kind.BLOBS]
    shares: list[range] = []
    start = 0
    for number, raw in enumerate(frames):
        if number > start and number in begin and total * count >= sum(frames) * (len(shares) + 1):
            shares.append(range(start, number))
            start = number
        total += raw
    if frames:
        shares.append(range(start, len(frames)))
    return shares
