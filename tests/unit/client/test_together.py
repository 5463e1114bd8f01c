"""Packs that several processes check: what is right and wrong with them is what one process alone finds."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from musehub_plugin import ids
from musehub_plugin.mpack import Kind, MPackReader, MPackWriter, snapshots, zstd

# In a process of its own: a fork wants to be the only thread. It says of each file what checking it alone and checking
# it together with two others says: the index and what is new, or the error.
PROGRAM = """
import hashlib, json, os, sys
from pathlib import Path
from musehub_plugin import forks
from musehub_plugin.client import BadMPack, Workdir, packcheck
from musehub_plugin.mpack import Limits, MPackReader

os.sched_getaffinity = lambda pid: {0, 1, 2}
workdir = Workdir.create(Path(sys.argv[1]), bare=True)
limits = Limits(**json.loads(sys.argv[2]))

def outcome(path, least):
    packcheck._BESIDE_BYTES = least
    try:
        builder, applied = packcheck.check_pack(workdir, path, limits=limits)
    except BadMPack as error:
        return str(error)
    return [hashlib.sha256(b"".join(builder.parts())).hexdigest(), str(applied)]

assert forks.processes_beside() == 3
paths = list(map(Path, sys.argv[3:]))
alone = [outcome(path, 1 << 60) for path in paths]
if all(isinstance(each, list) for each in alone):
    # What is right is not read once more, one after the other.
    MPackReader.hashed_snapshots = None
print(json.dumps(list(zip(alone, [outcome(path, 0) for path in paths]))))
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    pass
else:
    raise SystemExit("a process is left")
"""


def outcomes(folder: Path, packs: Sequence[bytes], **limits: int) -> list[tuple[object, object]]:
    """Return of each pack what is found alone and what is found together."""
    paths = [folder / f"{number}.mpack" for number in range(len(packs))]
    for path, pack in zip(paths, packs, strict=True):
        path.write_bytes(pack)
    arguments = [sys.executable, "-W", "error", "-c", PROGRAM, str(folder / "copy"), json.dumps(limits)]
    done = subprocess.run([*arguments, *map(str, paths)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return [(alone, together) for alone, together in json.loads(done.stdout)]


def written(path: Path, count: int) -> bytes:
    """Return a pack of a line of commits, of which every third snapshot's id is stated and true."""
    with path.open("wb") as file, MPackWriter(file, level=1) as writer:
        contents = [b"blob %d" % number for number in range(count)]
        for content in contents:
            writer.add_blob(ids.blob_id(content), content)
        manifest: dict[str, str] = {}
        line: list[str] = []
        for number, content in enumerate(contents):
            manifest[f"folder/file{number % 7}"] = ids.blob_id(content)
            line.append(ids.snapshot_id(manifest))
            writer.add_snapshot(line[-1], manifest, derivable=number % 3 > 0)
        parents: list[str] = []
        for number, snapshot_id in enumerate(line):
            date = f"2026-01-01T00:00:{number % 60:02}+00:00"
            commit_id = ids.commit_id(parents, snapshot_id, f"commit {number}", date)
            writer.add_commit(
                {
                    "commit_id": commit_id,
                    "parent_ids": parents,
                    "snapshot_id": snapshot_id,
                    "branch": "main",
                    "message": f"commit {number}",
                    "author": "Ada",
                    "committed_at": date,
                }
            )
            parents = [commit_id]
    return path.read_bytes()


@pytest.fixture(params=[4, 30], ids=["many frames", "two frames"])
def pack(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A pack of 50 commits, nothing in it compressed."""
    monkeypatch.setattr(snapshots, "ROWS_PER_FRAME", request.param)
    monkeypatch.setattr(zstd, "compress", lambda data, **_: bytes(data))
    return written(tmp_path / "written.mpack", 50)


def test_a_pack_that_is_right_has_the_same_index(pack: bytes, tmp_path: Path) -> None:
    ((alone, together),) = outcomes(tmp_path, [pack])
    assert isinstance(alone, list)
    assert together == alone


def test_a_pack_that_is_damaged_is_refused_with_the_same_words(pack: bytes, tmp_path: Path) -> None:
    frames = MPackReader(io.BytesIO(pack)).frames
    # Every byte of some is too many: those of snapshots closest to one another.
    steps = {Kind.BLOBS: 97, Kind.DIRECTORY: 331, Kind.SNAPSHOTS: 11, Kind.COMMITS: 97}
    damaged = []
    for frame in frames:
        for position in range(frame.position, frame.position + frame.stored, steps[Kind(frame.kind)]):
            damaged.append(bytearray(pack))
            damaged[-1][position] ^= 1 << position % 8
    found = outcomes(tmp_path, list(map(bytes, damaged)))
    assert [together for _, together in found] == [alone for alone, _ in found]
    assert len({str(alone) for alone, _ in found if isinstance(alone, str)}) > 20


@pytest.mark.parametrize("limit", ["max_total_entries", "max_manifest_changes", "max_manifest_entries"])
def test_a_limit_on_all_snapshots_is_named_the_same(pack: bytes, tmp_path: Path, limit: str) -> None:
    ((alone, together),) = outcomes(tmp_path, [pack], **{limit: 6 if limit == "max_manifest_entries" else 45})
    assert isinstance(alone, str)
    assert "limit" in alone
    assert together == alone
