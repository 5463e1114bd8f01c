"""The paths of one manifest after another: whether a client could restore each tree, at the cost of what changes.

A path that is also a folder of another one stands directly before something that is in it, where paths are sorted with
`/` before every other character. So a path that is new is held against the two that it comes between.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING

from musehub_plugin.mpack import SnapshotDelta
from musehub_plugin.names import IS_FOLDER, unsafe_path

if TYPE_CHECKING:
    from musehub_plugin.mpack.pages import SortedPages

# NUL is in no path.
_SWAPPED = str.maketrans("/\x01", "\x01/")
# Beyond so many changes, and a sixteenth of the paths, all are sorted anew.
_FEW = 32
# New paths of a tree in a file that are taken at a time.
_PIECE = 1 << 13


class TreePaths:
    """The paths of the manifest that was looked at last.

    Those of a manifest that is too wide for memory are in a file; of others a string for each is in memory.
    """

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._pages: SortedPages | None = None

    def follow(self, delta: SnapshotDelta) -> tuple[str, str] | None:
        """Become the next of a run of manifests.

        Args:
            delta: what it changes from the one before.

        Returns:
            A path that no client could restore safely, with the reason; None where there is none.
        """
        if delta.is_wide:
            return self._follow_wide(delta)
        self._pages = None
        if delta.full:
            self._keys = []
        if len(delta.removed) + len(delta.changed) > _FEW + len(self._keys) // 16:
            return self._become(set(self._keys).difference(map(_key, delta.removed)), delta.changed)
        keys = self._keys
        for path in delta.removed:
            del keys[bisect_left(keys, _key(path))]
        for path in delta.changed:
            key = _key(path)
            at = bisect_left(keys, key)
            if at < len(keys) and keys[at] == key:
                continue
            if (reason := unsafe_path(path)) is not None:
                return path, reason
            folder = _folder([*keys[max(at - 1, 0) : at], key, *keys[at : at + 1]])
            if folder is not None:
                return folder, IS_FOLDER
            keys.insert(at, key)
        return None

    def _become(self, kept: set[str], changed: Iterable[str]) -> tuple[str, str] | None:
        for path in changed:
            if (reason := unsafe_path(path)) is not None:
                return path, reason
        self._keys = sorted(kept.union(map(_key, changed)))
        folder = _folder(self._keys)
        return None if folder is None else (folder, IS_FOLDER)

    def _follow_wide(self, delta: SnapshotDelta) -> tuple[str, str] | None:
        from musehub_plugin.mpack.pages import PageFile, SortedPages

        if self._pages is None or delta.full:
            self._pages = SortedPages(PageFile() if self._pages is None else self._pages.file)
            if not delta.full:
                self._pages.append((key.encode(), b"") for key in self._keys)
            self._keys = []
        pages = self._pages
        for some in _pieces(delta.removed):
            pages.update({_key(path).encode(): None for path in some})
        for some in _pieces(delta.changed):
            keys = {_key(path).encode(): path for path in some}
            new = sorted(keys.keys() - pages.get_many(keys))
            for key in new:
                if (reason := unsafe_path(keys[key])) is not None:
                    return keys[key], reason
            if new:
                pages.update(dict.fromkeys(new, b""))
                folder = next(filter(None, map(_folder, _around(pages, new))), None)
                if folder is not None:
                    return folder, IS_FOLDER
        return None


def _key(path: str) -> str:
    """Return what a path is sorted by: itself with the separator before all else; the key of the key is the path."""
    return path.translate(_SWAPPED)


def _folder(keys: Sequence[str]) -> str | None:
    """Return the first of sorted paths that is a folder of the one after it."""
    for key, after in pairwise(keys):
        if after.startswith(key) and after[len(key)] == "\x01":
            return _key(key)
    return None


def _around(pages: SortedPages, new: Sequence[bytes]) -> Iterator[Sequence[str]]:
    """Yield the pages that have any of sorted keys, each with the key before it and the one after it."""
    there = pages.pages()
    starts = [page.first for page in there]
    at = 0
    while at < len(new):
        number = bisect_right(starts, new[at]) - 1
        before = there[number - 1].parts()[-2:-1] if number else []
        after = starts[number + 1 : number + 2]
        yield [key.decode() for key in chain(before, there[number].parts()[::2], after)]
        at = bisect_left(new, after[0], at) if after else len(new)


def _pieces(paths: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(paths)
    while some := list(islice(rest, _PIECE)):
        yield some
