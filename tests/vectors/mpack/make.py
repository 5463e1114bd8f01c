"""Writes the vectors beside it: packs, and for each a JSON file of what it reads as or why it must be refused.

    python tests/vectors/mpack/make.py

Another zstd library may compress to other bytes, so vectors that exist are left alone: they pin what a reader must
make of them, not what a writer writes. Bytes are `{"$base64": ...}` in the JSON.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgpack

from musehub_plugin import ids
from musehub_plugin.mpack import build_wire_mpack
from musehub_plugin.mpack.zstd import zstd

HERE = Path(__file__).parent
MAGIC = b"\x8dMPK1\r\n\x1a"
END = b"\x1aMPKEND\n"

Pack = dict[str, list[dict[str, Any]]]
Row = tuple[int, int, bytes, int, int]


def _commit(
    snapshot_id: str, parents: list[str], message: str, rule: str = "committed_at", **more: Any
) -> dict[str, Any]:
    record = {
        "parent_ids": parents,
        "snapshot_id": snapshot_id,
        "branch": "main",
        "message": message,
        "author": "Ada <ada@example.org>",
        "committed_at": "2026-01-02T03:04:05+00:00",
        **more,
    }
    commit_id = ids.commit_id(parents, snapshot_id, message, record[rule])
    return {"commit_id": more.get("commit_id", commit_id), **record}


def _snapshot(manifest: dict[str, str], snapshot_id: str | None = None) -> dict[str, Any]:
    return {"snapshot_id": snapshot_id or ids.snapshot_id(manifest), "manifest": manifest}


def _blob(content: bytes) -> dict[str, Any]:
    return {"object_id": ids.blob_id(content), "content": content}


def _hello() -> Pack:
    blob = _blob(b"hello\n")
    snapshot = _snapshot({"a.txt": blob["object_id"]})
    return {"commits": [_commit(snapshot["snapshot_id"], [], "Say hello")], "snapshots": [snapshot], "blobs": [blob]}


def _history() -> Pack:
    blobs = [_blob(f"line {n}\n".encode() * 50 * n) for n in range(8)]
    snapshots = []
    commits: list[dict[str, Any]] = []
    manifest: dict[str, str] = {"docs/outside.md": ids.fake_id("outside object")}
    for n, blob in enumerate(blobs):
        manifest = {**manifest, f"src/file{n % 3}.txt": blob["object_id"], "src/é/last": blob["object_id"]}
        if n == 5:
            del manifest["docs/outside.md"]
        snapshots.append(_snapshot(manifest))
        parents = [commits[-1]["commit_id"]] if commits else [ids.fake_id("outside commit")]
        if n == 6:
            parents.append(commits[2]["commit_id"])
        rule = "author" if n % 4 == 3 else "committed_at"
        commits.append(_commit(snapshots[-1]["snapshot_id"], parents, f"Change {n}\n", rule))
    return {"commits": commits, "snapshots": snapshots, "blobs": blobs}


def _stored_ids() -> Pack:
    snapshots = [_snapshot({"a": ids.fake_id("o")}), _snapshot({"a": ids.fake_id("o")}, ids.fake_id("false snapshot"))]
    commits = [
        _commit(snapshots[0]["snapshot_id"], [ids.fake_id("c1")], "child first", commit_id=ids.fake_id("c0")),
        _commit(ids.fake_id("outside snapshot"), [ids.fake_id("c1")] * 2, "own parent", commit_id=ids.fake_id("c1")),
        _commit(snapshots[1]["snapshot_id"], [], "true"),
    ]
    return {"commits": commits, "snapshots": snapshots, "blobs": [{"object_id": ids.fake_id("b"), "content": b"x"}]}


def _further_fields() -> Pack:
    further: dict[str, Any] = {
        "signature": None,
        "metadata": {"é": [1, -1, 1 << 63, 0.5, True, [], {}], "raw": b"\0\xff"},
        "": "",
    }
    commit = _commit(ids.fake_id("outside snapshot"), [], "", **further)
    return {"commits": [commit], "snapshots": [], "blobs": []}


def _empty_things() -> Pack:
    return {"commits": [], "snapshots": [_snapshot({})], "blobs": [_blob(b"")]}


def _over_a_frame() -> Pack:
    return {
        "commits": [],
        "snapshots": [],
        "blobs": [_blob(b"a"), _blob(b"0123456789abcdef" * (1 << 20) + b"z"), _blob(b"b")],
    }


def _file(*rows: Row, needs: list[str] | None = None, **more: Any) -> bytes:
    columns = [list(column) for column in zip(*((k, c, len(s), r, n) for k, c, s, r, n in rows), strict=True)]
    table: bytes = msgpack.packb({"needs": needs or [], "frames": columns or [[]] * 5, **more})
    size = len(table).to_bytes(4, "big")
    return MAGIC + b"".join(row[2] for row in rows) + table + size + size + END


def _plain(kind: int, raw: bytes, count: int) -> Row:
    return kind, 0, raw, len(raw), count


READ: dict[str, tuple[str, Pack]] = {
    "empty": ("No frames at all.", {"commits": [], "snapshots": [], "blobs": []}),
    "hello": ("The example of the specification.", _hello()),
    "history": ("Merges, both id rules, outside ids, compressed frames, manifests as changes.", _history()),
    "stored-ids": (
        "Ids that content does not give; a child before its parent; a commit that is its own parent.",
        _stored_ids(),
    ),
    "further-fields": ("All that further fields may hold.", _further_fields()),
    "empty-things": ("An empty blob and an empty manifest.", _empty_things()),
    "over-a-frame": ("A blob of 2^24 + 1 bytes that goes on in a second frame.", _over_a_frame()),
}


def _by_hand() -> dict[str, tuple[str, Pack, bytes]]:
    """Packs that our writer does not write, and that a reader must read all the same."""
    content = b"across frames"
    directory = msgpack.packb([ids.to_digest(ids.blob_id(content)), [len(content)]])
    optional = _file(
        _plain(1, content[:5], 1),
        _plain(1, content[5:], 0),
        _plain(200, b"?", 3),
        _plain(2, directory, 1),
        later=[{"a": 1}],
    )
    blobs = {"commits": [], "snapshots": [], "blobs": [_blob(content)]}
    objects = [ids.fake_id("o0"), ids.fake_id("o1")]
    outside = _plain(3, b"".join(map(ids.to_digest, objects)), 2)
    first = _plain(4, msgpack.packb([["a"], [4], [0], [], [1], [0], [0], [], b""]), 0)
    second = _plain(4, msgpack.packb([["b"], [1], [0], [], [1], [0], [1], [], b""]), 1)
    manifest = {"a": objects[0], "b": objects[1]}
    return {
        "optional-parts": ("A small blob across frames, a frame and a key to skip.", blobs, optional),
        "snapshot-across-frames": (
            "A snapshot that goes on in the next frame.",
            {"commits": [], "snapshots": [_snapshot(manifest)], "blobs": []},
            _file(outside, first, second),
        ),
    }


def _refused() -> dict[str, tuple[str, bytes]]:
    hello = build_wire_mpack(**_hello())
    rows = [["a"], [0], [0], [], [1], [0], [0], [], b""]
    digest = ids.to_digest(ids.fake_id("o"))
    zeros = zstd.compress(bytes(4096))
    return {
        "refused-cut-off": ("The last byte is missing.", hello[:-1]),
        "refused-more-after-the-end": ("One byte follows the trailer.", hello + b"\0"),
        "refused-version": ("The magic of a version 2.", hello.replace(b"MPK1", b"MPK2", 1)),
        "refused-feature": ("It needs a feature that version 1 does not define.", _file(needs=["thin"])),
        "refused-kind": ("A frame of kind 6.", _file(_plain(6, b"", 0))),
        "refused-gap": ("A byte between the frames and the table.", hello[:155] + b"\0" + hello[155:]),
        "refused-frame-over-its-bound": (
            "A snapshots frame of 2^22 + 1 raw bytes.",
            _file((4, 1, zeros, (1 << 22) + 1, 0)),
        ),
        "refused-content-size": ("A zstd frame of 4096 bytes, 3200 in the table.", _file((3, 1, zeros, 3200, 100))),
        "refused-object": (
            "Object 1 of 1.",
            _file(_plain(3, digest, 1), _plain(4, msgpack.packb([*rows[:6], [1], *rows[7:]]), 1)),
        ),
        "refused-base": (
            "A snapshot that starts from one outside the pack.",
            _file(_plain(3, digest, 1), _plain(4, msgpack.packb([["a"], [2], *rows[2:]]), 1)),
        ),
        "refused-sizes": (
            "A directory whose sizes do not fill the frame.",
            _file(_plain(1, b"abc", 1), _plain(2, msgpack.packb([digest, [2]]), 1)),
        ),
        "refused-twice": (
            "A blob that is listed twice.",
            _file(_plain(1, b"ab", 2), _plain(2, msgpack.packb([digest * 2, [1, 1]]), 2)),
        ),
        "refused-extension": (
            "Further fields with an extension type.",
            _file(
                _plain(
                    5,
                    msgpack.packb([[0], b"", digest, [0], [], [1], [""], [""], [""], [""], [b"\x81\xa1a\xd4\x05\x00"]]),
                    1,
                )
            ),
        ),
    }


def _plain_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: _plain_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_json(item) for item in value]
    return value


def _write(name: str, pack: bytes, description: dict[str, Any]) -> None:
    path = HERE / f"{name}.mpack"
    if not path.exists():
        path.write_bytes(pack)
        text = json.dumps(_plain_json(description), indent=1, ensure_ascii=False)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Write the vectors that are not there yet."""
    for name, (about, pack) in READ.items():
        expected: dict[str, Any] = pack
        if name == "over-a-frame":
            expected = {"blob_ids": [blob["object_id"] for blob in pack["blobs"]]}
        _write(name, build_wire_mpack(**pack), {"about": about, "reads": expected})
    for name, (about, pack, data) in _by_hand().items():
        _write(name, data, {"about": about, "reads": pack})
    for name, (about, data) in _refused().items():
        _write(name, data, {"about": about, "refused": True})


if __name__ == "__main__":
    main()
