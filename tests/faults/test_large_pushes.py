"""What a large push takes of a web process."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest

from musehub_plugin import ids
from musehub_plugin.mpack import MPackWriter
from musehub_plugin.testing import History
from tests.faults.laboratory import Laboratory, Web

REPO = "alice/songs"
BLOBS = [8 << 20] * 24 + [72 << 20]
# S83 allows 64 MiB and the largest blob.
ALLOWED = 48 << 20
WIDE = 120_000
WIDE_ALLOWED = 40 << 20
DATE = "2026-01-01T00:00:00+00:00"


def memory(pid: int | None, field: str) -> int:
    """Return a line of a process's status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def wide_pack(manifest: Mapping[str, str], blobs: Iterable[bytes], parent_ids: list[str]) -> tuple[bytes, str]:
    """Return the pack of one commit, and its id."""
    snapshot_id = ids.snapshot_id(manifest)
    commit_id = ids.commit_id(parent_ids, snapshot_id, "", DATE)
    record = {"commit_id": commit_id, "parent_ids": parent_ids, "snapshot_id": snapshot_id, "committed_at": DATE}
    out = BytesIO()
    with MPackWriter(out, level=1) as writer:
        for blob in blobs:
            writer.add_blob(ids.blob_id(blob), blob)
        writer.add_snapshot(snapshot_id, manifest, derivable=True)
        writer.add_commit({**record, "message": "", "author": "", "branch": "main"})
    return out.getvalue(), commit_id


@pytest.fixture
def idle_web(lab: Laboratory) -> tuple[Web, int]:
    """A web process that took a small push, and what it has then, in bytes."""
    lab.create_repo(REPO)
    web = lab.web()
    small = History()
    warm = small.commit({"a": b"what a first push imports"})
    assert web.muse.push(REPO, small.pack(), warm, branch="small").status == 200
    return web, memory(web.process.pid, "VmRSS")


def test_s83_a_push_of_a_tree_of_120_000_files_takes_40_mib_and_so_does_one_that_follows_it(
    idle_web: tuple[Web, int],
) -> None:
    web, idle = idle_web
    manifest = {f"folder{n // 1000}/of/some/length/file{n:08}": ids.blob_id(b"1") for n in range(WIDE)}
    pack, first = wide_pack(manifest, [b"1"], [])
    assert web.muse.push(REPO, pack, first).status == 200
    pack, second = wide_pack({**manifest, "new": ids.blob_id(b"2")}, [b"2"], [first])
    assert web.muse.push(REPO, pack, second).status == 200
    grown = memory(web.process.pid, "VmHWM") - idle
    assert grown < WIDE_ALLOWED, f"{grown / 2**20:.1f} MiB"


def test_s83_a_push_takes_48_mib_of_memory_however_large_its_blobs_are(idle_web: tuple[Web, int]) -> None:
    web, idle = idle_web
    history, noise = History(), random.Random(83)
    head = history.commit({f"{number}.bin": noise.randbytes(size) for number, size in enumerate(BLOBS)})
    pack = history.pack()
    assert len(pack) > sum(BLOBS)
    assert web.muse.push(REPO, pack, head).status == 200
    grown = memory(web.process.pid, "VmHWM") - idle
    assert grown < ALLOWED, f"{grown / 2**20:.1f} MiB"


def test_s83_past_what_a_process_takes_in_at_once_a_large_push_comes_back_and_a_small_one_does_not_wait(
    lab: Laboratory,
) -> None:
    lab.create_repo(REPO)
    web = lab.web(MUSEHUB_PUSH_ROOM=2 << 20)
    history, noise = History(), random.Random(1)
    heads = [history.commit({"a": noise.randbytes(size)}) for size in (2 << 20, 2 << 20, 2 << 10)]
    first, second, small = (history.pack(want=[head]) for head in heads)
    held = lab.control.at("unpack.verified", "hold")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(web.muse.push, REPO, first, heads[0], branch="first")
        held.wait()
        web.muse.push(REPO, second, heads[1], branch="second").assert_try_again("busy")
        assert web.muse.push(REPO, small, heads[2], branch="small").status == 200
        held.release()
        assert under_way.result().status == 200
    assert web.muse.unpack(REPO, second, heads[1], branch="second").status == 200
