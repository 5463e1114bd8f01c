"""Whole packs as plain dicts: for small packs and for tests. The rest of the package streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

from musehub_plugin.mpack.limits import MIB, Limits
from musehub_plugin.mpack.reader import MPackReader
from musehub_plugin.mpack.thin import BaseProvider
from musehub_plugin.mpack.writer import MPackWriter

# Everything is held at once here, and a few bytes of pack can stand for a manifest of many entries.
WIRE_LIMITS = Limits(
    max_file_size=512 * MIB,
    max_raw_size=1024 * MIB,
    max_blobs=500_000,
    max_snapshots=500_000,
    max_commits=500_000,
    max_total_entries=10_000_000,
)


def build_wire_mpack(
    *,
    commits: Iterable[Mapping[str, Any]],
    snapshots: Iterable[Mapping[str, Any]],
    blobs: Iterable[Mapping[str, Any]],
) -> bytes:
    """Return a pack of what is given, in the order given; no id is checked against its content.

    Args:
        commits: `commit_id`, `snapshot_id`, and where present `parent_ids`, `branch`, `message`, `author`,
            `committed_at` and any further fields.
        snapshots: `snapshot_id` and `manifest {path: object_id}`.
        blobs: `object_id` and `content`.

    Raises:
        ValueError: an id is malformed or there twice, or a field is missing, of the wrong type or too large.
    """
    out = BytesIO()
    with MPackWriter(out) as writer:
        for blob in blobs:
            writer.add_blob(_field(blob, "blob", "object_id"), _field(blob, "blob", "content"))
        for snapshot in snapshots:
            writer.add_snapshot(_field(snapshot, "snapshot", "snapshot_id"), _field(snapshot, "snapshot", "manifest"))
        for commit in commits:
            writer.add_commit(commit)
    return out.getvalue()


def _field(entity: Mapping[str, Any], kind: str, name: str) -> Any:
    try:
        return entity[name]
    except KeyError:
        raise ValueError(f"a {kind} has no {name}") from None


def parse_wire_mpack(
    data: bytes, *, limits: Limits | None = None, bases: BaseProvider | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return what a pack holds: the inverse of `build_wire_mpack`.

    Ids that the pack states are not checked against their content; `verify` does that.

    Args:
        data: the pack.
        limits: what is accepted; the default, `WIRE_LIMITS`, is lower than a streaming reader's.
        bases: what the receiver holds, to read a thin pack.

    Returns:
        `commits`, `snapshots` and `blobs`, with all fields that `build_wire_mpack` takes.

    Raises:
        MPackError: `data` is no mpack, or exceeds a limit.
    """
    reader = MPackReader(BytesIO(data), limits=limits or WIRE_LIMITS, bases=bases)
    blobs = [{"object_id": blob.object_id, "content": blob.read()} for blob in reader.blobs()]
    snapshots = [{"snapshot_id": snapshot_id, "manifest": manifest} for snapshot_id, manifest in reader.snapshots()]
    return {"commits": list(reader.commits()), "snapshots": snapshots, "blobs": blobs}
