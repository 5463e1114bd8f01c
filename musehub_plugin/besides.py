"""A part of a pack that another process writes while this one writes the rest."""

from __future__ import annotations

import logging
import select
import tempfile
from collections.abc import Callable, Collection
from typing import IO

from musehub_plugin.forks import Fork
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

# Seconds between two calls of `alive` while nothing else is left to do.
_ALIVE_EVERY = 1.0


class PartBeside:
    """Writes a part of a pack into a file without a name, in a fork of this process; a context manager.

    Args:
        db: the unit of work, which the fork does not share: it has one of its own, on a connection of its own.
        write: writes the part, reading by the unit of work that it is given.
        handles: the files that it reads.
    """

    def __init__(self, db: Database, write: Callable[[Database, IO[bytes]], None], handles: Collection[int]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object, and gone then

        def work() -> None:
            with db.after_fork() as own:
                write(own, self._file)
            self._file.flush()

        self._fork: Fork | None = None
        try:
            self._fork = Fork(work, {self._file.fileno(), *handles})
        except OSError as error:
            # Whoever waits for it does the work.
            logger.warning("there is no process beside this one to be had: %s", error.strerror)

    def __enter__(self) -> PartBeside:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fork is not None:
            self._fork.end()
        self._file.close()

    def finished(self, alive: Callable[[], None]) -> IO[bytes] | None:
        """Wait for the part and return its file; None where no process came to the end of it.

        Who called does the work then, and meets what stopped it.

        Args:
            alive: called every so often meanwhile.
        """
        fork = self._fork
        if fork is None:
            return None
        while not select.select([fork.said], [], [], _ALIVE_EVERY)[0]:
            alive()
        self._fork = None
        ended, _ = fork.wait()
        if not ended:
            logger.warning("a process that wrote a part of a pack did not come to its end: it is written here")
            return None
        self._file.seek(0)
        return self._file
