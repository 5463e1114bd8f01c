"""The order of blobs in a pack, which decides how small it gets."""

from __future__ import annotations

from collections.abc import Iterable


def solid_order(blobs: Iterable[tuple[str, int, str]]) -> list[str]:
    """Return object ids in the order in which a pack should hold them: by path, then by history.

    Versions of one file are then neighbours, oldest first, and a frame compresses each against the one before. The
    order does not depend on the order of `blobs`.

    Args:
        blobs: `(path, sequence, object_id)` for each place where a blob appears; `sequence` grows with history. A
            blob that appears more than once is placed where it sorts first.
    """
    return list(dict.fromkeys(object_id for _, _, object_id in sorted(blobs)))
