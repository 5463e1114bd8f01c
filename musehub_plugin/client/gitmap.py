"""Which muse commit each git commit became: `.muse/git-import.map`, so that a second import reads what is new alone.

A line for each git commit, in the order of the import: its hash, a space, the muse commit's bare hex. Lines are only
ever appended, after the muse commits that they name are stored. What a kill left of a line, and what names a commit
that is not there, counts for nothing; without the file everything is read again, which changes nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from musehub_plugin import ids
from musehub_plugin.client.workdir import Workdir

FILE: Final = "git-import.map"
_LINE: Final = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{64})")


class GitMap:
    """The map of a working copy.

    Args:
        workdir: the working copy.

    Attributes:
        commit_ids: `{git hash: muse commit id}`; a child never comes before its parents.
    """

    def __init__(self, workdir: Workdir) -> None:
        self._path = workdir.muse / FILE
        self.commit_ids: dict[str, str] = {}
        try:
            text = self._path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return
        if not text.endswith("\n"):
            # A line that is cut off would run into the next one.
            text = text[: text.rfind("\n") + 1]
            workdir.write_file(self._path, text.encode("ascii", "replace"))
        for line in text.splitlines():
            found = _LINE.fullmatch(line)
            if found is not None and workdir.has_commit(ids.PREFIX + found[2]):
                self.commit_ids[found[1]] = ids.PREFIX + found[2]

    def add(self, names: Iterable[str]) -> None:
        """Write what `commit_ids` says about git commits, whose muse commits are stored."""
        lines = "".join(f"{name} {ids.to_hex(self.commit_ids[name])}\n" for name in names)
        with self._path.open("a", encoding="ascii") as file:
            file.write(lines)
