"""A check that runs in processes of its own, beside what this one does.

Threads are no help there: between two pieces of hashing each would wait for the other's Python code.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Final, Generic, TypeVar

from musehub_plugin.mpack import MPackError

_MOST: Final = 4
_FAILED: Final = 3
_MAX_TEXT: Final = 2_000
_Share = TypeVar("_Share")


def processes_beside() -> int:
    """Return how many processes may run beside this one; 0 where forking is not safe, or there is one processor."""
    # A fork has the locks of all threads, and this thread alone to release them.
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return 0
    processors = len(os.sched_getaffinity(0))
    return min(processors, _MOST) if processors > 1 else 0


class Beside(Generic[_Share]):
    """Checks the shares of some work, each in a fork of this process; used as a context manager.

    Args:
        check: checks one share, and raises `MPackError` where it is wrong. It must leave open files where they stand.
        shares: the shares.
        handles: the files that the check reads; it has no others. So a lock that this process holds ends with it,
            even where it is killed and a check goes on for a while.
    """

    def __init__(self, check: Callable[[_Share], None], shares: Sequence[_Share], handles: Collection[int]) -> None:
        self._check = check
        self._waiting: list[tuple[_Share, int, int]] = []
        for share in shares:
            pid, said = _forked(check, share, handles)
            self._waiting.append((share, pid, said))

    def __enter__(self) -> Beside[_Share]:
        return self

    def __exit__(self, *_: object) -> None:
        for _share, pid, said in self._waiting:
            os.kill(pid, 9)
            os.close(said)
            os.waitpid(pid, 0)
        self._waiting.clear()

    def finish(self) -> None:
        """Wait for all shares.

        Raises:
            MPackError: what a check raised; of several, the first share's.
        """
        while self._waiting:
            share, pid, said = self._waiting.pop(0)
            with os.fdopen(said, "rb") as pipe:
                text = pipe.read(_MAX_TEXT)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code == _FAILED:
                raise MPackError(text.decode(errors="replace"))
            if code != 0:
                # It was killed, or had no memory left; that says nothing about the share.
                self._check(share)


def _forked(check: Callable[[_Share], None], share: _Share, handles: Collection[int]) -> tuple[int, int]:
    """Start a check, and return its process, and the end of a pipe on which it says what was wrong."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    # From here on it is another process, which must not come back into the caller's code, whatever happens.
    code = 1
    try:
        begin = 3
        for handle in sorted({writing, *handles}):
            os.closerange(begin, handle)
            begin = handle + 1
        os.closerange(begin, os.sysconf("SC_OPEN_MAX"))
        check(share)
        code = 0
    except MPackError as error:
        os.write(writing, str(error).encode(errors="replace")[:_MAX_TEXT])
        code = _FAILED
    finally:
        os._exit(code)
