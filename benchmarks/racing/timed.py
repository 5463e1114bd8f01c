"""Runs a command and says what it used: `python -I -S timed.py COMMAND...` prints wall, CPU and bytes of memory.

The kernel counts what the process that starts a command has in memory as the command's own until it begins, so this
one is small.
"""

from __future__ import annotations

import os
import sys
import time


def main(command: list[str]) -> int:
    """Run the command with its output on stderr; return its exit code."""
    begun = time.perf_counter()
    wiring = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=wiring)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begun
    print(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
