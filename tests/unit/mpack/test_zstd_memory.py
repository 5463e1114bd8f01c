"""What is kept of the memory that large frames are decompressed with."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from musehub_plugin.mpack.zstd import compress

# Each frame is larger than those before, so that none finds room in what another one has left.
SIZES = [9 << 20, 10 << 20, 11 << 20, 12 << 20]
# Prints the page faults of all frames but the first, whose memory is new in any case.
PROGRAM = """
import resource, sys
from pathlib import Path
from musehub_plugin.mpack.zstd import decompress_pieces, keep_memory

keep_memory()
faults = []
for path in sys.argv[1:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in decompress_pieces([Path(path).read_bytes()], int(Path(path).name), window_log=24):
        pass
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[1:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory by rules of their own")
def test_the_windows_of_large_frames_share_their_memory(tmp_path: Path) -> None:
    # Made by this process, as whoever compresses them has had as much memory already.
    paths = [tmp_path / str(size) for size in SIZES]
    for path, size in zip(paths, SIZES, strict=True):
        path.write_bytes(compress(bytes(size), level=1, window_log=24))
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, check=True)
    # All anew they would be 33 MiB, of 4 KiB a page.
    assert int(ran.stdout) < 4_200
