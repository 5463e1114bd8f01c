"""Writes the vectors beside it: packs, and for each a JSON file of what it reads as or why it must be refused.

    python tests/vectors/mpack/make.py

Thin packs (`thin-`, `refused-thin-`) come with what their receiver must hold under `holds`; a reader that does not know
the feature must refuse them all.

Another zstd library may compress to other bytes, so vectors that exist are left alone: they pin what a reader must
make of them, not what a writer writes. Bytes are `{"$base64": ...}` in the JSON.
"""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import msgpack

from musehub_plugin import ids
from musehub_plugin.mpack import BaseBlob, MPackWriter, build_wire_mpack
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
        "refused-feature": ("It needs a feature that version 1 does not define.", _file(needs=["later"])),
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


def _held(*bases: dict[str, bytes]) -> tuple[list[tuple[str, dict[str, str]]], dict[str, Any]]:
    """Return bases as a writer takes them, and what the JSON says of them."""
    known = []
    blobs = {ids.blob_id(content): content for files in bases for content in files.values()}
    for files in bases:
        manifest = {path: ids.blob_id(content) for path, content in files.items()}
        known.append((ids.snapshot_id(manifest), manifest))
    held = [{"object_id": object_id, "content": content} for object_id, content in sorted(blobs.items())]
    snapshots = [{"snapshot_id": snapshot_id, "manifest": manifest} for snapshot_id, manifest in known]
    return known, {"snapshots": snapshots, "blobs": held}


_OLD = b"".join(b"line %d of a file that changes little\n" % n for n in range(60))
_NEW = _OLD.replace(b"line 30", b"line thirty")


def _thin() -> dict[str, tuple[str, Pack, bytes, dict[str, Any]]]:
    """Thin packs: about, what each reads as, the file, and what the receiver holds."""
    first = {"src/a.txt": _OLD, "src/b.txt": b"the same", "src/c.txt": b"removed"}
    second = {"docs/x.txt": b"another base" * 9, "src/a.txt": _OLD}
    known, held = _held(first, second)
    new = [_blob(_NEW), _blob(b"another base" * 9 + b"!"), _blob(b"unlike anything")]
    change = {**known[0][1], "src/a.txt": new[0]["object_id"], "src/moved.txt": known[0][1]["src/b.txt"]}
    del change["src/c.txt"]
    further = {**known[1][1], "docs/x.txt": new[1]["object_id"], "outside": ids.fake_id("outside object")}
    last = {**further, "docs/new.txt": new[2]["object_id"], "docs/y.txt": known[1][1]["docs/x.txt"]}
    snapshots = [_snapshot(manifest) for manifest in (change, further, last)]
    commits = [_commit(snapshots[0]["snapshot_id"], [ids.fake_id("held commit")], "Change one file")]
    for snapshot in snapshots[1:]:
        commits.append(_commit(snapshot["snapshot_id"], [commits[-1]["commit_id"]], "And then"))
    out = BytesIO()
    with MPackWriter(out, bases=known) as writer:
        writer.add_blob(new[0]["object_id"], new[0]["content"], base=BaseBlob(0, "src/a.txt", _OLD))
        writer.add_blob(new[1]["object_id"], new[1]["content"], base=BaseBlob(1, "docs/x.txt", b"another base" * 9))
        writer.add_blob(new[2]["object_id"], new[2]["content"])
        changed = {"src/a.txt": change["src/a.txt"], "src/moved.txt": change["src/moved.txt"]}
        writer.add_snapshot_delta(snapshots[0]["snapshot_id"], ["src/c.txt"], changed, derivable=True, start=0)
        changed = {path: further[path] for path in ("docs/x.txt", "outside")}
        writer.add_snapshot_delta(snapshots[1]["snapshot_id"], [], changed, derivable=True, start=1)
        writer.add_snapshot(snapshots[2]["snapshot_id"], last)
        for commit in commits:
            writer.add_commit(commit)
    pack: Pack = {"commits": commits, "snapshots": snapshots, "blobs": new}

    magic = bytes.fromhex("37a430ec") + _OLD
    one, alone = _held({"a": magic})
    blob = _blob(magic + b".")
    only: Pack = {"commits": [], "snapshots": [], "blobs": [blob]}
    return {
        "thin-history": (
            "Two bases, a prefix of two blobs, paths and objects of the bases.",
            pack,
            out.getvalue(),
            held,
        ),
        "thin-dictionary-magic": (
            "A prefix that begins with the magic number of zstd's dictionaries, and is none.",
            only,
            _thin_file(one, *_prefixed(b"\x91\x00", magic, blob["content"])),
            alone,
        ),
    }


def _prefixed(entries: bytes, prefix: bytes, content: bytes) -> tuple[Row, Row]:
    stored = entries + zstd.compress(content, zstd_dict=zstd.ZstdDict(prefix, is_raw=True).as_prefix)
    directory = msgpack.packb([ids.to_digest(ids.blob_id(content)), [len(content)]])
    return (1, 2, stored, len(content), 1), _plain(2, directory, 1)


def _thin_file(bases: list[tuple[str, dict[str, str]]], *rows: Row) -> bytes:
    return _file(*rows, needs=["thin"], bases=b"".join(ids.to_digest(snapshot_id) for snapshot_id, _ in bases))


def _refused_thin() -> dict[str, tuple[str, bytes, dict[str, Any]]]:
    known, held = _held({"a": _OLD})
    tiny, tiny_held = _held({"a": b"1234567"})
    row = [[], [2], [0], [], [0], [], [], [], b""]
    good = _prefixed(b"\x91\x00", _OLD, _NEW)
    return {
        "refused-thin-entry": ("Base entry 1 of 1.", _thin_file(known, *_prefixed(b"\x91\x01", _OLD, _NEW)), held),
        "refused-thin-short-prefix": ("A prefix of 7 bytes.", _thin_file(tiny, *good), tiny_held),
        "refused-thin-base": (
            "Base 1 of 1.",
            _thin_file(known, _plain(4, msgpack.packb([[], [10], *row[2:]]), 1)),
            held,
        ),
        "refused-thin-two-starts": (
            "A row that starts from a base and from the row before.",
            _thin_file(known, _plain(4, msgpack.packb([[], [2, 3], [0, 0], [], [0, 0], [], [], [], b""]), 2)),
            held,
        ),
        "refused-thin-object": (
            "The object of base entry 1 of 1.",
            _thin_file(known, _plain(4, msgpack.packb([["b"], [2], [0], [], [1], [0], [-2], [], b""]), 1)),
            held,
        ),
        "refused-thin-kind": ("A directory in codec 2.", _thin_file(known, (2, 2, b"", 1, 0)), held),
        "refused-thin-no-bases": ("It names no bases.", _file(*good, needs=["thin"]), held),
        "refused-thin-feature": (
            "Codec 2 in a pack that does not need the feature.",
            _file(*good, bases=ids.to_digest(known[0][0])),
            held,
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
    for name, (about, pack, data, held) in _thin().items():
        _write(name, data, {"about": about, "holds": held, "reads": pack})
    for name, (about, data, held) in _refused_thin().items():
        _write(name, data, {"about": about, "holds": held, "refused": True})


if __name__ == "__main__":
    main()
