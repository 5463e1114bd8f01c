"""Manifests that are too wide for memory, as mappings that are read from a file, sorted by path.

What takes a manifest takes one of these, or a dict: which it is, the reader of a pack decides.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, ValuesView
from itertools import islice
from typing import Final, Generic, Self, TypeVar

from musehub_plugin import ids
from musehub_plugin.mpack.pages import PageFile, PageHasher, SortedPages

# So many are changed at a time.
PIECE: Final = 1 << 13
Value = TypeVar("Value", str, int)


class WideMap(Mapping[str, Value], Generic[Value]):
    """A mapping of paths in pages.

    Args:
        pages: what it has.

    Attributes:
        pages: what it has, each value as text.
    """

    def __init__(self, pages: SortedPages) -> None:
        self.pages = pages

    @staticmethod
    @abstractmethod
    def encoded(value: Value) -> bytes:
        """Return the text of a value."""

    @staticmethod
    @abstractmethod
    def decoded(text: bytes) -> Value:
        """Return the value that has a text."""

    @classmethod
    def of(cls, entries: Mapping[str, Value], file: PageFile) -> Self:
        """Return a mapping with the entries of another one."""
        made = cls(SortedPages(file))
        made.set(entries.items())
        return made

    def __len__(self) -> int:
        return len(self.pages)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the paths, sorted."""
        for path, _ in self.pages.items():
            yield path.decode()

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self.pages.get(path.encode()) is not None

    def __getitem__(self, path: str) -> Value:
        text = self.pages.get(path.encode())
        if text is None:
            raise KeyError(path)
        return self.decoded(text)

    def items(self) -> ItemsView[str, Value]:
        """Return the entries, which come sorted by path."""
        return _Items(self)

    def values(self) -> ValuesView[Value]:
        """Return the values, in the order of the paths."""
        return _Values(self)

    def entries(self) -> Iterator[tuple[str, Value]]:
        """Yield the entries as they are now, sorted by path."""
        decoded = self.decoded
        for path, text in self.pages.items():
            yield path.decode(), decoded(text)

    def copy(self) -> Self:
        """Return a mapping with the same entries, to be changed on its own."""
        return type(self)(self.pages.copy())

    def get_many(self, paths: Iterable[str]) -> dict[str, Value]:
        """Return the entries of those paths that are there."""
        found = self.pages.get_many([path.encode() for path in paths])
        return {path.decode(): self.decoded(text) for path, text in found.items()}

    def set(self, entries: Iterable[tuple[str, Value]]) -> None:
        """Add entries, or give existing ones other values.

        Raises:
            ValueError: there is a NUL in a path.
        """
        rest, encoded = iter(entries), self.encoded
        while some := {path.encode(): encoded(value) for path, value in islice(rest, PIECE)}:
            self.pages.update(some)

    def follow(self, removed: Iterable[str], changed: Mapping[str, Value], *, full: bool) -> None:
        """Become the next of a run of manifests.

        Args:
            removed: paths that it lacks.
            changed: what it adds or replaces.
            full: start from the empty manifest.
        """
        if full and isinstance(changed, WideMap):
            self.pages = changed.pages.copy()
            return
        if full:
            self.pages = SortedPages(self.pages.file)
        self.remove(removed)
        self.set(changed.items())

    def remove(self, paths: Iterable[str]) -> None:
        """Remove entries; a path that is not there is no error."""
        rest = iter(paths)
        while some := {path.encode(): None for path in islice(rest, PIECE)}:
            self.pages.update(some)


class WideManifest(WideMap[str]):
    """A manifest `{path: object_id}`."""

    def snapshot_id(self) -> str:
        """Return its id."""
        return ids.from_digest(PageHasher().digest(self.pages))

    @staticmethod
    def encoded(value: str) -> bytes:
        """Return the hex digits of an id."""
        return ids.to_hex(value).encode()

    @staticmethod
    def decoded(text: bytes) -> str:
        """Return the id that has these digits."""
        return ids.PREFIX + text.decode()


class WideRefs(WideMap[int]):
    """A manifest as a pack has it: objects as ordinals."""

    @staticmethod
    def encoded(value: int) -> bytes:
        """Return the decimal digits of an ordinal."""
        return b"%d" % value

    @staticmethod
    def decoded(text: bytes) -> int:
        """Return the ordinal that has these digits."""
        return int(text)


class WidePaths(Collection[str]):
    """Paths, each once.

    Args:
        pages: which they are; their values say nothing.
    """

    def __init__(self, pages: SortedPages) -> None:
        self._pages = pages

    def __len__(self) -> int:
        return len(self._pages)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the paths, sorted."""
        for path, _ in self._pages.items():
            yield path.decode()

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self._pages.get(path.encode()) is not None

    def add(self, paths: Collection[str]) -> None:
        """Add some."""
        self._pages.update({path.encode(): b"" for path in paths})


def with_paths(paths: list[str] | WidePaths, more: list[str], file: PageFile) -> list[str] | WidePaths:
    """Return paths and some more: the same object, or where it has become too much for memory, one in a file."""
    if isinstance(paths, list):
        if len(paths) + len(more) <= PIECE:
            paths += more
            return paths
        before, paths = paths, WidePaths(SortedPages(file))
        paths.add(before)
    paths.add(more)
    return paths


def with_refs(refs: dict[str, int] | WideRefs, more: Mapping[str, int], file: PageFile) -> dict[str, int] | WideRefs:
    """Return ordinals and some more, as `with_paths` does.

    Raises:
        ValueError: there is a NUL in a path.
    """
    if isinstance(refs, dict):
        if len(refs) + len(more) <= PIECE:
            refs.update(more)
            return refs
        refs = WideRefs.of(refs, file)
    refs.set(more.items())
    return refs


class _Items(ItemsView[str, Value]):
    _mapping: WideMap[Value]

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return self._mapping.entries()


class _Values(ValuesView[Value]):
    _mapping: WideMap[Value]

    def __iter__(self) -> Iterator[Value]:
        for _, value in self._mapping.entries():
            yield value
