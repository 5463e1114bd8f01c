"""Many rows at once.

A statement with a parameter for each value costs more in the driver and in SQLAlchemy than in PostgreSQL: 100,000 rows
of two ids took 1.6 s of a process's CPU in that way. Here each column travels as the text of one array, which
PostgreSQL takes apart: 0.06 s, and half of its own time. SQLite is given its rows one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    CursorResult,
    DateTime,
    Integer,
    LargeBinary,
    Table,
    Text,
    bindparam,
    func,
    select,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import TypeDecorator, TypeEngine

from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.store.models import Base, Id, IdList
from musehub_plugin.store.session import ROW_BATCH, Database

# What has to be escaped between the quotes of an array's element.
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"'})


def _quoted(value: Any) -> str:
    return f'"{str(value).translate(_ESCAPES)}"'


def _hex(value: Any) -> str:
    return f'"\\\\x{value.hex()}"'


def _id(value: Any) -> str:
    return _hex(value if isinstance(value, bytes) else to_digest(value))


def _ids(value: Any) -> str:
    return _hex(value if isinstance(value, bytes) else b"".join(map(to_digest, value)))


def _encoder(column: Column[Any]) -> Callable[[Any], str]:
    """Return what writes a value of a column as an element of an array."""
    for kind, encode in ((Id, _id), (IdList, _ids), (LargeBinary, _hex), (Integer, str)):
        if isinstance(column.type, kind):
            return encode
    return _quoted


def _plain_type(column: Column[Any]) -> TypeEngine[Any]:
    """Return the type of a column's array; text without a length, since a cast to one cuts off what is too long."""
    kind = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    if isinstance(kind, LargeBinary):
        return postgresql.BYTEA()
    if isinstance(kind, DateTime):
        return DateTime(timezone=True)
    if isinstance(kind, Integer):
        return BigInteger()
    return JSON() if isinstance(kind, JSON) else Text()


def as_array(column: Column[Any], values: Iterable[Any]) -> str:
    """Return the text of an array of values of a column; ids may be given as their 32 bytes."""
    encode = _encoder(column)
    return "{" + ",".join("NULL" if value is None else encode(value) for value in values) + "}"


def unnested(columns: Sequence[Column[Any]]) -> TableValuedAlias:
    """Return rows made of arrays: a parameter for each column, by its name, whose value `as_array` makes.

    For PostgreSQL alone.
    """
    arrays = [
        sql_cast(bindparam(column.name, type_=Text()), postgresql.ARRAY(_plain_type(column))) for column in columns
    ]
    return func.unnest(*arrays).table_valued(*(column.name for column in columns), name="given").render_derived()


@lru_cache(maxsize=64)
def _insert(table: Table, names: tuple[str, ...], constants: tuple[str, ...], returning: str | None) -> Any:
    given = unnested([table.c[name] for name in names])
    values = [given.c[name] for name in names] + [bindparam(name, type_=table.c[name].type) for name in constants]
    statement = postgresql.insert(table).from_select([*names, *constants], select(*values)).on_conflict_do_nothing()
    return statement if returning is None else statement.returning(table.c[returning])


def insert_rows(
    db: Database,
    model: type[Base],
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    constants: Mapping[str, Any] | None = None,
    *,
    ask: bool = False,
) -> set[str] | None:
    """Insert rows, leaving those that exist as they are, in the order of their keys (see `Database.insert_new`).

    Args:
        db: the unit of work.
        model: the table.
        names: the columns that `rows` give. Defaults of further ones are evaluated once.
        rows: a value for each name; ids as text or as their 32 bytes, lists of ids likewise.
        constants: columns that are the same in every row.
        ask: whether to say which rows were inserted.

    Returns:
        Where that is asked, the first key column of the rows that were inserted; None where the database does not
        tell.
    """
    table = cast(Table, model.__table__)
    constants = constants or {}
    keys = [names.index(column.name) for column in table.primary_key if column.name in names]
    ordered = sorted(rows, key=itemgetter(*keys))
    if db.dialect != "postgresql":
        db.insert_new(model, (_as_dict(table, names, row, constants) for row in ordered))
        return None
    first = table.primary_key.columns[0].name if ask else None
    statement = _insert(table, tuple(names), tuple(constants), first)
    inserted: set[str] = set()
    for start in range(0, len(ordered), ROW_BATCH):
        part = zip(*ordered[start : start + ROW_BATCH], strict=True)
        arrays = {name: as_array(table.c[name], values) for name, values in zip(names, part, strict=True)}
        result = cast("CursorResult[Any]", db.execute(statement, {**arrays, **constants}))
        if ask:
            inserted.update(result.scalars())
        result.close()
    return inserted if ask else None


def _as_dict(table: Table, names: Sequence[str], row: Sequence[Any], constants: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: _as_text(table.c[name], value) for name, value in zip(names, row, strict=True)}
    return {**values, **constants}


def _as_text(column: Column[Any], value: Any) -> Any:
    if isinstance(value, bytes):
        if isinstance(column.type, Id):
            return from_digest(value)
        if isinstance(column.type, IdList):
            return [from_digest(value[at : at + 32]) for at in range(0, len(value), 32)]
    return value
