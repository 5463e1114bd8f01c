"""What processes cost: CPU time and memory from Linux's /proc, and commands with what they used."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from musehub_plugin.testing.supervised import Service

_TICKS = os.sysconf("SC_CLK_TCK")
_RESET_PEAK = "5"
_TIMED = Path(__file__).with_name("timed.py")


class CommandFailed(RuntimeError):
    """A command of a race failed; the text has what it said."""


@dataclass(frozen=True)
class Used:
    """What a command used.

    Attributes:
        wall: seconds.
        cpu: seconds of CPU, those of its children included.
        peak: bytes of memory that the largest of its processes had.
    """

    wall: float
    cpu: float
    peak: int


def run(
    command: Sequence[str | Path], *, cwd: Path, environment: Mapping[str, str] | None = None, quiet: bool = False
) -> Used:
    """Run a command to its end.

    Args:
        command: the program and its arguments.
        cwd: where.
        environment: variables beside those of this process.
        quiet: drop what it prints, which may be large; an error's text is without it then.

    Raises:
        CommandFailed: it did not end with 0.
    """
    parts = [str(part) for part in command]
    with tempfile.TemporaryFile() as log:
        done = subprocess.run(
            [sys.executable, "-I", "-S", _TIMED, *parts],
            cwd=cwd,
            env=None if environment is None else {**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else log,
            text=True,
            check=False,
        )
        if done.returncode:
            log.seek(0)
            said = log.read()[-2_000:].decode(errors="replace")
            raise CommandFailed(f"{Path(parts[0]).name} {parts[1]}: exit {done.returncode}: {said}")
    wall, cpu, peak = done.stdout.split()
    return Used(float(wall), float(cpu), int(peak))


def cpu_of(services: Sequence[Service]) -> float:
    """Return the seconds of CPU that the processes of services have used, with children that ended."""
    return sum(_cpu(pid) for pid in pids_of(services))


def pids_of(services: Sequence[Service]) -> list[int]:
    """Return the processes of services: each one's guard, and all that descend from it."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    parents = {pid: parent_of(pid) for pid in pids}
    commands = {pid: command_of(pid) for pid in pids}
    # Servers change their working directory and their names; only the guard says whose they are.
    guards = [f"guard.py {service.directory}" for service in services]
    found = [pid for pid in pids if any(guard in commands[pid] for guard in guards)]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def command_of(pid: int) -> str:
    """Return a process's command line; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def parent_of(pid: int) -> int | None:
    """Return a process's parent; None for one that has ended."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def memory_of(pid: int) -> int:
    """Return the bytes of memory that a process has now; 0 for one that has ended."""
    return _status(pid, "VmRSS")


def peak_of(pid: int) -> int:
    """Return the most memory that a process has had since `forget_peak`, in bytes; 0 for one that has ended."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Let a process's peak begin again at what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK, encoding="ascii")


def musehub_command() -> Path:
    """Return the `musehub` program of this environment."""
    return Path(sys.executable).with_name("musehub")


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    # utime, stime, cutime, cstime: the last two are of children that were waited for.
    return sum(int(field) for field in fields[11:15]) / _TICKS if fields else 0.0


def _stat(pid: int) -> list[str]:
    try:
        # The name, in brackets, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _status(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
