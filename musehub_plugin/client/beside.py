"""Work that is taken in turn by this process and by forks of it: whoever is free does the next piece."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Generic, TypeVar

from musehub_plugin.forks import Fork
from musehub_plugin.mpack import MPackError

MOST_TASKS: Final = 1 << 13
"""Tasks that there may be: a pipe of the usual size holds twice as many."""
_TASK: Final = struct.Struct("I")
# Number of the task, whether it failed, and the size of what is said of it, which is bytes or the error's text. All of
# it is written at once and so small (PIPE_BUF) that nobody else's comes in between.
_RECORD: Final = struct.Struct("I?H")
_MAX_SAID: Final = 2_000
_READ: Final = 1 << 16
_Task = TypeVar("_Task")


class Beside(Generic[_Task]):
    """Does tasks in this process and in forks of it; used as a context manager.

    Args:
        work: does one task and returns what there is to say of it, up to 2,000 bytes; raises `MPackError` where
            something is wrong. It must leave open files where they stand, and be able to do a task again: one whose
            process was killed is done here.
        tasks: the tasks, up to `MOST_TASKS`. They are begun in this order.
        handles: the files that the work needs; it has no others.
        processes: how many forks there are, where the system gives as many.
    """

    def __init__(
        self,
        work: Callable[[_Task], bytes],
        tasks: Sequence[_Task],
        handles: Collection[int],
        *,
        processes: int,
    ) -> None:
        self._work = work
        self._tasks = tasks
        self._results: dict[int, bytes | MPackError] = {}
        self._rest = b""
        self._taken, giving = os.pipe()
        self._said, saying = os.pipe()
        # Before anybody reads, so that no piece that is read holds half of a number. A user with very many pipes gets
        # small ones: what does not fit nobody takes, and `result` does it here.
        os.set_blocking(giving, False)
        os.write(giving, b"".join(map(_TASK.pack, range(len(tasks)))))
        os.close(giving)
        handles = {self._taken, saying, *handles}
        self._forks: list[Fork] = []
        # Where the system gives no more, those that there are do the work, or this process alone.
        with suppress(OSError):
            while len(self._forks) < processes:
                self._forks.append(Fork(partial(self._do_in_fork, saying), handles))
        # Now it ends where the last fork does.
        os.close(saying)

    def __enter__(self) -> Beside[_Task]:
        return self

    def __exit__(self, *_: object) -> None:
        for fork in self._forks:
            fork.end()
        self._forks.clear()
        os.close(self._taken)
        os.close(self._said)

    def result(self, number: int) -> bytes:
        """Return what there is to say of a task, and do others while it is not done.

        Args:
            number: which of the tasks.

        Raises:
            MPackError: the task raised it.
        """
        while number not in self._results:
            if self._collected(wait=False) or self._take_one() or self._collected(wait=True):
                continue
            # Whoever had it was killed, or had no memory left; that says nothing about the task.
            self._do(number)
        result = self._results[number]
        if isinstance(result, MPackError):
            raise result
        return result

    def finish(self) -> None:
        """Wait for all tasks.

        Raises:
            MPackError: what a task raised; of several, the first one's.
        """
        for number in range(len(self._tasks)):
            self.result(number)

    def _do(self, number: int) -> None:
        try:
            self._results[number] = self._work(self._tasks[number])
        except MPackError as error:
            self._results[number] = error

    def _take_one(self) -> bool:
        """Do a task that nobody has begun; False where there is none."""
        taken = os.read(self._taken, _TASK.size)
        if taken:
            self._do(*_TASK.unpack(taken))
        return bool(taken)

    def _collected(self, *, wait: bool) -> bool:
        """Take what forks have said; False where they said nothing, after a wait: where all have ended."""
        os.set_blocking(self._said, wait)
        said = b""
        with suppress(BlockingIOError):
            said = os.read(self._said, _READ)
        rest = self._rest + said
        while len(rest) >= _RECORD.size:
            number, failed, size = _RECORD.unpack_from(rest)
            if len(rest) < _RECORD.size + size:
                break
            text = rest[_RECORD.size : _RECORD.size + size]
            self._results[number] = MPackError(text.decode(errors="replace")) if failed else text
            rest = rest[_RECORD.size + size :]
        self._rest = rest
        return bool(said)

    def _do_in_fork(self, saying: int) -> None:
        """Do tasks until there are no more, and say what there is to say of each."""
        while self._take_one():
            for number, result in self._results.items():
                failed = isinstance(result, MPackError)
                said = str(result).encode(errors="replace") if isinstance(result, MPackError) else result
                os.write(saying, _RECORD.pack(number, failed, len(said[:_MAX_SAID])) + said[:_MAX_SAID])
            self._results.clear()
