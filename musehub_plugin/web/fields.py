"""The fields that request bodies may hold, declared: types, limits, defaults.

A body is a flat map. A field is a scalar or a flat list of scalars; that is all that the decoder in `body`
ever builds, and `check` here is what both encodings are measured with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from musehub_plugin.errors import Invalid, TooLarge
from musehub_plugin.ids import PREFIX, is_hex, is_id


class _Required:
    """The type of `REQUIRED`."""


REQUIRED: Final = _Required()
"""The default of a field that must be there."""


@dataclass(frozen=True)
class Ids:
    """A list of ids, deduplicated in first order: a client that has two branches on one commit sends it
    twice.

    Args:
        limit: elements accepted, duplicates included; more is `TooLarge`.
        minimum: elements needed.
        default: the value where the key is absent.
        bare: whether they are sent without `sha256:`, as the released `muse` command does; the value has it.
    """

    limit: int
    minimum: int = 0
    default: Any = REQUIRED
    bare: bool = False


@dataclass(frozen=True)
class Id:
    """One id, or None where `nullable`."""

    nullable: bool = False
    default: Any = REQUIRED


@dataclass(frozen=True)
class Text:
    """A string of at most `limit` characters."""

    limit: int = 1000
    default: Any = REQUIRED


@dataclass(frozen=True)
class Texts:
    """A list of at most `limit` strings of at most `text_limit` characters each."""

    limit: int = 64
    text_limit: int = 100
    default: Any = REQUIRED


@dataclass(frozen=True)
class Flag:
    """True or false."""

    default: Any = REQUIRED


@dataclass(frozen=True)
class Count:
    """A whole number from 0 to `maximum`."""

    maximum: int
    default: Any = REQUIRED


Field = Ids | Id | Text | Texts | Flag | Count
Schema = Mapping[str, Field]


@cache
def fetch_schema(*, max_wants: int, max_haves: int) -> Schema:
    """Return the fields of `POST fetch` and `POST negotiate`: `want`, `have`, `capabilities`."""
    return {
        "want": Ids(limit=max_wants, minimum=1),
        "have": Ids(limit=max_haves, default=()),
        "capabilities": Texts(default=()),
    }


def presign_schema(*, max_size: int) -> Schema:
    """Return the fields of `POST push/presign`: `mpack_id`, `size_bytes` (at most `max_size`)."""
    return {"mpack_id": Id(), "size_bytes": Count(maximum=max_size)}


UNPACK_SCHEMA: Final[Schema] = {
    "mpack_id": Id(),
    "branch": Text(),
    "head_commit_id": Id(),
    "expected_head": Id(nullable=True, default=None),
    "force": Flag(default=False),
}
"""The fields of `POST push/unpack-mpack`; whether `branch` is a good name is the push's to say."""


def list_limit(field: Field) -> int | None:
    """Return how many elements a field's list may have, or None where the field is no list."""
    return field.limit if isinstance(field, Ids | Texts) else None


def check_length(name: str, length: int, limit: int) -> None:
    """Refuse a list of `length` elements in field `name`.

    Raises:
        TooLarge: there are more than `limit`.
    """
    if length > limit:
        raise TooLarge(f"{name}: {length} elements, at most {limit} are accepted.", limit=limit)


def check(name: str, field: Field, values: Mapping[str, Any]) -> Any:
    """Return the value of field `name` in `values`, or its default.

    Raises:
        Invalid: it is missing or wrong; the detail names the field, the position in a list, and what was
            found.
        TooLarge: a list is longer than its limit.
    """
    if name not in values:
        if field.default is REQUIRED:
            raise Invalid(f"{name}: is required.")
        return list(field.default) if isinstance(field, Ids | Texts) else field.default
    value = values[name]
    match field:
        case Ids():
            items = _list(name, value, field.limit)
            if len(items) < field.minimum:
                raise Invalid(f"{name}: at least {field.minimum} id is needed.")
            is_form, form = (is_hex, _BARE_ID) if field.bare else (is_id, _AN_ID)
            for position, item in enumerate(items):
                if not is_form(item):
                    raise _wrong(f"{name}[{position}]", form, item)
            unique = dict.fromkeys(items)
            return [PREFIX + item for item in unique] if field.bare else list(unique)
        case Id():
            if not (is_id(value) or (field.nullable and value is None)):
                raise _wrong(name, f"{_AN_ID} or null" if field.nullable else _AN_ID, value)
        case Text():
            _check_text(name, value, field.limit)
        case Texts():
            items = _list(name, value, field.limit)
            for position, item in enumerate(items):
                _check_text(f"{name}[{position}]", item, field.text_limit)
            return items
        case Flag():
            if type(value) is not bool:
                raise _wrong(name, "true or false", value)
        case Count():
            # bool is an int; 1.0 is not what a size looks like.
            if type(value) is not int or not 0 <= value <= field.maximum:
                raise _wrong(name, f"a whole number from 0 to {field.maximum}", value)
    return value


_AN_ID = "an id (sha256: and 64 lowercase hex digits)"
_BARE_ID = "64 lowercase hex digits"


def _list(name: str, value: object, limit: int) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(name, "a list", value)
    check_length(name, len(value), limit)
    return value


def _check_text(where: str, value: object, limit: int) -> None:
    if not isinstance(value, str):
        raise _wrong(where, "a string", value)
    if len(value) > limit:
        raise Invalid(f"{where}: {len(value)} characters, at most {limit} are accepted.")
    if not is_unicode(value):
        raise Invalid(f"{where}: is not valid Unicode.")


def is_unicode(text: str) -> bool:
    """Say whether `text` can be encoded: a JSON escape can smuggle half of a surrogate pair into a `str`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(where: str, expected: str, value: object) -> Invalid:
    return Invalid(f"{where}: expected {expected}, found {shown(value)}.")


def shown(value: object) -> str:
    """Return at most 100 characters that show `value` in an error.

    A container is only named: the `repr` of a deeply nested one fails, and of a big one is slow.
    """
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        # The decimal form of a JSON integer is bounded where it is read, of a msgpack one by its 64 bits.
        return repr(value)
    if isinstance(value, str | bytes):
        return f"{value[:100]!r:.100}"
    return f"a {type(value).__name__}"
