"""Msgpack from strangers: values of which only size, count and depth are bounded, and typed columns.

A msgpack decoder allocates what an array header announces, and builds what it does not want. So values of free form
are walked over before they are decoded, and columns are pulled one by one with no container allowed inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NoReturn

import msgpack

from musehub_plugin.mpack.limits import MPackError

_FIXED_SIZE = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip
_STRING_LENGTH = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_SHORT = 1 << 10
_FORBIDDEN = bytes([0xC1, *range(0xC7, 0xCA), *range(0xD4, 0xD9)])
_CONTAINERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
_CONTAINER_LENGTH = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _check_shape(data: bytes, where: str, max_items: int, max_depth: int) -> None:
    """Walk over one msgpack value without building it, so that decoding it afterwards costs what was allowed."""
    position = 0
    items = 0
    open_counts = [1]  # values still missing at each level
    size = len(data)
    while open_counts:
        if open_counts[-1] == 0:
            open_counts.pop()
            continue
        open_counts[-1] -= 1
        if position >= size:
            raise MPackError(f"{where}: the msgpack is cut off at byte {position}")
        items += 1
        if items > max_items:
            raise MPackError(f"{where}: more than {max_items} values")
        first = data[position]
        position += 1
        children = 0
        if first <= 0x7F or first >= 0xE0:
            continue
        if first <= 0x8F:
            children = 2 * (first & 0x0F)
        elif first <= 0x9F:
            children = first & 0x0F
        elif first <= 0xBF:
            position += first & 0x1F
            continue
        elif first in _FIXED_SIZE:
            position += _FIXED_SIZE[first]
            continue
        elif first in _STRING_LENGTH:
            width = _STRING_LENGTH[first]
            position += width + int.from_bytes(data[position : position + width], "big")
            continue
        elif first in _CONTAINER_LENGTH:
            width, each = _CONTAINER_LENGTH[first]
            children = each * int.from_bytes(data[position : position + width], "big")
            position += width
        else:
            raise MPackError(f"{where}: msgpack type 0x{first:02x} at byte {position - 1} is not allowed")
        if len(open_counts) > max_depth:
            raise MPackError(f"{where}: nested more than {max_depth} deep")
        if children > size - position:
            raise MPackError(f"{where}: a container at byte {position} announces more than there is")
        open_counts.append(children)
    if position > size:
        raise MPackError(f"{where}: the msgpack is cut off at byte {size}")
    if position < size:
        raise MPackError(f"{where}: {size - position} bytes follow the msgpack value")


def _is_harmless(data: bytes, max_items: int, max_depth: int) -> bool:
    """Say whether a value needs no walk: it is short, and has too few bytes that could begin a container to be deep.

    Then it holds no more values than it has bytes, and the decoder lets no container announce more than that.
    """
    size = len(data)
    if size > _SHORT or size > max_items or len(data.translate(None, _FORBIDDEN)) < size:
        return False
    return size - len(data.translate(None, _CONTAINERS)) <= max_depth


def _string_keyed(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if type(key) is not str:
            raise MPackError(f"a map has a key of type {type(key).__name__}")
        if key in result:
            raise MPackError(f"a map has the key {key!r:.60} twice")
        result[key] = value
    return result


def decode_value(data: bytes, where: str, *, max_items: int, max_depth: int) -> Any:
    """Decode one msgpack value of any form: no extension types, string keys only and each once, nothing after it.

    Args:
        data: the msgpack.
        where: what it is, for the error.
        max_items: values in it, containers and keys counted.
        max_depth: containers inside one another.

    Raises:
        MPackError: it is something else.
    """
    if _is_harmless(data, max_items, max_depth):
        try:
            return msgpack.unpackb(data, raw=False, strict_map_key=False, object_pairs_hook=_string_keyed)
        except (ValueError, msgpack.UnpackException):
            # The walk says what is wrong with it.
            pass
    _check_shape(data, where, max_items, max_depth)
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False, object_pairs_hook=_string_keyed)
    except (ValueError, msgpack.UnpackException) as error:
        raise MPackError(f"{where}: {error}") from error


def _refuse(*_: object) -> NoReturn:
    raise MPackError("a container or an extension type where a plain value belongs")


class Columns:
    """Pulls the columns of a metadata frame, one msgpack array, in their order.

    Args:
        raw: the frame's decompressed bytes.
        where: which frame it is, for errors.
        count: columns that it must have; None where they are not in an array of their own.

    Raises:
        MPackError: here and in every method, where the bytes are not what was asked for.
    """

    def __init__(self, raw: bytes, where: str, count: int | None) -> None:
        self._where = where
        self._size = len(raw)
        self._unpacker = msgpack.Unpacker(
            None,
            raw=False,
            strict_map_key=False,
            list_hook=_refuse,
            object_hook=_refuse,
            ext_hook=_refuse,
            max_buffer_size=max(1, len(raw)),
            max_str_len=len(raw),
            max_bin_len=len(raw),
            max_array_len=0,
            max_map_len=0,
            max_ext_len=0,
        )
        self._unpacker.feed(raw)
        if count is not None and (found := self._header("the frame")) != count:
            raise MPackError(f"{where}: {found} columns, not {count}")

    def _header(self, name: str) -> int:
        try:
            length: int = self._unpacker.read_array_header()
        except (ValueError, msgpack.UnpackException) as error:
            raise MPackError(f"{self._where}: {name} is no array") from error
        if length > self._size:
            raise MPackError(f"{self._where}: {name} announces {length} values in {self._size} bytes")
        return length

    def _values(self, name: str, count: int | None) -> list[Any]:
        length = self._header(name)
        if count is not None and length != count:
            raise MPackError(f"{self._where}: {name} has {length} values, not {count}")
        try:
            values = list(islice(self._unpacker, length))
        except (ValueError, msgpack.UnpackException) as error:
            raise MPackError(f"{self._where}: {name}: {error}") from error
        if len(values) != length:
            raise MPackError(f"{self._where}: {name} is cut off after {len(values)} of {length} values")
        return values

    def _check_types(self, name: str, values: list[Any], wanted: type) -> None:
        if not set(map(type, values)) <= {wanted}:
            ordinal = next(i for i, value in enumerate(values) if type(value) is not wanted)
            found = type(values[ordinal]).__name__
            raise MPackError(f"{self._where}: {name} {ordinal} is of type {found}, not {wanted.__name__}")

    def integers(self, name: str, *, count: int | None = None, low: int, high: int) -> list[int]:
        """Return a column of integers, each from `low` to `high`."""
        values = self._values(name, count)
        self._check_types(name, values, int)
        if values and (min(values) < low or max(values) > high):
            ordinal = next(i for i, value in enumerate(values) if not low <= value <= high)
            raise MPackError(f"{self._where}: {name} {ordinal} is {values[ordinal]}, not from {low} to {high}")
        return values

    def strings(self, name: str, *, count: int | None = None, max_bytes: int) -> list[str]:
        """Return a column of strings, each of at most `max_bytes` bytes of UTF-8."""
        return self._bounded_strings(name, self._values(name, count), max_bytes)

    def _bounded_strings(self, name: str, values: list[Any], max_bytes: int) -> list[str]:
        self._check_types(name, values, str)
        # A character takes four bytes at most: the exact test is for columns with a long string in them.
        if values and max(map(len, values)) * 4 > max_bytes:
            for ordinal, value in enumerate(values):
                if len(value) * 4 > max_bytes and len(value.encode()) > max_bytes:
                    raise MPackError(f"{self._where}: {name} {ordinal} is over {max_bytes} bytes")
        return values

    def names(self, name: str, *, known: Sequence[str], max_bytes: int) -> list[str]:
        """Return a column of strings, each of at most `max_bytes` bytes, or instead its number in `known`."""
        values = self._values(name, None)
        for ordinal, value in enumerate(values):
            if type(value) is int:
                if not 0 <= value < len(known):
                    raise MPackError(f"{self._where}: {name} {ordinal} is number {value} of {len(known)}")
                values[ordinal] = known[value]
        return self._bounded_strings(name, values, max_bytes)

    def binaries(self, name: str, *, count: int | None = None, max_bytes: int) -> list[bytes]:
        """Return a column of byte strings, each of at most `max_bytes`."""
        values = self._values(name, count)
        self._check_types(name, values, bytes)
        for ordinal, value in enumerate(values):
            if len(value) > max_bytes:
                raise MPackError(f"{self._where}: {name} {ordinal} is over {max_bytes} bytes")
        return values

    def digests(self, name: str, *, count: int | None = None) -> bytes:
        """Return a column of digests: one byte string, 32 bytes for each."""
        try:
            value = self._unpacker.unpack()
        except (ValueError, msgpack.UnpackException) as error:
            raise MPackError(f"{self._where}: {name} is no byte string") from error
        if type(value) is not bytes or len(value) % 32:
            raise MPackError(f"{self._where}: {name} is no byte string of 32 bytes each")
        if count is not None and len(value) != 32 * count:
            raise MPackError(f"{self._where}: {name} has {len(value) // 32} digests, not {count}")
        return value

    def skip(self) -> None:
        """Pass over a column of plain values."""
        self._values("a column", None)

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return int(self._unpacker.tell())

    def finish(self) -> None:
        """Check that nothing follows the last column."""
        rest = self._size - self.position
        if rest:
            raise MPackError(f"{self._where}: {rest} bytes follow the last column")
