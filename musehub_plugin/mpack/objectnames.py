"""The objects that manifests of a pack name by an ordinal."""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from musehub_plugin import ids
from musehub_plugin.mpack.digestlist import DigestList

if TYPE_CHECKING:
    from musehub_plugin.mpack.wide import WideRefs

# 4 MiB of hex digits; of a pack of more objects they are made one by one.
_KEPT_HEX: Final = 1 << 16


class ObjectNames:
    """What an ordinal stands for: a blob of the pack, an object outside of it, or one of a thin pack's bases.

    Args:
        blobs: the blobs of the pack, from ordinal 0 on.
        outside: the objects that the pack does not hold, from the next one on.
        held: ids of the objects of the bases, from ordinal -1 down.
    """

    def __init__(self, blobs: DigestList, outside: DigestList, held: Sequence[str]) -> None:
        self._blobs = blobs
        self._outside = outside
        self._held = held

    def resolver(self) -> Callable[[dict[str, int] | WideRefs], Mapping[str, str]]:
        """Return what gives ids in place of ordinals: a dict for a dict, and for a wide manifest one in a file."""
        blobs, outside, held = self._blobs, self._outside, self._held
        blob_count = len(blobs)
        from_digest = ids.from_digest
        object_hex = self.hexer()

        def resolved(changed: dict[str, int] | WideRefs) -> Mapping[str, str]:
            if isinstance(changed, dict):
                return {
                    path: from_digest(blobs[ref] if ref < blob_count else outside[ref - blob_count])
                    if ref >= 0
                    else held[-1 - ref]
                    for path, ref in changed.items()
                }
            from musehub_plugin.mpack.wide import WideManifest

            return WideManifest(changed.pages.mapped(lambda refs: [object_hex(int(ref)) for ref in refs]))

        return resolved

    def hexer(self) -> Callable[[int], bytes]:
        """Return what gives the hex digits of an object's id, by its ordinal."""
        blobs, outside, held = self._blobs, self._outside, self._held
        blob_count = len(blobs)
        few = blob_count + len(outside) <= _KEPT_HEX
        digits = b""

        def object_hex(ref: int) -> bytes:
            nonlocal digits
            if ref < 0:
                return ids.to_hex(held[-1 - ref]).encode()
            if few:
                digits = digits or hexlify(blobs.part(0, blob_count) + outside.part(0, len(outside)))
                return digits[64 * ref : 64 * ref + 64]
            return hexlify(blobs[ref] if ref < blob_count else outside[ref - blob_count])

        return object_hex
