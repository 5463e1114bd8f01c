"""Sorted maps of bytes to bytes that memory has no room for: pages of entries in a file without a name.

A page is never changed: a map that changes lets go of it and makes another, so that a copy of a map costs a list of its
pages. It is the text that a snapshot's id is hashed over: `key NUL value`, joined by NUL.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

_PAGE_BYTES: Final = 1 << 15
_SLOT_BYTES: Final = 1 << 13
# Read as dicts, some 100 KiB each.
_KEPT_PAGES: Final = 8


class PageFile:
    """The file; the places of pages that nobody uses any more are used again.

    Args:
        folder: where it is made; None: where the system has such files.

    Attributes:
        size: bytes of it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # Unbuffered: it is read and written at places.
        self._file = TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed with this object
        self.size = 0
        self._free: dict[int, list[int]] = {}
        self._kept: OrderedDict[int, dict[bytes, bytes]] = OrderedDict()

    def __del__(self) -> None:
        self._file.close()

    def put(self, text: bytes, first: bytes, count: int) -> Page:
        """Write a page: its text, its first key, and how many entries it has."""
        slots = -(-len(text) // _SLOT_BYTES)
        free = self._free.get(slots)
        place = free.pop() if free else self.size
        if place == self.size:
            self.size += slots * _SLOT_BYTES
        rest, at = memoryview(text), place
        while rest:
            written = os.pwrite(self._file.fileno(), rest, at)
            rest, at = rest[written:], at + written
        return Page(self, place, len(text), first, count)

    def read(self, place: int, size: int) -> bytes:
        """Return the bytes of a page."""
        data = os.pread(self._file.fileno(), size, place)
        while len(data) < size:
            more = os.pread(self._file.fileno(), size - len(data), place + len(data))
            if not more:
                raise OSError(f"a file of temporary data ends at byte {place + len(data)}")
            data += more
        return data

    def kept(self, page: Page) -> dict[bytes, bytes]:
        """Return the entries of a page, which stay for the next call; they must not be changed."""
        entries = self._kept.get(page.place)
        if entries is None:
            if len(self._kept) >= _KEPT_PAGES:
                self._kept.popitem(last=False)
            entries = self._kept[page.place] = page.entries()
        else:
            self._kept.move_to_end(page.place)
        return entries

    def let_go(self, place: int, size: int) -> None:
        """Note that a page is not used any more."""
        self._kept.pop(place, None)
        self._free.setdefault(-(-size // _SLOT_BYTES), []).append(place)


class Page:
    """Entries that follow one on the other.

    Attributes:
        place: where in its file.
        first: the first key.
        count: entries.
    """

    __slots__ = ("__weakref__", "_file", "_size", "count", "first", "place")

    def __init__(self, file: PageFile, place: int, size: int, first: bytes, count: int) -> None:
        self._file = file
        self._size = size
        self.place = place
        self.first = first
        self.count = count

    def __del__(self) -> None:
        self._file.let_go(self.place, self._size)

    def text(self) -> bytes:
        """Return what is hashed of it."""
        return self._file.read(self.place, self._size)

    def parts(self) -> list[bytes]:
        """Return its keys, each followed by its value."""
        return self.text().split(b"\0")

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield its entries."""
        parts = self.parts()
        return zip(parts[::2], parts[1::2], strict=True)

    def entries(self) -> dict[bytes, bytes]:
        """Return its entries as a dict of the caller's own."""
        return dict(self.rows())

    def kept(self) -> dict[bytes, bytes]:
        """Return its entries, which stay at hand for the next call; they must not be changed."""
        return self._file.kept(self)


class SortedPages:
    """A map, sorted by its keys.

    Args:
        file: where its pages are.
    """

    def __init__(self, file: PageFile) -> None:
        self.file = file
        self._count = 0
        self._pages: list[Page] = []
        # For who asks for entries by number; made when that is asked for.
        self._ends: list[int] = []
        self._last: tuple[int, list[bytes]] = (-1, [])

    def __len__(self) -> int:
        return self._count

    def copy(self) -> SortedPages:
        """Return a map with the same entries, to be changed on its own; it shares the pages."""
        twin = SortedPages(self.file)
        twin._pages, twin._count = self._pages.copy(), self._count
        return twin

    def pages(self) -> Sequence[Page]:
        """Return the pages in order; they stay as they are, whatever becomes of this map."""
        return self._pages.copy()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries in the order of their keys, as they are now."""
        for page in self.pages():
            yield from page.rows()

    def get(self, key: bytes) -> bytes | None:
        """Return what a key has; None where it is not there."""
        number = bisect_right(self._pages, key, key=_first) - 1
        return self._pages[number].kept().get(key) if number >= 0 else None

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the entries of those keys that are there."""
        found: dict[bytes, bytes] = {}
        for number, some in self._shared_out(sorted(keys)):
            if self._pages:
                entries = self._pages[number].kept()
                found.update((key, entries[key]) for key in some if key in entries)
        return found

    def at(self, number: int) -> tuple[bytes, bytes]:
        """Return the entry that has a number in the order of the keys.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= number < self._count:
            raise IndexError(number)
        if not self._ends:
            self._ends = list(accumulate(page.count for page in self._pages))
        page = bisect_right(self._ends, number)
        within = number - (self._ends[page - 1] if page else 0)
        # Who asks for one asks for the next one next.
        if self._last[0] != page:
            self._last = (page, self._pages[page].parts())
        parts = self._last[1]
        return parts[2 * within], parts[2 * within + 1]

    def update(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Set entries, and remove those of which the value is None.

        Raises:
            ValueError: there is a NUL in a key or a value.
        """
        pages: list[Page] = []
        done = 0
        for number, keys in self._shared_out(sorted(changes)):
            entries = self._pages[number].entries() if self._pages else {}
            pages += self._pages[done:number]
            done = number + 1
            for key in keys:
                value = changes[key]
                if value is None:
                    entries.pop(key, None)
                else:
                    entries[key] = value
            pages += self._made(sorted(entries.items()))
        self._become(pages + self._pages[done:])

    def append(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Add entries whose keys ascend, and follow on those that are there.

        Raises:
            ValueError: as `update`.
        """
        self._become(self._pages + self._made(entries))

    def mapped(self, change: Callable[[list[bytes]], list[bytes]]) -> SortedPages:
        """Return a map with the same keys, and what `change` gives for the values of each page."""
        made = SortedPages(self.file)
        pages: list[Page] = []
        for page in self._pages:
            parts = page.parts()
            pages += made._made(zip(parts[::2], change(parts[1::2]), strict=True))
        made._become(pages)
        return made

    def _become(self, pages: list[Page]) -> None:
        self._pages = pages
        self._count = sum(page.count for page in pages)
        self._ends = []
        self._last = (-1, [])

    def _shared_out(self, keys: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the numbers of the pages to which sorted keys belong, each with its keys."""
        start = 0
        pages = self._pages
        while start < len(keys):
            number = max(0, bisect_right(pages, keys[start], key=_first) - 1)
            end = bisect_left(keys, pages[number + 1].first, start) if number + 1 < len(pages) else len(keys)
            yield number, keys[start:end]
            start = end

    def _made(self, entries: Iterable[tuple[bytes, bytes]]) -> list[Page]:
        """Write sorted entries to pages of about the same size."""
        keyed = list(entries)
        rows = list(map(b"\0".join, keyed))
        ends = list(accumulate(map(len, rows)))
        total = ends[-1] if ends else 0
        # One page takes half as much again before it becomes two.
        parts = max(1, round(total / _PAGE_BYTES))
        cuts = sorted({0, len(rows), *(bisect_left(ends, total * part // parts) for part in range(1, parts))})
        made = []
        for start, end in pairwise(cuts):
            text = b"\0".join(rows[start:end])
            if text.count(b"\0") != 2 * (end - start) - 1:
                raise ValueError("a path holds a NUL")
            made.append(self.file.put(text, keyed[start][0], end - start))
        return made


class PageHasher:
    """Hashes maps that share pages: what was hashed before the first page that changed is not hashed again."""

    def __init__(self) -> None:
        self._pages: list[Page] = []
        self._states: list[hashlib._Hash] = []

    def digest(self, entries: SortedPages) -> bytes:
        """Return the SHA-256 digest of a map's text: of its entries, joined by NUL."""
        pages = entries.pages()
        # A state has the NUL after its page, and so is of use only where another follows.
        same = 0
        for before, page in zip(self._pages, pages[:-1], strict=False):
            if before is not page:
                break
            same += 1
        del self._states[same:], self._pages[same:]
        digest = self._states[-1].copy() if self._states else hashlib.sha256()
        for page in pages[same:-1]:
            digest.update(page.text() + b"\0")
            self._states.append(digest.copy())
            self._pages.append(page)
        if pages:
            digest.update(pages[-1].text())
        return digest.digest()


def _first(page: Page) -> bytes:
    return page.first
