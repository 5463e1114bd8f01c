"""What one manifest changes from another, where memory has no room for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path

from musehub_plugin import ids
from musehub_plugin.mpack.pages import Page, PageFile, SortedPages
from musehub_plugin.mpack.wide import PIECE, WideManifest, WidePaths, WideRefs, with_paths, with_refs


def both_wide(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[WideManifest, WideManifest]:
    """Return two manifests as ones that are read from a file; one of them is."""
    file = next(each.pages.file for each in (now, before) if isinstance(each, WideManifest))
    wide = [each if isinstance(each, WideManifest) else WideManifest.of(each, file) for each in (before, now)]
    return wide[0], wide[1]


def followed(
    before: Mapping[str, str], removed: Collection[str], changed: Mapping[str, str], folder: Path | None
) -> tuple[WideManifest, WideManifest]:
    """Return a manifest and the one that follows on it, as ones that are read from a file.

    Args:
        before: the manifest before.
        removed: paths that are gone, but those that are in `changed` too.
        changed: what is new or different.
        folder: where a file is made; None: where the system has such files.

    Raises:
        ValueError: a removed path was not there.
    """
    if not isinstance(before, WideManifest):
        file = changed.pages.file if isinstance(changed, WideManifest) else PageFile(folder)
        before = WideManifest.of(before, file)
    now = before.copy()
    gone = (path for path in removed if path not in changed)
    while some := list(islice(gone, PIECE)):
        there = now.get_many(some)
        for path in some:
            if path not in there:
                raise ValueError(f"removes {path!r:.100}, which is not there")
        now.remove(some)
    now.follow((), changed, full=not len(now))
    return before, now


def wide_change(
    before: WideManifest, now: WideManifest, ordinal: Callable[[str], int], max_path_size: int
) -> tuple[Collection[str], Mapping[str, int]]:
    """Return the paths that are gone, and the objects of those that are new or different; both sorted by path.

    Args:
        before: the manifest before.
        now: the manifest.
        ordinal: gives an object's ordinal.
        max_path_size: bytes that a new path may have.

    Raises:
        ValueError: a path has more.
    """
    file = now.pages.file
    removed: list[str] | WidePaths = []
    changed: dict[str, int] | WideRefs = {}
    rest = differing(before.pages, now.pages)
    while some := list(islice(rest, PIECE)):
        gone = [path.decode() for path, _, new in some if new is None]
        for path, old, new in some:
            if old is None and new is not None and len(path) > max_path_size:
                raise ValueError(f"path {path.decode()!r:.100} is over {max_path_size} bytes")
        refs = {path.decode(): ordinal(ids.PREFIX + new.decode()) for path, _, new in some if new is not None}
        removed, changed = with_paths(removed, gone, file), with_refs(changed, refs, file)
    return removed, changed


def differing(before: SortedPages, now: SortedPages) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Yield the keys of which the values differ, with the value before and the value now; None where there is none.

    Pages that both have are not looked at.
    """
    shared = set(map(id, before.pages())) & set(map(id, now.pages()))
    old, new = _rows(before.pages(), shared), _rows(now.pages(), shared)
    left, right = next(old, None), next(new, None)
    while left is not None and right is not None:
        if left[0] < right[0]:
            yield left[0], left[1], None
            left = next(old, None)
        elif right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(new, None)
        else:
            if left[1] != right[1]:
                yield left[0], left[1], right[1]
            left, right = next(old, None), next(new, None)
    while left is not None:
        yield left[0], left[1], None
        left = next(old, None)
    while right is not None:
        yield right[0], None, right[1]
        right = next(new, None)


def _rows(pages: Collection[Page], shared: Collection[int]) -> Iterator[tuple[bytes, bytes]]:
    for page in pages:
        if id(page) not in shared:
            yield from page.rows()
