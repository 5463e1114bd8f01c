"""How the writer lays things out: order, frames, determinism, bounded memory."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.mpack import Kind, MPackReader, MPackWriter, build_wire_mpack, solid_order
from musehub_plugin.mpack import writer as writer_module

WirePack = dict[str, list[dict[str, Any]]]
FRAME = 1 << 24

DETERMINISM = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from conftest import make_history
from musehub_plugin.mpack import build_wire_mpack
pack = make_history(50)
pack["snapshots"] += [
    {"snapshot_id": "sha256:" + "0" * 64, "manifest": {f"path{n}": "sha256:" + "1" * 64 for n in range(90)}},
    {"snapshot_id": "sha256:" + "1" * 64, "manifest": {f"path{n}": "sha256:" + "1" * 64 for n in range(50)}},
]
print(hashlib.sha256(build_wire_mpack(**pack)).hexdigest())
"""

BOUNDED = """
import sys
import threading
from musehub_plugin import ids
from musehub_plugin.mpack import MPackReader, MPackWriter
block = bytes(range(256)) * 4096
def content(n):
    yield n.to_bytes(8, "big")
    yield block * 8
def big():
    for n in range(512):
        yield n.to_bytes(8, "big") + block[8:]
with open(sys.argv[1], "wb") as out, MPackWriter(out, level=1) as writer:
    writer.add_blob_stream(ids.fake_id("big"), 512 << 20, big())
    for n in range(192):
        writer.add_blob(ids.fake_id(str(n)), b"".join(content(n)))
total = 0
with open(sys.argv[1], "rb") as source:
    for blob in MPackReader(source).blobs():
        first = None
        for chunk in blob.chunks():
            first = first or chunk[:8]
            total += len(chunk)
        if blob.entry.ordinal:
            assert int.from_bytes(first, "big") == blob.entry.ordinal - 1
assert total == (512 << 20) + 192 * ((8 << 20) + 8), total
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def write(*blobs: tuple[str, bytes]) -> MPackReader:
    """Return a reader of a pack of these blobs, each under an id made from its name."""
    out = io.BytesIO()
    with MPackWriter(out, level=1) as writer:
        for name, content in blobs:
            writer.add_blob(ids.fake_id(name), content)
    return MPackReader(out)


def test_ids_that_the_pack_does_not_hold_are_listed_in_frames_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_IDS_PER_FRAME", 4)
    manifests = [{f"p{n}": ids.fake_id(str(n)) for n in range(last)} for last in (3, 14, 15)]
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for manifest in manifests:
            writer.add_snapshot(ids.snapshot_id(manifest), manifest)
    reader = MPackReader(out)
    assert [frame.count for frame in reader.frames if frame.kind == Kind.OUTSIDE] == [4, 4, 4, 3]
    assert [dict(manifest) for _, manifest in reader.snapshots()] == manifests


def test_n26_the_same_pack_in_another_process_with_another_hash_seed_has_the_same_bytes() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", DETERMINISM, str(Path(__file__).parent)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]


def test_the_order_in_which_a_manifest_was_built_does_not_change_the_bytes() -> None:
    manifest = {name: ids.fake_id(name) for name in "abcdef"}
    turned = dict(reversed(manifest.items()))
    packs = [
        build_wire_mpack(commits=[], snapshots=[{"snapshot_id": ids.snapshot_id(m), "manifest": m}], blobs=[])
        for m in (manifest, turned)
    ]
    assert packs[0] == packs[1]


def test_the_order_of_further_fields_does_not_change_the_bytes() -> None:
    core = {"commit_id": ids.fake_id("c"), "snapshot_id": ids.fake_id("s")}
    records = [{**core, "x": {"a": 1, "b": 2}, "y": 3}, {"y": 3, "x": {"b": 2, "a": 1}, **core}]
    packs = [build_wire_mpack(commits=[record], snapshots=[], blobs=[]) for record in records]
    assert packs[0] == packs[1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the high-water mark of memory from /proc")
def test_two_gigabytes_are_written_and_read_in_150_megabytes(tmp_path: Path) -> None:
    pack = tmp_path / "big.mpack"
    run = subprocess.run([sys.executable, "-c", BOUNDED, pack], capture_output=True, text=True, check=False)
    pack.unlink()
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 150 * 1024


def test_a_blob_that_does_not_fit_in_what_is_left_begins_a_frame() -> None:
    reader = write(("a", bytes(FRAME - 10)), ("b", bytes(11)))
    assert [(entry.frame, entry.offset) for entry in reader.directory()] == [(0, 0), (1, 0)]


def test_a_blob_that_just_fits_shares_a_frame() -> None:
    reader = write(("a", bytes(FRAME - 10)), ("b", bytes(10)), ("c", b""), ("d", b"x"))
    places = [(entry.frame, entry.offset) for entry in reader.directory()]
    assert places == [(0, 0), (0, FRAME - 10), (0, FRAME), (1, 0)]


def test_a_blob_over_a_frame_runs_on_and_shares_its_last_frame() -> None:
    content = Random(1).randbytes(1000) * (FRAME // 1000 * 2 + 500)
    reader = write(("a", b"x"), ("b", content), ("c", b"tail"))
    assert [entry.frame for entry in reader.directory()] == [0, 1, 3]
    assert [blob.read() for blob in reader.blobs()] == [b"x", content, b"tail"]


@pytest.mark.parametrize("size", [FRAME - 1, FRAME, FRAME + 1])
def test_blobs_around_the_size_of_a_frame_are_read_whole(size: int) -> None:
    content = b"x" * (size - 1) + b"y"
    assert next(write(("a", content), ("b", b"tail")).blobs()).read() == content


def test_chunks_of_a_stream_may_be_of_any_size() -> None:
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        writer.add_blob_stream(ids.fake_id("x"), 6, [b"", b"a", b"bcde", b"", b"f"])
    assert next(MPackReader(out).blobs()).read() == b"abcdef"


@pytest.mark.parametrize("chunks", [[b"abc"], [b"abcdefg"], []])
def test_a_stream_of_another_size_than_announced_is_refused(chunks: list[bytes]) -> None:
    writer = MPackWriter(io.BytesIO())
    with pytest.raises(ValueError, match="announced"):
        writer.add_blob_stream(ids.fake_id("x"), 6, chunks)


def test_kinds_are_written_in_their_order_only() -> None:
    writer = MPackWriter(io.BytesIO())
    writer.add_snapshot(ids.fake_id("s"), {})
    with pytest.raises(ValueError, match="blobs cannot be added after snapshots"):
        writer.add_blob(ids.fake_id("b"), b"")


def test_nothing_is_added_to_a_finished_pack() -> None:
    writer = MPackWriter(io.BytesIO())
    writer.finish()
    with pytest.raises(ValueError, match="finished"):
        writer.add_commit({"commit_id": ids.fake_id("c"), "snapshot_id": ids.fake_id("s")})


def test_finishing_twice_writes_once() -> None:
    out = io.BytesIO()
    writer = MPackWriter(out)
    assert writer.finish() == writer.finish()
    assert len(out.getvalue()) == writer.finish().size_bytes


def test_an_exception_leaves_the_pack_unfinished() -> None:
    out = io.BytesIO()
    with pytest.raises(RuntimeError), MPackWriter(out):
        raise RuntimeError
    assert len(out.getvalue()) == 8


def test_ten_thousand_snapshots_and_commits_read_as_written() -> None:
    out = io.BytesIO()
    manifest: dict[str, str] = {f"dir/path{n}": ids.fake_id(str(n)) for n in range(20)}
    expected = []
    with MPackWriter(out) as writer:
        for n in range(10_000):
            manifest[f"dir/path{n % 20}"] = ids.fake_id(f"v{n}")
            expected.append(ids.snapshot_id(manifest))
            writer.add_snapshot(expected[-1], manifest, derivable=True)
        for n, snapshot_id in enumerate(expected):
            parents = [ids.fake_id(f"c{n - 1}"), ids.fake_id(f"c{n // 2}")]
            record = {"commit_id": ids.fake_id(f"c{n}"), "parent_ids": parents, "snapshot_id": snapshot_id}
            writer.add_commit(record)
    reader = MPackReader(out)
    assert [frame.count for frame in reader.frames if frame.kind == Kind.SNAPSHOTS] == [4096, 4096, 1808]
    assert list(reader.snapshot_ids()) == expected
    assert [record["parent_ids"][1] for record in reader.commits()] == [
        ids.fake_id(f"c{n // 2}") for n in range(10_000)
    ]


def test_a_manifest_that_is_too_big_for_a_frame_reads_as_written() -> None:
    object_ids = [ids.fake_id(str(n)) for n in range(4)]
    first = {f"{n % 100:03}/{'long name ' * 12}{n}": object_ids[n % 4] for n in range(45_000)}
    second = dict.fromkeys(list(first)[:30_000], object_ids[0])
    third = {**second, "one more": object_ids[1]}
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for manifest in (first, second, third):
            writer.add_snapshot(ids.snapshot_id(manifest), manifest)
    reader = MPackReader(out)
    assert sum(frame.kind == Kind.SNAPSHOTS for frame in reader.frames) > 3
    assert [manifest for _, manifest in reader.snapshots()] == [first, second, third]


def test_commits_with_long_messages_are_spread_over_frames() -> None:
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for n in range(9):
            record = {"commit_id": ids.fake_id(str(n)), "snapshot_id": ids.fake_id("s"), "message": str(n) * (1 << 20)}
            writer.add_commit(record)
    assert [record["message"][0] for record in MPackReader(out).commits()] == list("012345678")


def test_a_fetch_of_one_commit_is_about_the_size_of_its_ids_and_blobs() -> None:
    """One commit, three blobs of 2 KB that do not compress, 200 paths of which 197 name objects elsewhere."""
    contents = [Random(n).randbytes(2048) for n in range(3)]
    blobs: list[dict[str, Any]] = [{"object_id": ids.fake_id(f"b{n}"), "content": contents[n]} for n in range(3)]
    manifest = {f"some/folder{n % 10}/file{n}.py": ids.fake_id(f"o{n}") for n in range(197)}
    manifest |= {f"new{n}": blob["object_id"] for n, blob in enumerate(blobs)}
    snapshot = {"snapshot_id": ids.snapshot_id(manifest), "manifest": manifest}
    commit = {"commit_id": ids.fake_id("c"), "snapshot_id": snapshot["snapshot_id"], "message": "Change three files"}
    data = build_wire_mpack(commits=[commit], snapshots=[snapshot], blobs=blobs)
    assert len(data) < 3 * 2048 + 200 * 32 + 1500


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.sampled_from("xyz"))), st.randoms())
def test_solid_order_does_not_depend_on_the_order_of_its_input(rows: list[tuple[str, int, str]], random: Any) -> None:
    shuffled = rows[:]
    random.shuffle(shuffled)
    assert solid_order(rows) == solid_order(shuffled)


def test_solid_order_puts_the_versions_of_a_path_side_by_side_oldest_first() -> None:
    rows = [("b", 1, "b1"), ("a", 9, "a9"), ("b", 0, "b0"), ("a", 10, "a10"), ("c", 3, "a9")]
    assert solid_order(rows) == ["a9", "a10", "b0", "b1"]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_writes_the_same_bytes(threads: int) -> None:
    blobs = [(ids.fake_id(str(n)), bytes([n]) * (1 << 20) + bytes(range(256)) * 4096 * n) for n in range(9)]
    packs = []
    for number in (0, threads):
        out = io.BytesIO()
        with MPackWriter(out, level=1, threads=number) as writer:
            for object_id, content in blobs:
                writer.add_blob(object_id, content)
            writer.add_snapshot(ids.fake_id("s"), {"a": blobs[0][0]})
        packs.append(out.getvalue())
    assert packs[0] == packs[1]


@pytest.mark.parametrize("largest", [0, 1 << 18, FRAME])
@pytest.mark.parametrize("sizes", [[1 << 12] * 9, [5 << 20], [1 << 20, 15 << 20, 1 << 20, 1 << 12]], ids=str)
def test_history_beside_blobs_that_are_being_compressed_is_the_same_bytes(largest: int, sizes: list[int]) -> None:
    blobs = [(ids.fake_id(f"blob {n}"), Random(n).randbytes(64) * (size // 64)) for n, size in enumerate(sizes)]
    packs = []
    for threads in (0, 1):
        out = io.BytesIO()
        with MPackWriter(out, level=1, threads=threads, largest_beside=largest) as writer:
            for object_id, content in blobs:
                writer.add_blob(object_id, content)
            for n in range(5_000):
                changed = {f"path {n % 50}": blobs[n % len(blobs)][0], "outside": ids.fake_id(f"{n}")}
                writer.add_snapshot_delta(ids.fake_id(f"snapshot {n}"), (), changed, derivable=False)
            for n in range(5_000):
                writer.add_commit(
                    {"commit_id": ids.fake_id(f"commit {n}"), "snapshot_id": ids.fake_id(f"snapshot {n}")}
                )
        packs.append(out.getvalue())
    assert packs[0] == packs[1]


def test_an_exception_ends_the_threads() -> None:
    before = set(threading.enumerate())
    writer = MPackWriter(io.BytesIO(), level=1, threads=2)
    for n in range(3):
        writer.add_blob(ids.fake_id(str(n)), bytes(FRAME))
    with pytest.raises(RuntimeError), writer:
        raise RuntimeError
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("fails", [False, True], ids=["finished", "broken off"])
def test_what_a_writer_holds_goes_with_it(fails: bool) -> None:
    manifest = {"a": ids.fake_id("1")}
    with suppress(RuntimeError), MPackWriter(io.BytesIO(), bases=[(ids.snapshot_id(manifest), manifest)]) as writer:
        writer.add_snapshot_delta(ids.fake_id("2"), [], {"b": ids.fake_id("1")}, derivable=False, start=0)
        if fails:
            raise RuntimeError
    found = weakref.ref(writer)
    gc.disable()
    try:
        del writer
        assert found() is None
    finally:
        gc.enable()


def test_finishing_ends_the_threads() -> None:
    before = set(threading.enumerate())
    with MPackWriter(io.BytesIO(), level=1, threads=2) as writer:
        for n in range(3):
            writer.add_blob(ids.fake_id(str(n)), bytes(FRAME))
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("count", [3_000, 17_000])
def test_manifests_of_long_paths_are_written_in_several_frames(count: int) -> None:
    before = {f"{n:05}" * 200: ids.fake_id("1") for n in range(count)}
    after = {**dict(list(before.items())[count // 3 :]), **{f"{n:05}" * 201: ids.fake_id("2") for n in range(count)}}
    out = io.BytesIO()
    with MPackWriter(out, level=1) as writer:
        for manifest in (before, after):
            writer.add_snapshot(ids.snapshot_id(manifest), manifest, derivable=True)
    assert [dict(found) for _, found in MPackReader(out).snapshots()] == [before, after]
