"""What a large push takes of a web process."""

from __future__ import annotations

import random
from pathlib import Path

from musehub_plugin.testing import History
from tests.faults.laboratory import Laboratory

REPO = "alice/songs"
BLOBS = [8 << 20] * 24 + [72 << 20]
# S83 allows 64 MiB and the largest blob.
ALLOWED = 48 << 20


def memory(pid: int | None, field: str) -> int:
    """Return a line of a process's status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def test_s83_a_push_takes_48_mib_of_memory_however_large_its_blobs_are(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    web = lab.web()
    small = History()
    warm = small.commit({"a": b"what a first push imports"})
    assert web.muse.push(REPO, small.pack(), warm, branch="small").status == 200
    idle = memory(web.process.pid, "VmRSS")
    history, noise = History(), random.Random(83)
    head = history.commit({f"{number}.bin": noise.randbytes(size) for number, size in enumerate(BLOBS)})
    pack = history.pack()
    assert len(pack) > sum(BLOBS)
    assert web.muse.push(REPO, pack, head).status == 200
    grown = memory(web.process.pid, "VmHWM") - idle
    assert grown < ALLOWED, f"{grown / 2**20:.1f} MiB"
