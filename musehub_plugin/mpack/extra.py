"""The further fields of a commit: any map that msgpack can hold, carried unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from musehub_plugin.mpack.bounded import decode_value
from musehub_plugin.mpack.limits import Limits, MPackError

CORE_FIELDS = frozenset(
    {"commit_id", "parent_ids", "snapshot_id", "branch", "message", "author", "committed_at"},
)


def _canonical(value: Any, path: str, depth: int) -> Any:
    """Return `value` with the keys of all maps sorted, so that equal values have equal bytes."""
    kind = type(value)
    if value is None or kind in (bool, float, str, bytes):
        return value
    if kind is int:
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError(f"{path} is an integer that msgpack cannot hold")
        return value
    if depth == 0:
        raise ValueError(f"{path} is nested too deep")
    if isinstance(value, Mapping):
        if not all(type(key) is str for key in value):
            raise ValueError(f"{path} has a key that is no string")
        return {key: _canonical(value[key], f"{path}.{key:.40}", depth - 1) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_canonical(item, f"{path}[{n}]", depth - 1) for n, item in enumerate(value)]
    raise ValueError(f"{path} is of type {kind.__name__}, which an mpack cannot hold")


def encode_extra(record: Mapping[str, Any], limits: Limits) -> bytes:
    """Return the msgpack of a commit record's further fields, empty where it has none.

    Raises:
        ValueError: a field holds what msgpack cannot, or is over a limit.
    """
    if CORE_FIELDS.issuperset(record):
        return b""
    extra = {key: value for key, value in record.items() if key not in CORE_FIELDS}
    raw: bytes = msgpack.packb(_canonical(extra, "commit", limits.max_extra_depth))
    if len(raw) > limits.max_extra_size:
        raise ValueError(f"the further fields of a commit are {len(raw)} bytes, over {limits.max_extra_size}")
    return raw


def decode_extra(raw: bytes, where: str, limits: Limits) -> dict[str, Any]:
    """Return the further fields of a commit.

    Raises:
        MPackError: they are no map, or name a field that has its own place.
    """
    if not raw:
        return {}
    extra = decode_value(raw, where, max_items=limits.max_extra_items, max_depth=limits.max_extra_depth)
    if type(extra) is not dict:
        raise MPackError(f"{where}: the further fields are no map")
    if not CORE_FIELDS.isdisjoint(extra):
        raise MPackError(f"{where}: a further field has the name of a field of every commit")
    return extra
