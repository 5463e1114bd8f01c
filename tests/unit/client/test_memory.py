"""What the client takes of memory does not grow with the size of a pack."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from musehub_plugin import ids
from musehub_plugin.mpack import MPackWriter

MIB = 1 << 20
PROGRAM = """
import sys
from pathlib import Path
from musehub_plugin.client import Workdir, apply_mpack, verify
from musehub_plugin.client.keeping import keep_mpack

bare = sys.argv[3] == "bare"
copy = Workdir.create(Path(sys.argv[1]), bare=bare)
source = Path(sys.argv[2])
if bare:
    keep_mpack(copy, source, sys.argv[4])
else:
    apply_mpack(copy, source)
assert verify(copy).problems == []
# Not getrusage: its peak begins with that of the process that started this one.
status = Path("/proc/self/status").read_text().split()
print(int(status[status.index("VmHWM:") + 1]) // 1024)
"""


@pytest.fixture(scope="module")
def big_pack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An mpack of a blob of 300 MiB, which does not compress, and thirty of 1 MiB; and its id."""
    path = tmp_path_factory.mktemp("pack") / "big.mpack"
    noise = hashlib.shake_256(b"noise").digest(MIB)

    def pieces(count: int) -> Iterator[bytes]:
        for shift in range(0, count * 3000, 3000):
            yield noise[shift:] + noise[:shift]

    digest = hashlib.sha256()
    for piece in pieces(300):
        digest.update(piece)
    with path.open("wb") as file, MPackWriter(file, level=1) as writer:
        writer.add_blob_stream(ids.from_digest(digest.digest()), 300 * MIB, pieces(300))
        for piece in pieces(30):
            writer.add_blob(ids.blob_id(piece), piece)
    with path.open("rb") as pack:
        return path, ids.from_digest(hashlib.file_digest(pack, "sha256").digest())


@pytest.mark.parametrize("kind", ["loose", "bare"])
def test_330_mib_are_applied_and_verified_in_less_than_150(
    big_pack: tuple[Path, str], tmp_path: Path, kind: str
) -> None:
    path, mpack_id = big_pack
    source = tmp_path / "pack"
    source.hardlink_to(path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "copy"), str(source), kind, mpack_id],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 150


MANY = 300_000
PER_COMMIT = 1_000
MANY_PROGRAM = """
import hashlib
import sys
from pathlib import Path
from musehub_plugin import ids
from musehub_plugin.client import Workdir, verify
from musehub_plugin.client.apply import apply_to
from musehub_plugin.client.keeping import keep_mpack


def peak():
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1])


class Nowhere:
    def has(self, kind, entity_id):
        return True

    def add_blob(self, blob):
        return True

    add_commit = add_blob

    def add_snapshot(self, rows, snapshot_id):
        return True


copy, source, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
idle = peak()
if kind == "bare":
    workdir = Workdir.create(copy, bare=True)
    with source.open("rb") as file:
        mpack_id = ids.from_digest(hashlib.file_digest(file, "sha256").digest())
    keep_mpack(workdir, source, mpack_id)
    assert verify(workdir).problems == []
else:
    with source.open("rb") as file:
        apply_to(Nowhere(), file)
print(peak() - idle)
"""


@pytest.fixture(scope="module")
def pack_of_many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mpack of 300,000 blobs of a few bytes, in 300 snapshots of 1,000."""
    path = tmp_path_factory.mktemp("many") / "many.mpack"
    contents = [b"%d" % number for number in range(MANY)]
    blob_ids = list(map(ids.blob_id, contents))
    with path.open("wb") as file, MPackWriter(file, level=1) as writer:
        for blob_id, content in zip(blob_ids, contents, strict=True):
            writer.add_blob(blob_id, content)
        for start in range(0, MANY, PER_COMMIT):
            manifest = {f"file{n}": blob_ids[start + n] for n in range(PER_COMMIT)}
            writer.add_snapshot(ids.snapshot_id(manifest), manifest, derivable=True)
    return path


@pytest.mark.parametrize("kind", ["loose", "bare"])
def test_300_000_blobs_take_50_mib_beyond_what_the_client_itself_takes(
    pack_of_many: Path, tmp_path: Path, kind: str
) -> None:
    # Of which some 40 are for any number of them. An object for each, in one list or set alone, would be 30 more.
    source = tmp_path / "pack"
    source.hardlink_to(pack_of_many)
    done = subprocess.run(
        [sys.executable, "-c", MANY_PROGRAM, str(tmp_path / "copy"), str(source), kind],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 50 << 10


WIDE = 120_000
WIDE_PROGRAM = """
import hashlib
import sys
from pathlib import Path
from musehub_plugin import ids
from musehub_plugin.client import Workdir, apply_mpack, verify
from musehub_plugin.client.keeping import keep_mpack


def peak():
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1])


bare = sys.argv[4] == "bare"
idle = peak()
workdir = Workdir.create(Path(sys.argv[1]), bare=bare)
# A first pack, and a thin one that leans on what it holds.
for source in map(Path, sys.argv[2:4]):
    if bare:
        with source.open("rb") as file:
            mpack_id = ids.from_digest(hashlib.file_digest(file, "sha256").digest())
        keep_mpack(workdir, source, mpack_id)
    else:
        apply_mpack(workdir, source)
assert verify(workdir).problems == []
print(peak() - idle)
"""


@pytest.fixture(scope="module")
def wide_packs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An mpack of two snapshots of 120,000 paths, and a thin one of a third."""
    folder = tmp_path_factory.mktemp("wide")
    blobs = {ids.blob_id(content): content for content in (b"1", b"2", b"3")}
    one, two, three = blobs
    manifest = {f"folder{n // 1000}/of/some/length/file{n:08}": one for n in range(WIDE)}
    runs = [[manifest, {**manifest, "new": two}], [{**manifest, "newer": three}]]
    held: list[tuple[str, dict[str, str]]] = []
    for number, manifests in enumerate(runs):
        with (folder / str(number)).open("wb") as file, MPackWriter(file, level=1, bases=held) as writer:
            for blob_id, content in list(blobs.items())[2 * number : 2 * number + 2]:
                writer.add_blob(blob_id, content)
            for each in manifests:
                writer.add_snapshot(ids.snapshot_id(each), each, derivable=True)
        held = [(ids.snapshot_id(manifests[-1]), manifests[-1])]
    return [folder / "0", folder / "1"]


@pytest.mark.parametrize("kind", ["loose", "bare"])
def test_a_tree_of_120_000_files_takes_40_mib_beyond_what_the_client_itself_takes(
    wide_packs: list[Path], tmp_path: Path, kind: str
) -> None:
    # Of which some 25 are for any number of them.
    sources = [tmp_path / path.name for path in wide_packs]
    for source, path in zip(sources, wide_packs, strict=True):
        source.hardlink_to(path)
    done = subprocess.run(
        [sys.executable, "-c", WIDE_PROGRAM, str(tmp_path / "copy"), *map(str, sources), kind],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 40 << 10
