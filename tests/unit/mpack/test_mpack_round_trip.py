"""What is written is read again, whatever it is, by our reader and by one written from the specification alone."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.mpack import BaseBlob, MPackReader, MPackWriter, build_wire_mpack, parse_wire_mpack
from musehub_plugin.mpack.zstd import zstd
from tests.effort import effort
from tests.unit.mpack.holding import Files, Held

WirePack = dict[str, list[dict[str, Any]]]

PATHS = st.one_of(st.sampled_from(["a", "a/b", "a.b", "é", "z" * 300]), st.text(max_size=5))
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.floats(allow_nan=False),
        st.text(max_size=5),
        st.binary(max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
CORE = {"commit_id", "parent_ids", "snapshot_id", "branch", "message", "author", "committed_at"}


@st.composite
def packs(draw: st.DrawFn) -> WirePack:
    """A pack whose ids may be true or false, and whose commits come in any order with any parents."""
    contents = draw(st.lists(st.binary(max_size=40), unique=True, max_size=6))
    blobs: list[dict[str, Any]] = [
        {"object_id": ids.blob_id(content) if draw(st.booleans()) else ids.fake_id(f"b{n}"), "content": content}
        for n, content in enumerate(contents)
    ]
    objects: list[str] = [blob["object_id"] for blob in blobs] + [ids.fake_id(f"outside {n}") for n in range(3)]
    snapshots: list[dict[str, Any]] = []
    manifest: dict[str, str] = {}
    for n in range(draw(st.integers(0, 6))):
        changes: dict[str, str | None] = draw(
            st.dictionaries(PATHS, st.one_of(st.none(), st.sampled_from(objects)), max_size=5)
        )
        merged: dict[str, str | None] = {**manifest, **changes}
        manifest = {path: oid for path, oid in merged.items() if oid is not None}
        snapshot_id = ids.snapshot_id(manifest)
        if draw(st.integers(0, 3)) == 0 or any(other["snapshot_id"] == snapshot_id for other in snapshots):
            snapshot_id = ids.fake_id(f"s{n}")
        snapshots.append({"snapshot_id": snapshot_id, "manifest": manifest})
    snapshot_ids = [snapshot["snapshot_id"] for snapshot in snapshots] + [ids.fake_id("outside snapshot")]
    count = draw(st.integers(0, 6))
    false_ids = [ids.fake_id(f"c{n}") for n in range(count)]
    commits: list[dict[str, Any]] = []
    for n in range(count):
        known = [commit["commit_id"] for commit in commits]
        parents = draw(st.lists(st.sampled_from([*known, *false_ids, ids.fake_id("outside commit")]), max_size=3))
        record = {
            "parent_ids": parents,
            "snapshot_id": draw(st.sampled_from(snapshot_ids)),
            "branch": draw(st.text(max_size=4)),
            "message": draw(st.text(max_size=10)),
            "author": draw(st.text(max_size=4)),
            "committed_at": draw(st.text(max_size=4)),
        }
        extra = draw(st.dictionaries(st.text(max_size=4).filter(lambda key: key not in CORE), VALUES, max_size=2))
        rule = draw(st.sampled_from(["author", "committed_at", None]))
        commit_id = false_ids[n]
        if rule is not None:
            true_id = ids.commit_id(parents, record["snapshot_id"], record["message"], record[rule])
            commit_id = commit_id if true_id in known else true_id
        commits.append({"commit_id": commit_id, **record, **extra})
    return {"commits": commits, "snapshots": snapshots, "blobs": blobs}


def read_by_the_specification(data: bytes, held: Held | None = None) -> WirePack:
    """Read a pack as docs/mpack-format.md says, trusting it and sharing no code with the package."""
    table_stored, table_raw = (int.from_bytes(data[at : at + 4], "big") for at in (len(data) - 16, len(data) - 12))
    end = len(data) - 16
    table = data[end - table_stored : end]
    toc = msgpack.unpackb(table if table_stored == table_raw else zstd.decompress(table))
    raw: dict[int, list[bytes]] = {kind: [] for kind in range(1, 6)}
    position = 8

    def split(digests: bytes) -> list[str]:
        return ["sha256:" + digests[at : at + 32].hex() for at in range(0, len(digests), 32)]

    bases: list[list[tuple[str, str]]] = []
    if "thin" in toc["needs"]:
        assert held is not None
        bases = [sorted(held.manifests[snapshot_id].items()) for snapshot_id in split(toc["bases"])]
    entries = [entry for base in bases for entry in base]
    for kind, codec, stored, _, _ in zip(*toc["frames"], strict=True):
        frame = data[position : position + stored]
        if codec == 2:
            assert held is not None
            unpacker = msgpack.Unpacker()
            unpacker.feed(frame)
            at, prefix = 0, b""
            for step in unpacker.unpack():
                at += step
                prefix += held.blobs[entries[at][1]]
                at += 1
            frame = frame[unpacker.tell() :]
            raw[kind].append(zstd.decompress(frame, zstd_dict=zstd.ZstdDict(prefix, is_raw=True).as_prefix))
        else:
            raw[kind].append(zstd.decompress(frame) if codec else frame)
        position += stored

    stream = b"".join(raw[1])
    blobs: list[dict[str, Any]] = []
    at = 0
    for frame in raw[2]:
        digests, sizes = msgpack.unpackb(frame)
        for object_id, size in zip(split(digests), sizes, strict=True):
            blobs.append({"object_id": object_id, "content": stream[at : at + size]})
            at += size
    objects = [blob["object_id"] for blob in blobs] + split(b"".join(raw[3]))
    snapshots = _snapshots_by_the_specification(raw[4], objects, bases)
    commits: list[dict[str, Any]] = []
    for frame in raw[5]:
        rules, stored_ids, outside, counts, parents, steps, *texts, extras = msgpack.unpackb(frame)
        stored, elsewhere, parent = iter(split(stored_ids)), split(outside), iter(parents)
        following = 0
        for row, rule in enumerate(rules):
            names = [next(parent) for _ in range(counts[row])]
            parent_ids = [commits[-n]["commit_id"] if n > 0 else elsewhere[-n] for n in names]
            if steps[row] % 2:
                snapshot_id = elsewhere[(steps[row] - 1) // 2]
            else:
                following += steps[row] // 2
                snapshot_id = snapshots[following]["snapshot_id"]
                following += 1
            branch, message, author, date = (column[row] for column in texts)
            head = "\0".join(sorted(name[7:] for name in parent_ids))
            text = "\0".join([head, snapshot_id[7:], message, author if rule == 1 else date])
            computed = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
            commits.append(
                {
                    "commit_id": next(stored) if rule == 2 else computed,
                    "parent_ids": parent_ids,
                    "snapshot_id": snapshot_id,
                    "branch": branch,
                    "message": message,
                    "author": author,
                    "committed_at": date,
                    **(msgpack.unpackb(extras[row]) if extras[row] else {}),
                }
            )
    return {"commits": commits, "snapshots": snapshots, "blobs": blobs}


def _snapshots_by_the_specification(
    frames: Sequence[bytes], objects: Sequence[str], bases: Sequence[Sequence[tuple[str, str]]]
) -> list[dict[str, Any]]:
    entries = [entry for base in bases for entry in base]
    snapshots: list[dict[str, Any]] = []
    current: dict[str, int] = {}
    for frame in frames:
        paths, codes, gone_counts, gone, now_counts, now, steps, stored_at, stored = msgpack.unpackb(frame)
        used = 0
        last = 0
        in_frame = 0
        gone_codes, now_codes, step = iter(gone), iter(now), iter(steps)

        def path(code: int, paths: list[str | int] = paths) -> str:
            nonlocal used
            if not code:
                code = used = used + 1
            name = paths[code - 1]
            return entries[name][0] if isinstance(name, int) else name

        for row, code in enumerate(codes):
            if code & 2:
                start = sum(map(len, bases[: code >> 3]))
                current = {name: -1 - n for n, (name, _) in enumerate(bases[code >> 3], start)}
            elif not code & 1:
                current = {}
            for _ in range(gone_counts[row]):
                del current[path(next(gone_codes))]
            for _ in range(now_counts[row]):
                name = path(next(now_codes))
                last = (last if current.get(name, -1) < 0 else current[name]) + next(step)
                current[name] = last
            if code & 4:
                continue
            manifest = {name: objects[ref] if ref >= 0 else entries[-1 - ref][1] for name, ref in current.items()}
            text = "\0".join(sorted(f"{name}\0{object_id[7:]}" for name, object_id in manifest.items()))
            snapshot_id = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
            if in_frame in stored_at:
                start = 32 * stored_at.index(in_frame)
                snapshot_id = "sha256:" + stored[start : start + 32].hex()
            snapshots.append({"snapshot_id": snapshot_id, "manifest": manifest})
            in_frame += 1
    return snapshots


@effort(150)
@given(packs())
def test_any_pack_reads_as_it_was_written(pack: WirePack) -> None:
    assert parse_wire_mpack(build_wire_mpack(**pack)) == pack


@effort(60)
@given(packs())
def test_a_reader_written_from_the_specification_reads_the_same(pack: WirePack) -> None:
    assert read_by_the_specification(build_wire_mpack(**pack)) == pack


@effort(100)
@given(packs(), st.lists(st.dictionaries(PATHS, st.binary(max_size=40)), max_size=3))
def test_a_reader_written_from_the_specification_reads_thin_packs_the_same(pack: WirePack, bases: list[Files]) -> None:
    held = Held()
    known = [held.hold(files) for files in bases]
    out = io.BytesIO()
    with MPackWriter(out, bases=list(dict(known).items())) as writer:
        resembling = [
            BaseBlob(number, path, held.blobs[object_id])
            for number, (_, manifest) in enumerate(dict(known).items())
            for path, object_id in manifest.items()
        ]
        for n, blob in enumerate(pack["blobs"]):
            base = resembling[n % len(resembling)] if resembling else None
            writer.add_blob(blob["object_id"], blob["content"] * 3, base=base)
        for snapshot in pack["snapshots"]:
            manifest = snapshot["manifest"] | (known[-1][1] if known else {})
            writer.add_snapshot(snapshot["snapshot_id"], manifest)
        for commit in pack["commits"]:
            writer.add_commit(commit)
    assert parse_wire_mpack(out.getvalue(), bases=held) == read_by_the_specification(out.getvalue(), held)


def test_a_long_history_reads_the_same_by_the_specification(history: WirePack) -> None:
    assert read_by_the_specification(build_wire_mpack(**history)) == history


def test_an_empty_pack_holds_nothing() -> None:
    data = build_wire_mpack(commits=[], snapshots=[], blobs=[])
    assert parse_wire_mpack(data) == {"commits": [], "snapshots": [], "blobs": []}


def test_a_pack_of_one_empty_blob_holds_it() -> None:
    blob = {"object_id": ids.blob_id(b""), "content": b""}
    assert parse_wire_mpack(build_wire_mpack(commits=[], snapshots=[], blobs=[blob]))["blobs"] == [blob]


def test_an_empty_manifest_is_a_snapshot() -> None:
    snapshot = {"snapshot_id": ids.snapshot_id({}), "manifest": {}}
    assert parse_wire_mpack(build_wire_mpack(commits=[], snapshots=[snapshot], blobs=[]))["snapshots"] == [snapshot]


def test_a_commit_without_its_optional_fields_gets_empty_ones() -> None:
    commit = {"commit_id": ids.fake_id("c"), "snapshot_id": ids.fake_id("s")}
    empty = {"parent_ids": [], "branch": "", "message": "", "author": "", "committed_at": ""}
    assert parse_wire_mpack(build_wire_mpack(commits=[commit], snapshots=[], blobs=[]))["commits"] == [commit | empty]


def test_ids_that_content_determines_take_no_space() -> None:
    manifest = {"a": ids.fake_id("a")}
    true = {"snapshot_id": ids.snapshot_id(manifest), "manifest": manifest}
    false = {"snapshot_id": ids.fake_id("s"), "manifest": manifest}
    sizes = [len(build_wire_mpack(commits=[], snapshots=[snapshot], blobs=[])) for snapshot in (true, false)]
    assert sizes[1] - sizes[0] >= 32


@pytest.mark.parametrize("derivable", [True, False, None])
def test_a_snapshot_reads_the_same_however_its_id_is_kept(derivable: bool | None) -> None:
    manifests = [{"a": ids.fake_id(str(n)), "b": ids.fake_id("b")} for n in range(3)]
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for manifest in manifests:
            writer.add_snapshot(ids.snapshot_id(manifest), manifest, derivable=derivable)
    expected = [(ids.snapshot_id(manifest), manifest) for manifest in manifests]
    assert list(MPackReader(out).snapshots()) == expected


def test_ids_may_be_computed_again_after_one_was_taken_on_trust() -> None:
    manifests = [{"a": ids.fake_id("a"), str(n): ids.fake_id(str(n))} for n in range(4)]
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for manifest, derivable in zip(manifests, [None, True, None, None], strict=True):
            writer.add_snapshot(ids.snapshot_id(manifest), manifest, derivable=derivable)
    assert not any(delta.id_is_stored for delta in MPackReader(out).snapshot_deltas())


def test_manifests_that_are_handed_out_are_not_touched_again() -> None:
    manifests = [{"a": ids.fake_id(str(n))} for n in range(3)]
    snapshots = [{"snapshot_id": ids.snapshot_id(manifest), "manifest": manifest} for manifest in manifests]
    reader = MPackReader(io.BytesIO(build_wire_mpack(commits=[], snapshots=snapshots, blobs=[])))
    assert [manifest for _, manifest in list(reader.snapshots())] == manifests


def test_deltas_add_up_to_the_manifests(history: WirePack) -> None:
    reader = MPackReader(io.BytesIO(build_wire_mpack(**history)))
    manifest: dict[str, str] = {}
    found = []
    for delta in reader.snapshot_deltas():
        kept = {} if delta.full else {path: oid for path, oid in manifest.items() if path not in delta.removed}
        manifest = {**kept, **delta.changed}
        assert delta.entry_count == len(manifest)
        found.append({"snapshot_id": delta.snapshot_id, "manifest": manifest})
    assert found == history["snapshots"]


def test_outside_objects_are_what_manifests_name_and_the_pack_lacks(history: WirePack) -> None:
    reader = MPackReader(io.BytesIO(build_wire_mpack(**history)))
    held = {blob["object_id"] for blob in history["blobs"]}
    named = {oid for snapshot in history["snapshots"] for oid in snapshot["manifest"].values()}
    assert Counter(reader.outside_objects()) == Counter(named - held)


def test_counts_and_sizes_are_known_before_anything_is_read(history: WirePack) -> None:
    data = build_wire_mpack(**history)
    reader = MPackReader(io.BytesIO(data))
    assert (reader.commit_count, reader.snapshot_count, reader.blob_count) == (40, 40, 40)
    assert reader.raw_size == sum(len(blob["content"]) for blob in history["blobs"])
    assert reader.size_bytes == len(data)


def test_the_writer_sums_up_what_it_wrote(history: WirePack) -> None:
    out = io.BytesIO()
    writer = MPackWriter(out)
    for blob in history["blobs"]:
        writer.add_blob(blob["object_id"], blob["content"])
    summary = writer.finish()
    assert (summary.commit_count, summary.snapshot_count, summary.blob_count) == (0, 0, 40)
    assert (summary.raw_size, summary.size_bytes) == (MPackReader(out).raw_size, len(out.getvalue()))


def test_every_blob_is_found_by_its_place_alone(history: WirePack) -> None:
    data = build_wire_mpack(**history)
    places = list(MPackReader(io.BytesIO(data)).directory())
    other = MPackReader(io.BytesIO(data))
    found = [other.read_blob(place.frame, place.offset, place.size) for place in reversed(places)]
    assert found == [blob["content"] for blob in reversed(history["blobs"])]


def test_iterators_may_be_interleaved_and_started_again(history: WirePack) -> None:
    reader = MPackReader(io.BytesIO(build_wire_mpack(**history)))
    together = [
        (record["commit_id"], snapshot_id, blob.read())
        for record, (snapshot_id, _), blob in zip(reader.commits(), reader.snapshots(), reader.blobs(), strict=True)
    ]
    assert [row[0] for row in together] == [commit["commit_id"] for commit in history["commits"]]
    assert [snapshot_id for snapshot_id, _ in reader.snapshots()] == [row[1] for row in together]
