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
