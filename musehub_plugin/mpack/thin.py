"""Thin packs: what a pack leaves out because the receiver holds it, and how it names that.

The pack names snapshots that the receiver holds, its *bases*. Their manifests' entries, each manifest sorted by path,
are numbered through; so a few bytes name a path, an object or the content of a blob.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgpack

from musehub_plugin.mpack.bounded import Columns
from musehub_plugin.mpack.limits import Limits, MPackError

if TYPE_CHECKING:
    from musehub_plugin.mpack.widebases import WideBases

FEATURE: Final = "thin"
MAX_BASES: Final = 64
# zstd takes no prefix of fewer bytes.
MIN_PREFIX_BYTES: Final = 8
MAX_PREFIX_BYTES: Final = 1 << 24
MAX_PREFIX_BLOBS: Final = 4096
# Finding a blob costs the receiver time, however small it is.
_LEAST_COST: Final = 1 << 12
_INTEGER_BYTES: Final = 9
# Paths of all bases above which they are in a file; in memory each takes some 300 bytes.
WIDE_BASES: Final = 1 << 15


class BaseProvider(Protocol):
    """What a reader of thin packs asks for what the receiver holds."""

    def manifest(self, snapshot_id: str) -> Mapping[str, str] | None:
        """Return a snapshot's manifest `{path: object_id}`; None where it is not held."""
        ...

    def blob(self, object_id: str, max_size: int) -> bytes | None:
        """Return a blob's bytes; None where it is not held or, without reading it, where it is over `max_size`."""
        ...


class Bases:
    """The entries of some manifests, numbered through.

    Args:
        manifests: `{path: object_id}` of each base, in the order in which the pack names them.

    Attributes:
        paths: the path of each entry.
        object_ids: the object of each entry.
    """

    def __init__(self, manifests: Iterable[Mapping[str, str]]) -> None:
        self.paths: list[str] = []
        self.object_ids: list[str] = []
        self._starts = [0]
        for manifest in manifests:
            for path, object_id in sorted(manifest.items()):
                self.paths.append(path)
                self.object_ids.append(object_id)
            self._starts.append(len(self.paths))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def span(self, number: int) -> range:
        """Return the numbers of the entries of one base."""
        return range(self._starts[number], self._starts[number + 1])

    def entry(self, number: int, path: str) -> int:
        """Return the number of the entry at a path of one base.

        Raises:
            ValueError: there is no such base, or no such path in it.
        """
        if 0 <= number < len(self):
            span = self.span(number)
            found = bisect_left(self.paths, path, span.start, span.stop)
            if found < span.stop and self.paths[found] == path:
                return found
        raise ValueError(f"base {number} has no path {path!r:.100}")

    @cached_property
    def by_path(self) -> dict[str, int]:
        """An entry with each path."""
        return {path: entry for entry, path in enumerate(self.paths)}

    @cached_property
    def by_object(self) -> dict[str, int]:
        """An entry with each object."""
        return {object_id: entry for entry, object_id in enumerate(self.object_ids)}

    def refs(self, number: int) -> dict[str, int]:
        """Return the manifest of one base, each object as -1 less the entry that `by_object` has for it."""
        return {self.paths[entry]: -1 - self.by_object[self.object_ids[entry]] for entry in self.span(number)}


class Prefix(NamedTuple):
    """What a frame of blobs is compressed against.

    Attributes:
        entries: numbers of the base entries whose blobs it is made of.
        contents: these blobs.
    """

    entries: Sequence[int]
    contents: Sequence[bytes]

    @property
    def cost(self) -> int:
        """What it counts for where the prefixes of a pack are bounded."""
        return sum(max(_LEAST_COST, len(content)) for content in self.contents)


def pack_entries(entries: Sequence[int]) -> bytes:
    """Return the bytes that name the blobs of a prefix: each entry as the step from the one after the entry before."""
    return bytes(msgpack.packb([entry - before - 1 for before, entry in zip((-1, *entries), entries, strict=False)]))


