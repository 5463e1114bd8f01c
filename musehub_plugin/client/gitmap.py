"""Which muse commit each git commit became: `.muse/git-import.map`, so that a second import reads what is new alone.

A line for each git commit, in the order of the import: its hash, a space, the muse commit's bare hex. Lines are only
ever appended, after the muse commits that they name are stored. What a kill left of a line, and what names a commit
that is not there, counts for nothing; without the file everything is read again, which changes nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from musehub_plugin import ids
from musehub_plugin.client.scratch import ScratchTable
from musehub_plugin.client.workdir import Workdir

FILE: Final = "git-import.map"
_LINE: Final = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{64})")


class GitMap:
    """The map of a working copy, used as a context manager.

    Args:
        workdir: the working copy.
    """

    def __init__(self, workdir: Workdir) -> None:
        self._path = workdir.muse / FILE
        self._table = ScratchTable(workdir.temp_path())
        try:
            file = self._path.open("r", encoding="ascii", errors="replace", newline="\n")
        except FileNotFoundError:
            return
        whole = 0
        with file:
            for line in file:
                if not line.endswith("\n"):
                    # A line that is cut off would run into the next one. What is no ASCII was one byte each.
                    os.truncate(self._path, whole)
                    break
                whole += len(line)
                found = _LINE.fullmatch(line[:-1])
                if found is not None and workdir.has_commit(ids.PREFIX + found[2]):
                    self[found[1]] = ids.PREFIX + found[2]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()

    def __getitem__(self, name: str) -> str:
        """Return the muse commit that a git commit became.

        Raises:
            KeyError: it was not imported.
        """
        digest = self._table.digest(bytes.fromhex(name))
        if digest is None:
            raise KeyError(name)
        return ids.from_digest(digest)

    def __setitem__(self, name: str, commit_id: str) -> None:
        """Note what a git commit became; `add` writes it down."""
        self._table.set_digests([(bytes.fromhex(name), ids.to_digest(commit_id))])

    def __iter__(self) -> Iterator[str]:
        """Iterate over the git commits; none may be added meanwhile."""
        return map(bytes.hex, self._table)

    def add(self, names: Iterable[str]) -> None:
        """Write down what git commits became, whose muse commits are stored; they come parents first."""
        with self._path.open("a", encoding="ascii") as file:
            file.writelines(f"{name} {ids.to_hex(self[name])}\n" for name in names)
