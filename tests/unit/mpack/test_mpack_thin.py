"""Thin packs: they leave out what the receiver holds, and only who holds it can read them."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.mpack import (
    BaseBlob,
    Codec,
    FalseIdError,
    Kind,
    Limits,
    MPackError,
    MPackReader,
    MPackWriter,
    manifests,
    parse_wire_mpack,
    thin,
    verify,
)
from musehub_plugin.mpack.zstd import zstd
from tests.effort import effort
from tests.unit.mpack.holding import Files, Held, manifest_of


def write(bases: Sequence[Files], versions: Sequence[Files], limits: Limits | None = None) -> tuple[bytes, Held]:
    """Return a pack of some versions, each a commit of its own, and who can read it."""
    held = Held()
    known = [held.hold(files) for files in bases]
    parents = [ids.fake_id("a commit that the receiver holds")]
    sent = {ids.blob_id(content) for files in bases for content in files.values()}
    out = io.BytesIO()
    with MPackWriter(out, bases=known, limits=limits) as writer:
        for files in versions:
            for path, content in sorted(files.items()):
                if ids.blob_id(content) in sent:
                    continue
                sent.add(ids.blob_id(content))
                number = next((number for number, base in enumerate(bases) if path in base), None)
                base = None if number is None else BaseBlob(number, path, bases[number][path])
                writer.add_blob(ids.blob_id(content), content, base=base)
        snapshot_ids = []
        for files in versions:
            manifest = manifest_of(files)
            snapshot_ids.append(ids.snapshot_id(manifest))
            if snapshot_ids[-1] not in snapshot_ids[:-1]:
                writer.add_snapshot(snapshot_ids[-1], manifest)
        for number, snapshot_id in enumerate(snapshot_ids):
            message, date = f"Change {number} of what is there", "2026-01-02T03:04:05+00:00"
            commit_id = ids.commit_id(parents, snapshot_id, message, date)
            record = {"commit_id": commit_id, "parent_ids": parents, "snapshot_id": snapshot_id}
            more = {"branch": "main", "message": message, "author": "Ada <ada@example.org>", "committed_at": date}
            writer.add_commit({**record, **more})
            parents = [commit_id]
    return out.getvalue(), held


def text(seed: int, lines: int) -> bytes:
    chance = random.Random(seed)
    words = ["alpha", "beta", "gamma", "delta", "return", "import", "self", "value", "none", "while"]
    return "".join(" ".join(chance.choices(words, k=9)) + f" {chance.randrange(999)}\n" for _ in range(lines)).encode()


def edited(content: bytes, seed: int) -> bytes:
    lines = content.splitlines(keepends=True)
    lines[seed % len(lines)] = b"        if value is not None:  # %d\n" % seed
    return b"".join(lines)


BASE: Files = {f"src/package/module_{n}.py": text(n, 60) for n in range(40)}
CHANGED: Files = {**BASE, **{path: edited(BASE[path], n + 7) for n, path in enumerate(list(BASE)[5:8])}}


def assert_holds(data: bytes, held: Held, versions: Sequence[Files]) -> None:
    reader = MPackReader(io.BytesIO(data), bases=held)
    verify(reader)
    contents = {**held.blobs, **{blob.object_id: blob.read() for blob in reader.blobs()}}
    found = dict(reader.snapshots())
    commits = list(reader.commits())
    read = [{p: contents[o] for p, o in found[commit["snapshot_id"]].items()} for commit in commits]
    assert read == list(versions)


PATHS = st.sampled_from(["a", "a/b", "a.b", "é", "z" * 300])
FILES = st.dictionaries(PATHS, st.one_of(st.binary(max_size=30), st.sampled_from([text(1, 9), edited(text(1, 9), 3)])))


@effort(150)
@given(st.lists(FILES, max_size=3, unique_by=lambda files: ids.snapshot_id(manifest_of(files))), st.lists(FILES))
def test_whoever_holds_the_bases_reads_what_was_written(bases: list[Files], versions: list[Files]) -> None:
    data, held = write(bases, versions)
    assert_holds(data, held, versions)


@effort(60)
@given(st.lists(FILES, max_size=3, unique_by=lambda files: ids.snapshot_id(manifest_of(files))), st.lists(FILES))
def test_bases_that_memory_has_no_room_for_are_read_the_same(bases: list[Files], versions: list[Files]) -> None:
    data, held = write(bases, versions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thin, "WIDE_BASES", 2)
        patch.setattr(manifests, "WIDE_PATHS", 2)
        assert_holds(data, held, versions)


@effort(60)
@given(st.lists(FILES, min_size=1, max_size=3, unique_by=lambda files: ids.snapshot_id(manifest_of(files))), FILES)
def test_a_change_from_any_base_reads_as_the_manifest(bases: list[Files], files: Files) -> None:
    held = Held()
    known = [held.hold(base) for base in bases]
    manifest = manifest_of(files)
    for number, (_, before) in enumerate(known):
        out = io.BytesIO()
        with MPackWriter(out, bases=known) as writer:
            removed = before.keys() - manifest.keys()
            changed = {path: oid for path, oid in manifest.items() if before.get(path) != oid}
            writer.add_snapshot_delta(ids.snapshot_id(manifest), removed, changed, derivable=True, start=number)
            writer.add_snapshot(ids.fake_id("after it"), {**manifest, "one more": ids.fake_id("outside")})
        found = [manifest for _, manifest in MPackReader(out, bases=held).snapshots()]
        assert found == [manifest, {**manifest, "one more": ids.fake_id("outside")}]


def test_three_files_with_small_edits_take_under_600_bytes() -> None:
    data, held = write([BASE], [CHANGED])
    assert len(data) < 600
    assert_holds(data, held, [CHANGED])


def test_objects_and_paths_of_a_base_take_no_ids_and_no_names() -> None:
    moved = {path.replace("package", "elsewhere"): content for path, content in BASE.items()}
    data, held = write([BASE], [moved])
    assert ids.to_digest(ids.blob_id(BASE["src/package/module_3.py"])) not in data
    assert b"src/package" not in data
    assert_holds(data, held, [moved])


def test_a_pack_that_uses_no_base_is_an_ordinary_one() -> None:
    versions = [{"other": b"other content"}]
    with_bases, _ = write([{"unlike": b"0123456789"}], versions)
    assert with_bases == write([], versions)[0]


def test_the_same_thin_pack_has_the_same_bytes_with_any_number_of_threads() -> None:
    packs = []
    for threads in (0, 3):
        held, out = Held(), io.BytesIO()
        base = held.hold({f"f{n}": text(n, 9_000) for n in range(4)})
        with MPackWriter(out, bases=[base], threads=threads) as writer:
            for n in range(4):
                content = edited(text(n, 9_000), n)
                writer.add_blob(ids.blob_id(content), content, base=BaseBlob(0, f"f{n}", text(n, 9_000)))
        assert sum(frame.codec == Codec.PREFIXED for frame in MPackReader(out, bases=held).frames) > 1
        packs.append(out.getvalue())
    assert packs[0] == packs[1]


def test_a_history_over_many_frames_reads_as_written() -> None:
    held, out = Held(), io.BytesIO()
    base = held.hold({f"dir/{n}": b"%d" % n for n in range(50)})
    manifest = base[1].copy()
    expected = []
    with MPackWriter(out, bases=[base]) as writer:
        for n in range(9_000):
            changed = {f"dir/{n % 60}": ids.fake_id(str(n))}
            manifest |= changed
            writer.add_snapshot_delta(ids.fake_id(f"s{n}"), [], changed, derivable=False, start=0 if n == 0 else None)
            expected.append(dict(manifest))
    assert [found for _, found in MPackReader(out, bases=held).snapshots()] == expected


def test_nothing_is_asked_of_the_receiver_before_it_is_needed() -> None:
    data, held = write([BASE], [CHANGED])
    reader = MPackReader(io.BytesIO(data), bases=held)
    list(reader.snapshots())
    assert held.asked == []
    next(reader.blobs()).read()
    assert len(held.asked) == 3


def test_a_reader_that_is_given_no_bases_refuses_a_thin_pack_by_name() -> None:
    data, _ = write([BASE], [CHANGED])
    with pytest.raises(MPackError, match="needs 'thin'"):
        parse_wire_mpack(data)


def test_a_base_that_is_not_held_is_named() -> None:
    data, held = write([BASE], [CHANGED])
    snapshot_id = held.manifests.popitem()[0]
    with pytest.raises(MPackError, match=f"{snapshot_id}, which is not here"):
        parse_wire_mpack(data, bases=held)


def test_a_blob_that_is_not_held_is_named() -> None:
    data, held = write([BASE], [CHANGED])
    object_id = ids.blob_id(BASE["src/package/module_6.py"])
    del held.blobs[object_id]
    with pytest.raises(MPackError, match=f"needs blob {object_id}"):
        parse_wire_mpack(data, bases=held)


def test_a_wrong_blob_is_found_by_its_hash_or_refused() -> None:
    data, held = write([BASE], [CHANGED])
    for path in list(BASE)[5:8]:
        wrong = Held(held.manifests, {**held.blobs, ids.blob_id(BASE[path]): BASE[path][::-1]})
        with pytest.raises(MPackError):
            verify(MPackReader(io.BytesIO(data), bases=wrong))


def test_a_wrong_manifest_is_found_by_the_commit_that_is_missing() -> None:
    data, held = write([BASE], [CHANGED])
    ((snapshot_id, manifest),) = held.manifests.items()
    wrong = Held({snapshot_id: {**manifest, "src/zzz": ids.fake_id("wrong")}}, held.blobs)
    true = next(MPackReader(io.BytesIO(data), bases=held).commits())["commit_id"]
    assert next(MPackReader(io.BytesIO(data), bases=wrong).commits())["commit_id"] != true


def test_a_truncated_thin_pack_is_refused() -> None:
    data, held = write([BASE], [CHANGED])
    for end in range(len(data)):
        with pytest.raises(MPackError):
            parse_wire_mpack(data[:end], bases=held)


def test_any_flipped_bit_of_a_thin_pack_is_refused_or_read() -> None:
    data, held = write([BASE], [CHANGED])
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with suppress(MPackError):
                parse_wire_mpack(bytes(damaged), bases=held)


@effort(150)
@given(stored=st.binary(max_size=60), raw=st.integers(1, 90))
def test_any_bytes_in_a_prefixed_frame_are_refused_or_read(stored: bytes, raw: int) -> None:
    held = Held()
    base, _ = held.hold({"a": b"0123456789"})
    data = thin_file([(1, 2, stored, raw, 1), (2, 0, *directory(raw))], base)
    with suppress(MPackError):
        parse_wire_mpack(data, bases=held)


def directory(size: int) -> tuple[bytes, int, int]:
    raw = msgpack.packb([b"\1" * 32, [size]])
    return raw, len(raw), 1


def thin_file(rows: list[tuple[int, int, bytes, int, int]], *bases: str, **more: Any) -> bytes:
    """Return a file put together without the code under test; a row is kind, codec, stored bytes, raw size, count."""
    columns = [[row[0] for row in rows], [row[1] for row in rows], [len(row[2]) for row in rows]]
    columns += [[row[3] for row in rows], [row[4] for row in rows]]
    table = {"needs": ["thin"], "frames": columns, "bases": b"".join(map(ids.to_digest, bases)), **more}
    raw: bytes = msgpack.packb(table)
    size = len(raw).to_bytes(4, "big")
    return b"\x8dMPK1\r\n\x1a" + b"".join(row[2] for row in rows) + raw + size + size + b"\x1aMPKEND\n"


CONTENT = b"the content of a blob that the receiver holds, and more of it"


def prefixed(entries: bytes, prefix: bytes = CONTENT) -> list[tuple[int, int, bytes, int, int]]:
    """Return the rows of a blob that is `CONTENT` and a dot, after any bytes where the entries belong."""
    raw = CONTENT + b"."
    stored = entries + zstd.compress(raw, zstd_dict=zstd.ZstdDict(prefix, is_raw=True).as_prefix)
    return [(1, 2, stored, len(raw), 1), (2, 0, *directory(len(raw)))]


def holding(*files: Files) -> tuple[Held, list[str]]:
    held = Held()
    return held, [held.hold(one)[0] for one in files]


def test_a_pack_by_hand_is_read_as_the_specification_says() -> None:
    held, bases = holding({"b": b"unused", "a": CONTENT[20:]}, {"c": CONTENT[:20]})
    # Entry 2 is "c" of the second base; then back to entry 0, "a" of the first.
    pack = parse_wire_mpack(thin_file(prefixed(b"\x92\x02\xfd"), *bases), bases=held)
    assert [blob["content"] for blob in pack["blobs"]] == [CONTENT + b"."]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        pytest.param(b"\x90", "made of 0 blobs", id="no entry"),
        pytest.param(b"\x91\x01", "entry 1 of 1", id="an entry past the last"),
        pytest.param(b"\x91\xff", "entry -1 of 1", id="an entry before the first"),
        pytest.param(b"\x91\xa1a", "type str", id="an entry that is no number"),
        pytest.param(b"\x01", "no array", id="no array"),
        pytest.param(b"\x92\x00", "entry 41 of 1", id="one entry fewer than announced"),
        pytest.param(b"\xdc\x10\x01" + b"\x00" + b"\xff" * 4096, "4097 blobs", id="too many entries"),
        pytest.param(b"\xdd\xff\xff\xff\xff", "announces", id="an array of 4 GiB"),
        pytest.param(b"", "no array", id="nothing before the zstd frame"),
    ],
)
def test_entries_that_say_nonsense_are_refused(entries: bytes, message: str) -> None:
    held, bases = holding({"a": CONTENT})
    rows = prefixed(entries)
    rows[0] = (1, 2, rows[0][2], 1 << 20, 1)
    rows[1] = (2, 0, *directory(1 << 20))
    with pytest.raises(MPackError, match=message):
        parse_wire_mpack(thin_file(rows, *bases), bases=held)


def test_a_prefix_that_begins_as_a_dictionary_of_zstd_does_is_read_as_plain_bytes() -> None:
    content = bytes.fromhex("37a430ec") + CONTENT
    held, bases = holding({"a": content})
    pack = parse_wire_mpack(thin_file(prefixed(b"\x91\x00", content), *bases), bases=held)
    assert [blob["content"] for blob in pack["blobs"]] == [CONTENT + b"."]


def test_a_prefix_of_under_8_bytes_is_refused() -> None:
    held, bases = holding({"a": b"1234567"})
    with pytest.raises(MPackError, match="prefix of 7 bytes"):
        parse_wire_mpack(thin_file(prefixed(b"\x91\x00"), *bases), bases=held)


def test_a_prefix_over_16_mib_is_refused_before_it_is_read() -> None:
    held, bases = holding({"a": bytes(1 << 24), "b": b"x"})
    with pytest.raises(MPackError, match="too large"):
        parse_wire_mpack(thin_file(prefixed(b"\x92\x00\x00"), *bases), bases=held)


def test_many_frames_with_long_prefixes_are_refused_by_their_sum() -> None:
    held, bases = holding({"a": bytes(1 << 24)})
    content = b"0" * 100
    stored = b"\x91\x00" + zstd.compress(content, zstd_dict=zstd.ZstdDict(bytes(1 << 24), is_raw=True).as_prefix)
    names = [hashlib.sha256(b"%d" % n).digest() for n in range(9)]
    listed = msgpack.packb([b"".join(names), [100] * 9])
    data = thin_file([(1, 2, stored, 100, 1)] * 9 + [(2, 0, listed, len(listed), 9)], *bases)
    with pytest.raises(MPackError, match="prefixes of the pack"):
        parse_wire_mpack(data, bases=held)
    assert len(held.asked) < 9


def test_many_small_blobs_in_prefixes_count_too() -> None:
    held, bases = holding({"a": CONTENT, "b": b""})
    entries = b"\xdc\x0f\xff" + b"\x00\x00" + b"\xff" * 4093
    rows = prefixed(entries)
    rows[0] = (1, 2, rows[0][2], 1 << 20, 1)
    rows[1] = (2, 0, *directory(1 << 20))
    limits = Limits(ratio_allowance=1 << 20, max_ratio=1)
    with pytest.raises(MPackError, match="prefixes of the pack"):
        parse_wire_mpack(thin_file(rows, *bases), bases=held, limits=limits)
    assert len(held.asked) < 300


def test_a_frame_that_is_read_again_is_not_counted_again() -> None:
    data, held = write([BASE], [CHANGED])
    reader = MPackReader(io.BytesIO(data), bases=held, limits=Limits(ratio_allowance=1 << 14, max_ratio=1))
    for _ in range(9):
        verify(reader)


def test_what_the_writer_writes_keeps_to_the_number_of_blobs_in_prefixes() -> None:
    held = Held()
    contents = {f"f{n}": b"some content of file %d" % n for n in range(10)}
    base = held.hold(contents)
    limits = Limits(ratio_allowance=1 << 14, max_ratio=1)
    out = io.BytesIO()
    with MPackWriter(out, bases=[base], limits=limits) as writer:
        for path, content in contents.items():
            writer.add_blob(ids.blob_id(content * 2), content * 2, base=BaseBlob(0, path, content))
    verify(MPackReader(out, bases=held, limits=limits))


def test_a_prefix_is_made_of_no_more_blobs_than_a_reader_accepts() -> None:
    held = Held()
    contents = {f"f{n:04}": b"%05d" % n for n in range(5000)}
    base = held.hold(contents)
    out = io.BytesIO()
    with MPackWriter(out, bases=[base]) as writer:
        for path, content in contents.items():
            writer.add_blob(ids.blob_id(content * 2), content * 2, base=BaseBlob(0, path, content))
    reader = MPackReader(out, bases=held)
    verify(reader)
    assert [frame.codec for frame in reader.frames if frame.kind == Kind.BLOBS] == [Codec.PREFIXED] * 2


def test_a_base_over_16_mib_is_not_leaned_on() -> None:
    held = Held()
    base = held.hold({"a": bytes((1 << 24) + 1)})
    out = io.BytesIO()
    with MPackWriter(out, bases=[base], level=1) as writer:
        writer.add_blob(ids.blob_id(bytes(999)), bytes(999), base=BaseBlob(0, "a", bytes((1 << 24) + 1)))
    verify(MPackReader(out))


def test_a_large_blob_with_small_edits_takes_little_more_than_them() -> None:
    held = Held()
    old = random.Random(1).randbytes(10 << 20)
    new = b"an edit".join(old[start : start + (1 << 20)] for start in range(0, 10 << 20, 1 << 20))
    base = held.hold({"a": old})
    out = io.BytesIO()
    with MPackWriter(out, bases=[base]) as writer:
        writer.add_blob(ids.blob_id(new), new, base=BaseBlob(0, "a", old))
    assert len(out.getvalue()) < 4096
    verify(MPackReader(out, bases=held))


def test_what_the_writer_writes_keeps_to_the_sum_of_prefixes() -> None:
    held = Held()
    contents = {f"f{n}": text(n, 16_000) for n in range(4)}
    base = held.hold(contents)
    limits = Limits(ratio_allowance=2 << 20, max_ratio=4)
    out = io.BytesIO()
    with MPackWriter(out, bases=[base], limits=limits) as writer:
        for n, (path, content) in enumerate(contents.items()):
            new = edited(content, n)
            writer.add_blob(ids.blob_id(new), new, base=BaseBlob(0, path, content))
    reader = MPackReader(out, bases=held, limits=limits)
    verify(reader)
    codecs = {frame.codec for frame in reader.frames if frame.kind == Kind.BLOBS}
    assert codecs >= {Codec.PREFIXED, Codec.ZSTD}


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        pytest.param(b"", "1 to 64", id="none"),
        pytest.param(bytes(31), "1 to 64", id="31 bytes"),
        pytest.param(b"".join(bytes([n]) * 32 for n in range(65)), "1 to 64", id="65 bases"),
        pytest.param(bytes(64), "listed twice", id="one twice"),
        pytest.param("a" * 32, "1 to 64", id="a string"),
        pytest.param(None, "1 to 64", id="nil"),
    ],
)
def test_bases_that_are_no_list_of_ids_are_refused(bases: object, message: str) -> None:
    with pytest.raises(MPackError, match=message):
        parse_wire_mpack(thin_file([], bases=bases), bases=Held())


@pytest.mark.parametrize("kind", [Kind.DIRECTORY, Kind.OUTSIDE, Kind.SNAPSHOTS, Kind.COMMITS])
def test_only_blobs_are_prefixed(kind: Kind) -> None:
    held, bases = holding({"a": CONTENT})
    with pytest.raises(MPackError, match="only blobs of a thin pack"):
        parse_wire_mpack(thin_file([(kind, 2, b"x", 9, 0)], *bases), bases=held)


ROWS: dict[str, tuple[list[Any], str]] = {
    "base 1 of 1": ([["a"], [2 | 8], [0], [], [0], [], [], [], b""], "does not name"),
    "from the base and the one before": ([[], [3], [0], [], [0], [], [], [], b""], "two manifests"),
    "path 1 of 1": ([[1], [2], [1], [0], [0], [], [], [], b""], "number 1 of 1"),
    "path -1": ([[-1], [2], [1], [0], [0], [], [], [], b""], "number -1 of 1"),
    "a path by name and by number": ([["a", 0], [2], [1], [0], [1], [0], [0], [], b""], "listed twice"),
    "object -2 of 1": ([["b"], [2], [0], [], [1], [0], [-2], [], b""], "refers to object -2"),
    "a row that goes on and starts anew": ([[], [6, 3], [0, 0], [], [0, 0], [], [], [], b""], "unfinished"),
    "a row that leaves one unfinished": ([[], [6, 2], [0, 0], [], [0, 0], [], [], [], b""], "unfinished"),
    "a removed path that is not there": ([["b"], [2], [1], [0], [0], [], [], [], b""], "not there"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_misuse_a_base_are_refused(name: str) -> None:
    columns, message = ROWS[name]
    held, bases = holding({"a": CONTENT})
    raw = msgpack.packb(columns)
    with pytest.raises(MPackError, match=message):
        parse_wire_mpack(thin_file([(4, 0, raw, len(raw), 1)], *bases), bases=held)


def test_rows_that_start_from_a_base_over_and_over_count_as_its_changes() -> None:
    held, bases = holding({f"path{n}": b"%d" % n for n in range(500)})
    rows = 200
    stored = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(rows))
    columns = [[], [2] * rows, [0] * rows, [], [0] * rows, [], [], list(range(rows)), stored]
    raw = msgpack.packb(columns)
    data = thin_file([(4, 0, raw, len(raw), rows)], *bases)
    limits = Limits(max_manifest_changes=50_000)
    with pytest.raises(MPackError, match="manifest changes"):
        parse_wire_mpack(data, bases=held, limits=limits)


def test_bases_with_too_many_paths_are_refused() -> None:
    data, held = write([BASE], [CHANGED])
    with pytest.raises(MPackError, match="over 39 paths"):
        parse_wire_mpack(data, bases=held, limits=Limits(max_manifest_entries=39))


def test_a_false_blob_of_a_thin_pack_is_found() -> None:
    held, bases = holding({"a": CONTENT})
    with pytest.raises(FalseIdError):
        verify(MPackReader(io.BytesIO(thin_file(prefixed(b"\x91\x00"), *bases)), bases=held))


def test_a_thin_pack_may_begin_as_a_copy() -> None:
    whole, _ = write([], [BASE])
    held, out = Held(), io.BytesIO()
    known = held.hold({"held": text(99, 60)})
    new = edited(text(99, 60), 4)
    manifest = {**manifest_of(BASE), "held": ids.blob_id(text(99, 60)), "new": ids.blob_id(new)}
    with MPackWriter(out, bases=[known]) as writer:
        writer.copy_pack(MPackReader(io.BytesIO(whole)))
        writer.add_blob(ids.blob_id(new), new, base=BaseBlob(0, "held", text(99, 60)))
        writer.add_snapshot(ids.snapshot_id(manifest), manifest)
    reader = MPackReader(out, bases=held)
    verify(reader)
    assert {Codec.ZSTD, Codec.PREFIXED} <= {frame.codec for frame in reader.frames}
    assert [found for _, found in reader.snapshots()] == [manifest_of(BASE), manifest]


def test_a_thin_pack_is_not_copied() -> None:
    data, held = write([BASE], [CHANGED])
    with pytest.raises(ValueError, match="'thin' cannot be copied"):
        MPackWriter(io.BytesIO()).copy_pack(MPackReader(io.BytesIO(data), bases=held))


def test_a_blob_of_a_path_that_the_base_lacks_is_refused() -> None:
    held = Held()
    writer = MPackWriter(io.BytesIO(), bases=[held.hold(BASE)])
    with pytest.raises(ValueError, match="base 0 has no path 'nowhere'"):
        writer.add_blob(ids.fake_id("b"), b"", base=BaseBlob(0, "nowhere", b""))


def test_a_path_that_another_base_alone_has_is_refused() -> None:
    held = Held()
    bases = [held.hold({"a": b"1"}), held.hold({"b": b"2"})]
    writer = MPackWriter(io.BytesIO(), bases=bases)
    for number, path in ((0, "b"), (1, "a"), (-1, "b")):
        with pytest.raises(ValueError, match="has no path"):
            writer.add_blob(ids.fake_id("b"), b"", base=BaseBlob(number, path, b""))


@pytest.mark.parametrize("start", [-1, 1])
def test_a_change_from_a_base_that_was_not_given_is_refused(start: int) -> None:
    writer = MPackWriter(io.BytesIO(), bases=[Held().hold(BASE)])
    with pytest.raises(ValueError, match=f"no base {start}"):
        writer.add_snapshot_delta(ids.fake_id("s"), [], {}, derivable=True, start=start)


def test_bases_that_a_reader_would_refuse_are_not_leaned_on() -> None:
    limits = Limits(max_manifest_entries=60)
    more = {f"other/{n}": text(n, 9) for n in range(30)}
    data, held = write([BASE, more], [CHANGED, {**more, "other/3": edited(text(3, 9), 3)}], limits)
    reader = MPackReader(io.BytesIO(data), bases=held, limits=limits)
    verify(reader)
    assert Codec.PREFIXED in {frame.codec for frame in reader.frames}
    assert ids.to_digest(ids.snapshot_id(manifest_of(more))) not in data


def test_no_more_bases_are_leaned_on_than_a_pack_can_name() -> None:
    bases = [{f"base {n}": text(n, 9)} for n in range(70)]
    data, held = write(bases, [{f"base {n}": edited(text(n, 9), 3) for n in range(70)}])
    verify(MPackReader(io.BytesIO(data), bases=held))
    assert ids.to_digest(ids.snapshot_id(manifest_of(bases[63]))) in data
    assert ids.to_digest(ids.snapshot_id(manifest_of(bases[64]))) not in data


def test_a_change_from_a_base_that_is_not_leaned_on_is_written_whole() -> None:
    held = Held()
    bases = [held.hold(BASE), held.hold({f"other/{n}": b"%d" % n for n in range(30)})]
    limits = Limits(max_manifest_entries=60)
    expected = {path: oid for path, oid in bases[1][1].items() if path != "other/3"} | {"new": ids.fake_id("o")}
    out = io.BytesIO()
    with MPackWriter(out, bases=bases, limits=limits) as writer:
        writer.add_snapshot_delta(
            ids.snapshot_id(expected), ["other/3"], {"new": ids.fake_id("o")}, derivable=True, start=1
        )
    assert [manifest for _, manifest in MPackReader(out, bases=held).snapshots()] == [expected]


def test_a_base_that_is_given_twice_is_refused() -> None:
    base = Held().hold(BASE)
    with pytest.raises(ValueError, match="there twice"):
        MPackWriter(io.BytesIO(), bases=[base, base])
