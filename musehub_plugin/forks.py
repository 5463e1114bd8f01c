"""Processes that do a part of the work beside this one.

Threads are no help where the work is Python's own: each would wait for the other.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Collection
from typing import Final

_MOST: Final = 4
_FAILED: Final = 3
_MAX_TEXT: Final = 2_000


def processes_beside() -> int:
    """Return how many processes may run beside this one; 0 where forking is not safe, or there is one processor."""
    # A fork has the locks of all threads, and this thread alone to release them.
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return 0
    processors = len(os.sched_getaffinity(0))
    return min(processors, _MOST) if processors > 1 else 0


class Fork:
    """A process that does some work and ends.

    Args:
        work: what it does; it returns what is wrong, or None. It must leave open files where they stand.
        handles: the files that it needs; it has no others, nor any connection. So a lock that this process holds ends
            with it, even where it is killed and the fork goes on for a while.

    Attributes:
        said: the descriptor of a pipe that ends when the process does.

    Raises:
        OSError: the system gives no more processes, or has no memory for one.
    """

    def __init__(self, work: Callable[[], str | None], handles: Collection[int]) -> None:
        self.said, writing = os.pipe()
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self.said)
            os.close(writing)
            raise
        if self._pid:
            os.close(writing)
            return
        # From here on it is another process, which must not come back into the caller's code, whatever happens.
        code = 1
        try:
            # What is there is there for good: to look through all of it for garbage would be a tenth of the work.
            gc.freeze()
            begin = 3
            for handle in sorted({writing, *handles}):
                os.closerange(begin, handle)
                begin = handle + 1
            os.closerange(begin, os.sysconf("SC_OPEN_MAX"))
            wrong = work()
            if wrong is not None:
                os.write(writing, wrong.encode(errors="replace")[:_MAX_TEXT])
            code = 0 if wrong is None else _FAILED
        finally:
            os._exit(code)

    def wait(self) -> tuple[bool, str | None]:
        """Wait for its end; return whether it came to it, and what it found wrong.

        It does not where it was killed, or had no memory left, or raised: that says nothing about the work.
        """
        with os.fdopen(self.said, "rb") as pipe:
            text = pipe.read(_MAX_TEXT)
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return code in {0, _FAILED}, text.decode(errors="replace") if code == _FAILED else None

    def end(self) -> None:
        """Have it end at once, in place of waiting for it."""
        os.kill(self._pid, 9)
        os.close(self.said)
        os.waitpid(self._pid, 0)