def unpack_entries(stored: bytes, where: str) -> tuple[list[int], int]:
    """Return the entries that a frame begins with, and the offset of what follows them.

    Raises:
        MPackError: it begins with something else.
    """
    columns = Columns(stored[: _INTEGER_BYTES * MAX_PREFIX_BLOBS + 5], where, None)
    bound = 1 << 32
    steps = columns.integers("base step", low=-bound, high=bound)
    if not 1 <= len(steps) <= MAX_PREFIX_BLOBS:
        raise MPackError(f"{where}: its prefix is made of {len(steps)} blobs, not of 1 to {MAX_PREFIX_BLOBS}")
    entries = []
    entry = -1
    for step in steps:
        entry += 1 + step
        entries.append(entry)
    return entries, columns.position


class BaseReader:
    """Gets what a thin pack leaves out, within bounds.

    Args:
        snapshot_ids: the pack's bases.
        provider: what holds them.
        limits: what is accepted.
        size_bytes: size of the pack's file.
        folder: where a file is made of manifests that memory has no room for; None: where the system has such files.
    """

    def __init__(
        self,
        snapshot_ids: Sequence[str],
        provider: BaseProvider,
        limits: Limits,
        size_bytes: int,
        folder: Path | None = None,
    ) -> None:
        self._folder = folder
        self._snapshot_ids = snapshot_ids
        self._provider = provider
        self._limits = limits
        self._allowed = limits.ratio_allowance + limits.max_ratio * size_bytes
        self._cost = 0
        # A frame that is read again is not counted again.
        self._counted: set[int] = set()

    @cached_property
    def bases(self) -> Bases | WideBases:
        """The manifests.

        Raises:
            MPackError: one is not held, or they are over the limit on the paths of a manifest.
        """
        manifests: list[Mapping[str, str]] = []
        wide: WideBases | None = None
        bound = self._limits.max_manifest_entries
        count = 0
        for snapshot_id in self._snapshot_ids:
            manifest = self._provider.manifest(snapshot_id)
            if manifest is None:
                raise MPackError(f"the pack starts from snapshot {snapshot_id}, which is not here")
            count += len(manifest)
            if count > bound:
                raise MPackError(f"the pack's bases have over {bound} paths")
            manifests.append(manifest)
            if count > WIDE_BASES or not isinstance(manifest, dict):
                # Here and not above: hardly any tree is so wide.
                from musehub_plugin.mpack.widebases import WideBases

                wide = wide or WideBases(self._folder)
                for each in manifests:
                    wide.add(each)
                manifests.clear()
        if wide is None:
            return Bases(manifests)
        for each in manifests:
            wide.add(each)
        return wide

    def prefix(self, frame: int, entries: Sequence[int], where: str) -> bytes:
        """Return what a frame is compressed against.

        Args:
            frame: ordinal of the frame.
            entries: numbers of base entries.
            where: which frame it is, for errors.

        Raises:
            MPackError: an entry does not exist, a blob is not held, or it is too much, in the frame or in the pack.
        """
        object_ids = self.bases.object_ids
        parts: list[bytes] = []
        size = 0
        for entry in entries:
            if not 0 <= entry < len(object_ids):
                raise MPackError(f"{where}: it refers to entry {entry} of {len(object_ids)} in the bases")
            content = self._provider.blob(object_ids[entry], MAX_PREFIX_BYTES - size)
            if content is None:
                raise MPackError(f"{where}: it needs blob {object_ids[entry]}, which is not here or too large for it")
            size += len(content)
            if size > MAX_PREFIX_BYTES:
                break
            if frame not in self._counted:
                self._cost += max(_LEAST_COST, len(content))
            # A small file must not make the receiver read its own blobs over and over.
            if self._cost > self._allowed:
                raise MPackError(f"{where}: the prefixes of the pack are over {self._limits.max_ratio} times its size")
            parts.append(content)
        if not MIN_PREFIX_BYTES <= size <= MAX_PREFIX_BYTES:
            raise MPackError(f"{where}: a prefix of {size} bytes is not from {MIN_PREFIX_BYTES} to {MAX_PREFIX_BYTES}")
        self._counted.add(frame)
        return b"".join(parts)
