"""The questions of every fetch, and what it has to note, as prepared statements.

SQLAlchemy and PostgreSQL each take longer to make a small statement ready than to run it, and a transaction around it
is two more trips. Two such questions by way of the session took a process 440 us of its own and PostgreSQL 190; by this
way it is 110 and 40.

The short way is taken where it means the same: on PostgreSQL, where the unit of work has not begun. What somebody wrote
in a unit of work can only be read there, and a session on a connection instead of an engine is in somebody's
transaction. It reads as of now, each time, and what it writes is permanent at once: a transaction of the session's of
three statements takes five trips, this way one.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakSet

import psycopg2
from sqlalchemy import ARRAY, Column, ColumnElement, Dialect, Engine, Select, any_, bindparam, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.exc import OperationalError
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.types import TypeEngine

from musehub_plugin.ids import to_digest
from musehub_plugin.store.autocommit import AutocommitConnection, in_autocommit
from musehub_plugin.store.models import Id
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

T = TypeVar("T")

Among = Callable[[Column[Any], str], ColumnElement[bool]]
"""Makes the condition that a column is one of a parameter's values; its arguments are the column and the name."""

# invalid_sql_statement_name, duplicate_prepared_statement: a pooler gives statements to whichever connection is free.
_NOT_KEPT = frozenset({"26000", "42P05"})
_cannot_keep: WeakSet[Engine] = WeakSet()
_cannot_keep_lock = threading.Lock()


def _in_list(column: Column[Any], name: str) -> ColumnElement[bool]:
    return column.in_(bindparam(name, expanding=True))


def _in_array(column: Column[Any], name: str) -> ColumnElement[bool]:
    # By way of a SELECT PostgreSQL does not look into the array, and plans once. Else it plans anew each time for what
    # is shorter than the ten values that it assumes, which takes twice as long as to find three blobs. The cast around
    # it says that this is an array, and not a subquery of many rows.
    kind = ARRAY(column.type)
    return column == any_(sql_cast(select(bindparam(name, type_=kind)).scalar_subquery(), kind))


class _Prepared(NamedTuple):
    """A statement as PostgreSQL keeps it: its name for this text, how values get in and out, and how it is run.

    `results` is empty where all values are used as the driver gives them.
    """

    name: str
    text: str
    arguments: Sequence[tuple[str, Callable[[Any], Any] | None]]
    results: Sequence[Callable[[Any], Any] | None]
    call: str


def _prepared(statement: Select[Any] | ReturningInsert[Any]) -> _Prepared:
    dialect: Dialect = PGDialect_psycopg2(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # untyped there
    compiled = statement.compile(dialect=dialect)
    text = str(compiled)
    names: Sequence[str] = compiled.positiontup or ()
    name = f"musehub_{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    marks = ", ".join(["%s"] * len(names))
    ways = [_way_out(column.type, dialect) for column in statement.exported_columns]
    return _Prepared(
        name=name,
        text=text,
        arguments=[(each, _way_in(compiled.binds[each].type, dialect)) for each in names],
        results=ways if any(ways) else (),
        call=f"EXECUTE {name} ({marks})" if names else f"EXECUTE {name}",
    )


def _way_in(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(kind, ARRAY) and isinstance(kind.item_type, Id):
        return _array_of_ids
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _array_of_ids(ids: Sequence[str]) -> str:
    """Return the text of an array, which PostgreSQL takes apart in a tenth of the time that the driver takes to make
    one of values."""
    return "{" + ",".join([f'"\\\\x{to_digest(each).hex()}"' for each in ids]) + "}"


def _way_out(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    return kind.dialect_impl(dialect).result_processor(dialect, None)


class Question:
    """A statement that reads, to be asked with other values each time.

    Args:
        build: makes it, given what puts a column among many values.

    Attributes:
        name: by which PostgreSQL keeps it.
    """

    def __init__(self, build: Callable[[Among], Select[Any]]) -> None:
        self._statement = build(_in_list)
        self._prepared = _prepared(build(_in_array))
        self.name = self._prepared.name

    def ask(self, db: Database, **values: Any) -> Sequence[tuple[Any, ...]]:
        """Return the rows of the answer.

        Args:
            db: the unit of work; only read.
            values: of the parameters; lists where a column is to be among many.
        """
        # On a connection that turns out to be dead nothing was asked: the session takes another.
        rows = _run_shortly(db, self._prepared, values, pings=False)
        if rows is not None:
            return rows
        return cast(Sequence[tuple[Any, ...]], db.execute(self._statement, values).all())


def value_of(name: str, kind: TypeEngine[T]) -> ColumnElement[T]:
    """Return a parameter of a note; PostgreSQL does not guess what kind it is where it stands.

    Args:
        name: its name.
        kind: its kind.
    """
    return sql_cast(bindparam(name, type_=kind), kind)


class Note:
    """A statement that writes in a transaction of its own, which may be repeated: PostgreSQL alone has it.

    Args:
        statement: an INSERT that returns something for each row that it wrote.
    """

    def __init__(self, statement: ReturningInsert[Any]) -> None:
        self._prepared = _prepared(statement)

    def write(self, db: Database, **values: Any) -> int | None:
        """Return how many rows it wrote; None where it has to be done by a unit of work apart, as it may not be done.

        Args:
            db: the unit of work of the request, which has no part in it.
            values: of the parameters.
        """
        rows = _run_shortly(db, self._prepared, values, pings=True)
        return None if rows is None else len(rows)


def _run_shortly(
    db: Database, prepared: _Prepared, values: Mapping[str, Any], *, pings: bool
) -> list[tuple[Any, ...]] | None:
    """Return the rows; None where the session is to be asked, which says what is wrong, if anything."""
    connection = db.take_kept_connection() or _connection(db, pings=pings)
    if connection is None:
        return None
    try:
        given = [values[name] if way is None else way(values[name]) for name, way in prepared.arguments]
        found = _answer(connection, prepared, given)
    except psycopg2.Error as error:
        if error.pgcode in _NOT_KEPT:
            with _cannot_keep_lock:
                _cannot_keep.add(connection.engine)
        logger.debug("a prepared statement failed: %s", type(error).__name__)
        connection.discard()
        return None
    except BaseException:
        connection.discard()
        raise
    db.give_connection_back(connection)
    if not found or not prepared.results:
        return found
    # Column by column, which takes a third of the time that row by row does.
    columns = zip(*found, strict=True)
    converted = [each if way is None else map(way, each) for each, way in zip(columns, prepared.results, strict=True)]
    return list(zip(*converted, strict=True))


def _connection(db: Database, *, pings: bool) -> AutocommitConnection | None:
    """Return a connection of the pool; None where the short way is not to be taken."""
    engine = db.engine_at_rest
    if engine is None or engine.dialect.driver != "psycopg2" or engine in _cannot_keep:
        return None
    try:
        return in_autocommit(engine, pings=pings)
    except psycopg2.OperationalError as error:
        # As the session would say it, without making the caller wait a second time.
        raise OperationalError(None, None, error) from error


def _answer(connection: AutocommitConnection, prepared: _Prepared, given: Sequence[Any]) -> list[tuple[Any, ...]]:
    cursor, info = connection.cursor, connection.info
    if prepared.name not in info:
        cursor.execute(f"PREPARE {prepared.name} AS {prepared.text}")
        info[prepared.name] = True
    cursor.execute(prepared.call, given)
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
