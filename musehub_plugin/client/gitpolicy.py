"""What becomes in muse of what git has and muse has no place for; see `gitimport`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from musehub_plugin.client.gitlog import GitChange
from musehub_plugin.names import unsafe_path

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DELETED: Final = b"000000"
SYMLINK: Final = b"120000"
EXECUTABLE: Final = b"100755"
SUBMODULE: Final = b"160000"
# Bytes that are not UTF-8 come as lone surrogates.
_IN_THE_WAY: Final = re.compile("[\\\\\r\n\udc80-\udcff]")


@dataclass
class GitImport:
    """What an import did.

    Attributes:
        commits: commits that the refs reach and that were read now: those that no import before this one had brought.
        new_commits: commits that were not in the working copy.
        new_snapshots: snapshots that were not.
        new_blobs: blobs that were not.
        branches: branches that were set.
        tags: tags that were set.
        annotated_tags: how many of the tags had a text of their own, which stayed behind.
        symlinks: paths that are symlinks somewhere in the history.
        executables: paths that are executable somewhere in the history.
        submodules: paths that are submodules somewhere in the history.
        escaped_paths: paths that were written with `%XX`.
        skipped_paths: paths that were left out, since no client could restore them, or another became the same.
        skipped_refs: refs whose names cannot be branch names.
        merged_commits: git commits that became the same muse commit as another.
        latin1_texts: messages and author names that were not UTF-8.
        clamped_dates: dates after the year 9999, which were set to it.
        cut_off_commits: commits of a shallow clone that have lost their parents, whenever they were brought.
        head: the branch that HEAD names.
    """

    commits: int = 0
    new_commits: int = 0
    new_snapshots: int = 0
    new_blobs: int = 0
    branches: int = 0
    tags: int = 0
    annotated_tags: int = 0
    symlinks: int = 0
    executables: int = 0
    submodules: int = 0
    escaped_paths: int = 0
    skipped_paths: int = 0
    skipped_refs: int = 0
    merged_commits: int = 0
    latin1_texts: int = 0
    clamped_dates: int = 0
    cut_off_commits: int = 0
    head: str = ""

    def as_dict(self) -> dict[str, int | str]:
        """Return the counts by name."""
        return asdict(self)


class Policy:
    """Says what becomes of git's paths and texts, and counts it.

    Args:
        result: where it is counted.
    """

    def __init__(self, result: GitImport) -> None:
        self._result = result
        self._shown: dict[bytes, str | None] = {}
        self._taken: dict[str, bytes] = {}
        self._seen: dict[bytes, set[bytes]] = {SYMLINK: set(), EXECUTABLE: set(), SUBMODULE: set()}

    def change(self, change: GitChange) -> tuple[str | None, bool]:
        """Return the path that a change is about, None where it is left out, and whether it is gone then."""
        if change.mode in self._seen:
            self._seen[change.mode].add(change.path)
        return self.path(change.path), change.mode in {DELETED, SUBMODULE}

    def text(self, text: bytes) -> str:
        """Return a message or a name."""
        try:
            return text.decode()
        except UnicodeDecodeError:
            self._result.latin1_texts += 1
            return text.decode("latin-1")

    def date(self, committed: bytes) -> str:
        """Return `committed_at`."""
        date, clamped = muse_date(committed)
        self._result.clamped_dates += clamped
        return date

    def finish(self) -> None:
        """Count the paths of each kind."""
        for mode, name in ((SYMLINK, "symlinks"), (EXECUTABLE, "executables"), (SUBMODULE, "submodules")):
            setattr(self._result, name, len(self._seen[mode]))

    def path(self, path: bytes) -> str | None:
        """Return the path that git's becomes; None where it is left out."""
        if path not in self._shown:
            shown = muse_path(path)
            restorable = unsafe_path(shown) is None
            if restorable and "%" in shown:
                # A name of git may be what another one becomes: one file in two places would be neither.
                restorable = self._taken.setdefault(shown, path) == path
            self._result.skipped_paths += not restorable
            self._result.escaped_paths += restorable and shown.encode() != path
            self._shown[path] = shown if restorable else None
        return self._shown[path]


def muse_path(path: bytes) -> str:
    """Return a manifest path for a path of git, with `%XX` for each byte that a client could not restore."""
    text = path.decode("utf-8", "surrogateescape")
    if unsafe_path(text) is None:
        return text
    segments = []
    for segment in text.split("/"):
        shown = "".join(_escaped(char) if _IN_THE_WAY.match(char) else char for char in segment)
        segments.append("%2E" + shown[1:] if segment.casefold() == ".muse" else shown)
    return "/".join(segments)


def muse_date(committed: bytes) -> tuple[str, bool]:
    """Return a git date as `committed_at`, and whether it had to be cut to the year 9999.

    Args:
        committed: seconds since 1970 in decimal digits.

    Raises:
        ValueError: it is no number.
    """
    seconds = int(committed or b"0")
    try:
        date = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC).isoformat(timespec="microseconds"), True
    return date.isoformat(timespec="microseconds"), False


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
