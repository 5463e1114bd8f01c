"""Packs to read, and a container that is put together by hand so that any part of it can be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgpack
import pytest

from musehub_plugin import ids
from musehub_plugin.mpack import build_wire_mpack
from musehub_plugin.mpack.zstd import zstd

MAGIC = b"\x8dMPK1\r\n\x1a"
END = b"\x1aMPKEND\n"

WirePack = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class HandFrame:
    """A frame with whatever the test wants the table to say of it."""

    kind: int
    stored: bytes
    count: int
    codec: int = 0
    raw: int | None = None
    stored_size: int | None = None


class Assemble(Protocol):
    """Puts a file together, honest but for what the caller says."""

    def __call__(
        self,
        *frames: HandFrame,
        needs: Sequence[object] = (),
        extra: dict[str, object] | None = None,
        gap: bytes = b"",
        compress_table: bool = False,
    ) -> bytes: ...


@pytest.fixture
def assemble() -> Assemble:
    """A function that puts frames, table and trailer together without the code under test."""

    def put_together(
        *frames: HandFrame,
        needs: Sequence[object] = (),
        extra: dict[str, object] | None = None,
        gap: bytes = b"",
        compress_table: bool = False,
    ) -> bytes:
        columns = [
            [frame.kind for frame in frames],
            [frame.codec for frame in frames],
            [len(frame.stored) if frame.stored_size is None else frame.stored_size for frame in frames],
            [len(frame.stored) if frame.raw is None else frame.raw for frame in frames],
            [frame.count for frame in frames],
        ]
        raw = msgpack.packb({"needs": list(needs), "frames": columns, **(extra or {})})
        stored = zstd.compress(raw) if compress_table else raw
        body = b"".join(frame.stored for frame in frames)
        sizes = len(stored).to_bytes(4, "big") + len(raw).to_bytes(4, "big")
        return MAGIC + body + gap + stored + sizes + END

    return put_together


def make_history(length: int) -> WirePack:
    """Return a history with everything in it: merges, outside ids, false ids, removals, further fields."""
    blobs: list[dict[str, Any]] = []
    snapshots: list[dict[str, Any]] = []
    commits: list[dict[str, Any]] = []
    manifest: dict[str, str] = {}
    parents = [ids.fake_id("outside commit")]
    for n in range(length):
        content = f"version {n}\n".encode() * n
        object_id = ids.fake_id(f"blob {n}") if n % 7 == 6 else ids.blob_id(content)
        blobs.append({"object_id": object_id, "content": content})
        manifest = manifest | {f"dir/file{n % 5}": object_id, "elsewhere": ids.fake_id(f"outside {n // 3}")}
        if n % 4 == 3:
            del manifest[f"dir/file{(n - 2) % 5}"]
        snapshot_id = ids.fake_id(f"snapshot {n}") if n % 5 == 4 else ids.snapshot_id(manifest)
        snapshots.append({"snapshot_id": snapshot_id, "manifest": dict(manifest)})
        commit: dict[str, Any] = {
            "parent_ids": parents,
            "snapshot_id": ids.fake_id("outside snapshot") if n % 9 == 8 else snapshot_id,
            "branch": "main" if n % 2 else "",
            "message": f"Change {n}\n\nwith a body of its own",
            "author": "Zoë <zoe@example.org>",
            "committed_at": f"2026-01-01T00:00:{n % 60:02}+00:00",
        }
        hashed = commit["author"] if n % 3 == 2 else commit["committed_at"]
        true_id = ids.commit_id(parents, commit["snapshot_id"], commit["message"], hashed)
        commit["commit_id"] = ids.fake_id(f"commit {n}") if n % 6 == 5 else true_id
        if n % 4 == 0:
            commit["metadata"] = {"git.commit": f"{n:040x}", "deep": [1, -1, None, True, 0.5, b"\0", {"": []}]}
        commits.append(commit)
        parents = [commit["commit_id"]]
        if n > 3 and n % 4 == 1:
            parents = [commit["commit_id"], commits[n - 3]["commit_id"]]
    return {"commits": commits, "snapshots": snapshots, "blobs": blobs}


@pytest.fixture
def history() -> WirePack:
    """Forty commits with everything in them that a pack can hold."""
    return make_history(40)


@pytest.fixture(scope="session")
def small_pack() -> bytes:
    """A pack with everything in it, small enough to try every damage on."""
    return build_wire_mpack(**make_history(6))


@pytest.fixture
def hand_frame() -> type[HandFrame]:
    """The frames that `assemble` takes."""
    return HandFrame
