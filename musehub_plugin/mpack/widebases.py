"""The bases of a thin pack, where memory has no room for their manifests."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import overload

from musehub_plugin import ids
from musehub_plugin.mpack.pages import PageFile, SortedPages
from musehub_plugin.mpack.wide import WideManifest, WideRefs


class WideBases:
    """What a reader asks of `thin.Bases`.

    Args:
        folder: where a file is made; None: where the system has such files.

    Attributes:
        paths: the path of each entry.
        object_ids: the object of each entry.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = PageFile(folder)
        self._pages: list[SortedPages] = []
        self._starts = [0]
        self.paths: Sequence[str] = _Paths(self)
        self.object_ids: Sequence[str] = _Objects(self)

    def add(self, manifest: Mapping[str, str]) -> None:
        """Add the manifest `{path: object_id}` of the next base, in the order in which the pack names them."""
        wide = manifest if isinstance(manifest, WideManifest) else WideManifest.of(manifest, self._file)
        self._pages.append(wide.pages.copy())
        self._starts.append(self._starts[-1] + len(wide))

    def __len__(self) -> int:
        return len(self._pages)

    def span(self, number: int) -> range:
        """Return the numbers of the entries of one base."""
        return range(self._starts[number], self._starts[number + 1])

    def refs(self, number: int) -> WideRefs:
        """Return the manifest of one base, each object as -1 less the number of its entry."""
        entries = count(self._starts[number])
        return WideRefs(self._pages[number].mapped(lambda values: [b"%d" % (-1 - next(entries)) for _ in values]))

    def entry(self, number: int) -> tuple[bytes, bytes]:
        """Return the path and the hex digits of an entry.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= number < self._starts[-1]:
            raise IndexError(number)
        base = bisect_right(self._starts, number) - 1
        return self._pages[base].at(number - self._starts[base])


class _Column(Sequence[str]):
    def __init__(self, bases: WideBases) -> None:
        self._bases = bases

    def __len__(self) -> int:
        return self._bases.span(len(self._bases) - 1).stop if len(self._bases) else 0

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...

    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        return [self._value(number) for number in range(len(self))[at]] if isinstance(at, slice) else self._value(at)

    @abstractmethod
    def _value(self, number: int) -> str: ...


class _Paths(_Column):
    def _value(self, number: int) -> str:
        return self._bases.entry(number)[0].decode()


class _Objects(_Column):
    def _value(self, number: int) -> str:
        return ids.PREFIX + self._bases.entry(number)[1].decode()
