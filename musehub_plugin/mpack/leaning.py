"""What a writer of thin packs leans on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from musehub_plugin import ids
from musehub_plugin.mpack.limits import Limits
from musehub_plugin.mpack.thin import MAX_BASES, MAX_PREFIX_BLOBS, MAX_PREFIX_BYTES, MIN_PREFIX_BYTES, Bases, Prefix

# A reader sorts the paths of all bases, at about a microsecond each.
_BASES_PATHS = 1 << 18
# On 1,000 commits of a real history 512 KiB took 12 % fewer bytes than 4 MiB, and 1 % fewer than 128 KiB.
_PREFIX_BYTES = 1 << 19


class BaseBlob(NamedTuple):
    """A blob that the receiver holds.

    Attributes:
        number: which of the writer's bases has it.
        path: where in its manifest.
        content: its bytes.
    """

    number: int
    path: str
    content: bytes


def _fitting(manifests: Sequence[Mapping[str, str]], most: int) -> int:
    """Return how many of the first bases a reader can look through: of one more than of several."""
    paths = 0
    for number, manifest in enumerate(manifests[:MAX_BASES]):
        paths += len(manifest)
        if paths > (min(most, _BASES_PATHS) if number else most):
            return number
    return min(len(manifests), MAX_BASES)


class Leaning:
    """The bases of a pack that is written, and what its next frame of blobs is compressed against.

    Args:
        bases: id and manifest of each.
        limits: what a reader is taken to accept.

    Attributes:
        manifests: the manifests given.
        bases: the entries of those that are leaned on, the first ones.
        digests: the ids of these, each as 32 bytes.

    Raises:
        ValueError: a base is there twice, or its id is none.
    """

    def __init__(self, bases: Sequence[tuple[str, Mapping[str, str]]], limits: Limits) -> None:
        if len(dict(bases)) != len(bases):
            raise ValueError("a base is there twice")
        self.manifests = [manifest for _, manifest in bases]
        leaned_on = bases[: _fitting(self.manifests, limits.max_manifest_entries)]
        self.bases = Bases(manifest for _, manifest in leaned_on)
        self.digests = [ids.to_digest(snapshot_id) for snapshot_id, _ in leaned_on]
        self._prefix: dict[str, tuple[int, bytes]] = {}
        self._prefix_size = 0

    def add(self, base: BaseBlob) -> bool:
        """Add a blob to the prefix, unless it is there or too large; say False where it belongs to another frame.

        Raises:
            ValueError: there is no such base, or no such path in it.
        """
        number, path, content = base
        if len(self.bases) <= number < len(self.manifests):
            return True
        entry = self.bases.entry(number, path)
        object_id, size = self.bases.object_ids[entry], len(content)
        if object_id in self._prefix or size > MAX_PREFIX_BYTES:
            return True
        # A frame ends where its prefix gets long: what is far away in it is not found any more.
        if self._prefix and (self._prefix_size + size > _PREFIX_BYTES or len(self._prefix) == MAX_PREFIX_BLOBS):
            return False
        self._prefix[object_id] = entry, content
        self._prefix_size += size
        return True

    def take_prefix(self) -> Prefix | None:
        """Return the prefix of the frame that ends here, None where it has none, and begin the next one's."""
        prefix = None
        if self._prefix_size >= MIN_PREFIX_BYTES:
            entries, contents = zip(*self._prefix.values(), strict=True)
            prefix = Prefix(entries, contents)
        self._prefix = {}
        self._prefix_size = 0
        return prefix
