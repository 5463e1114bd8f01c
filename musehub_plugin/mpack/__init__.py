"""The mpack format: one immutable file of commits, snapshots and blobs. Bytes in, bytes out, nothing else.

`docs/mpack-format.md` specifies the file. A pack is written by `MPackWriter` and read by `MPackReader`, both in
bounded memory; `build_wire_mpack` and `parse_wire_mpack` do the same for packs that fit in memory.

What only writers need is loaded when it is first used: a client that reads packs starts the sooner.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from musehub_plugin.mpack.entities import BlobEntry, SnapshotDelta
from musehub_plugin.mpack.layout import Codec, Frame, Kind
from musehub_plugin.mpack.limits import Limits, MPackError
from musehub_plugin.mpack.packfile import Source
from musehub_plugin.mpack.reader import Blob, MPackReader
from musehub_plugin.mpack.thin import BaseProvider
from musehub_plugin.mpack.verify import (
    FalseIdError,
    blob_shares,
    verified_commits,
    verified_snapshots,
    verify,
    verify_blobs,
    verify_commits,
    verify_snapshots,
)

if TYPE_CHECKING:
    from musehub_plugin.mpack.emitter import Sink
    from musehub_plugin.mpack.leaning import BaseBlob
    from musehub_plugin.mpack.order import solid_order
    from musehub_plugin.mpack.wire import WIRE_LIMITS, build_wire_mpack, parse_wire_mpack
    from musehub_plugin.mpack.writer import MPackWriter, PackSummary

# No module here has the name of a thing that it gives: importing it would put the module in its place.
_MODULES = {
    "Sink": "emitter",
    "solid_order": "order",
    "WIRE_LIMITS": "wire",
    "build_wire_mpack": "wire",
    "parse_wire_mpack": "wire",
    "BaseBlob": "leaning",
    "MPackWriter": "writer",
    "PackSummary": "writer",
}

__all__ = [
    "WIRE_LIMITS",
    "BaseBlob",
    "BaseProvider",
    "Blob",
    "BlobEntry",
    "Codec",
    "FalseIdError",
    "Frame",
    "Kind",
    "Limits",
    "MPackError",
    "MPackReader",
    "MPackWriter",
    "PackSummary",
    "Sink",
    "SnapshotDelta",
    "Source",
    "blob_shares",
    "build_wire_mpack",
    "parse_wire_mpack",
    "solid_order",
    "verified_commits",
    "verified_snapshots",
    "verify",
    "verify_blobs",
    "verify_commits",
    "verify_snapshots",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
