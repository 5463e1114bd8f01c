"""Statements against the host's session.

Everything that says SQL goes through `Database`, for two reasons: a Core statement would silently go to the host's
default engine where the plugin's tables live on a bind key, and the two supported databases spell an insert that
leaves existing rows alone in dialects of their own.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session as FlaskSession
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Engine,
    Executable,
    Result,
    Table,
    create_engine,
    event,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.orm import InstrumentedAttribute, Session, scoped_session
from sqlalchemy.pool import SingletonThreadPool, StaticPool
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from musehub_plugin.errors import sqlstate
from musehub_plugin.store.autocommit import AutocommitConnection
from musehub_plugin.store.models import Base, Instant, MusehubRepo

logger = logging.getLogger(__name__)

# How many ids one statement names: far under SQLite's 32,766 and PostgreSQL's 65,535 parameters.
ID_BATCH = 10_000
# How many rows one INSERT carries.
ROW_BATCH = 5_000

# PostgreSQL's deadlock_detected and serialization_failure: the transaction was undone and may simply be run again.
_RETRIED = frozenset({"40P01", "40001"})
_ATTEMPTS = 5

T = TypeVar("T")


class Database:
    """One unit of work: the host's session, with statements routed to where the plugin's tables are.

    Args:
        session: the host's `db.session`, or any SQLAlchemy session.
        route: returns where the session would send a statement over the plugin's tables, or None where only the session
            knows. What is asked before the session is needed spares a request making one and taking it down, a tenth
            of what it takes to say that there is nothing new.
    """

    def __init__(
        self, session: Session | scoped_session[Any], route: Callable[[], Engine | Connection | None] = lambda: None
    ) -> None:
        self.session = session
        self._route = route
        self._keeps_connection = False
        self._kept: AutocommitConnection | None = None

    @property
    def dialect(self) -> str:
        """`postgresql` or `sqlite`."""
        return self._bind.dialect.name

    @property
    def _bind(self) -> Engine | Connection:
        return self._route() or self.session.get_bind(**_ROUTE)

    def execute(
        self, statement: Executable, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None
    ) -> Result[*tuple[Any, ...]]:
        """Run a statement, with the values of its parameters; several rows of them make it an executemany."""
        # The session takes a connection of the same pool, which may have no second one.
        self._let_go()
        return self.session.execute(statement, rows, bind_arguments=dict(_ROUTE))

    def change(self, statement: Executable) -> int:
        """Run an UPDATE or DELETE and return how many rows it touched."""
        return cast("CursorResult[Any]", self.execute(statement)).rowcount

    def found_among(
        self, column: InstrumentedAttribute[str], ids: Iterable[str], *conditions: ColumnElement[bool]
    ) -> set[str]:
        """Return which of `ids` a column holds in rows that meet the conditions."""
        found: set[str] = set()
        for batch in batches(set(ids)):
            found.update(self.execute(select(column).where(column.in_(batch), *conditions)).scalars())
        return found

    def insert_new(self, model: type[Base], rows: Iterable[Mapping[str, Any]]) -> set[Any]:
        """Insert rows, leaving those that exist as they are.

        Returns:
            The first key column of the rows that were inserted; on SQLite nothing, which is not asked.

        Rows are inserted in the order of their primary keys: two pushes that bring the same rows in different orders
        would otherwise wait for each other in PostgreSQL until one is killed (ATTACKS R11).
        """
        keys = [column.name for column in cast(Table, model.__table__).primary_key]
        ordered = sorted(rows, key=lambda row: [row[key] for key in keys])
        statement: Executable = self._insert(model)
        if self.dialect == "postgresql":
            # SQLAlchemy puts many rows into one INSERT with a conflict clause only if something is returned. One by
            # one, 5,000 commits took 5.3 s in place of 2.4 s.
            statement = self._insert(model).returning(model.__table__.c[keys[0]])
        inserted: set[Any] = set()
        for start in range(0, len(ordered), ROW_BATCH):
            result = cast("CursorResult[Any]", self.execute(statement, ordered[start : start + ROW_BATCH]))
            if result.returns_rows:
                inserted.update(result.scalars())
            result.close()
        return inserted

    def insert_one(self, model: type[Base], row: Mapping[str, Any]) -> bool:
        """Insert a row unless it exists, and say whether it was inserted.

        On PostgreSQL this waits for a transaction that is inserting the same key.
        """
        # psycopg does not know it any more once the cursor is closed, as an INSERT's is at once.
        return self.change(self._insert(model).values(**row).execution_options(preserve_rowcount=True)) == 1

    def upsert(self, model: type[Base], row: Mapping[str, Any], *, update: Sequence[str]) -> None:
        """Insert a row, or set the columns `update` of the one that has its key."""
        statement = self._bare_insert(model).values(**row)
        keys = [column.name for column in cast(Table, model.__table__).primary_key]
        self.execute(
            statement.on_conflict_do_update(
                index_elements=keys, set_={name: statement.excluded[name] for name in update}
            )
        )

    def _insert(self, model: type[Base]) -> postgresql.Insert | sqlite.Insert:
        return self._bare_insert(model).on_conflict_do_nothing()

    def _bare_insert(self, model: type[Base]) -> postgresql.Insert | sqlite.Insert:
        insert = postgresql.insert if self.dialect == "postgresql" else sqlite.insert
        return insert(cast(Table, model.__table__))

    def now(self, later: int = 0) -> ColumnElement[datetime]:
        """Return the present, `later` seconds on, as an SQL expression.

        PostgreSQL's own clock, so that hosts with different clocks agree; SQLite is one host's.
        """
        if self.dialect == "postgresql":
            return func.clock_timestamp() + literal(timedelta(seconds=later))
        return literal(datetime.now(UTC) + timedelta(seconds=later), Instant())

    @contextmanager
    def apart(self) -> Iterator[Database]:
        """Give a unit of work of its own on the same database, for what must be kept whatever the request ends in."""
        bind = self._bind
        if isinstance(bind, Engine) and not isinstance(bind.pool, StaticPool | SingletonThreadPool):
            bind = _engine_apart(bind)
        with Session(bind) as session:
            yield Database(session)

    @property
    def may_fork(self) -> bool:
        """Whether a fork of this process can have a connection of its own that sees what this one does.

        Not to SQLite, which may be in memory, nor where the session is in a transaction that somebody else began.
        """
        return self.dialect == "postgresql" and isinstance(self.session.get_bind(**_ROUTE), Engine)

    @contextmanager
    def after_fork(self) -> Iterator[Database]:
        """Give a fork of the process a unit of work of its own: this one, and all connections, are its parent's."""
        bind = self.session.get_bind(**_ROUTE).engine
        with Session(create_engine(bind.url, pool=bind.pool.recreate())) as session:
            yield Database(session)

    @property
    def may_write_apart(self) -> bool:
        """Whether another connection can write now: SQLite has one writer, and a database in memory one connection."""
        if self.dialect == "postgresql":
            return True
        pool = self._bind.engine.pool
        if isinstance(pool, StaticPool | SingletonThreadPool):
            return False
        return not getattr(self.session.connection(dict(_ROUTE)).connection, "in_transaction", False)

    def transaction(self, work: Callable[[], T]) -> T:
        """Run `work` and commit; roll back where it raises, and run it again where it lost a deadlock.

        Rows are written in sorted order, so deadlocks are rare; they cannot be excluded where two pushes bring the
        same rows in batches. `work` must do all of its reading inside.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                result = work()
                self.commit()
            except DBAPIError as error:
                self.rollback()
                if sqlstate(error.orig) not in _RETRIED or attempt == _ATTEMPTS:
                    raise
                time.sleep(random.uniform(0, 0.1 * attempt))  # noqa: S311 - spreads contenders, no secret
            except BaseException:
                self.rollback()
                raise
            else:
                return result
        raise AssertionError("unreachable")

    def abandon(self) -> None:
        """Forget the unit of work and its connections without another word to the database, which has just failed.

        SQLite has no connection to lose, and one in memory goes with it.
        """
        if self.dialect == "postgresql":
            self._own_session().invalidate()

    @property
    def engine_at_rest(self) -> Engine | None:
        """The PostgreSQL engine of this unit of work as long as nothing was asked in it; else None."""
        if self.has_begun:
            return None
        bind = self._bind
        return bind if isinstance(bind, Engine) and bind.dialect.name == "postgresql" else None

    def questions(self) -> AbstractContextManager[None]:
        """Ask the prepared questions of the block on one connection, which the pool looks after once."""
        return _Questions(self)

    def take_kept_connection(self) -> AutocommitConnection | None:
        """Return the connection of the last prepared question of the block, where one may be asked on it."""
        kept = self._kept
        if kept is None or self.has_begun:
            return None
        self._kept = None
        return kept

    def give_connection_back(self, connection: AutocommitConnection) -> None:
        """Keep a connection for the next question of the block, or return it to its pool."""
        if self._keeps_connection:
            self._kept = connection
        else:
            connection.close()

    def keep_connection(self, *, keeps: bool) -> None:
        """Keep the connection of a prepared question for the next one from now on, or no longer."""
        self._keeps_connection = keeps
        if not keeps:
            self._let_go()

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    @property
    def has_begun(self) -> bool:
        """Whether something was asked of the database since the last commit or rollback."""
        if isinstance(self.session, scoped_session) and not self.session.registry.has():
            return False
        return self._own_session().in_transaction()

    def finish(self, *, own: bool) -> None:
        """End a request's unit of work where a connection that was cut meanwhile does no harm.

        Else the host's end of the request rolls back what was only read. On a connection that is gone this fails,
        outside of every error handler, and turns an answer that is ready into a bare 500.

        Args:
            own: whether it began in this request. What the host had begun is the host's to end: its connection is only
                looked at.
        """
        if not self.has_begun or self.dialect != "postgresql":
            return
        try:
            # A session on a connection instead of an engine is in somebody's transaction, such as a test's.
            if own and isinstance(self._bind, Engine):
                self.rollback()
            else:
                self.execute(select(literal(1)))
        except SQLAlchemyError as error:
            # SQLAlchemy has noted by now that there is nothing to roll back.
            logger.debug("a connection was lost at the end of a request: %s", type(error).__name__)

    def _own_session(self) -> Session:
        # The registry of a host's sessions passes on most of what a session can do, and not this.
        return self.session() if isinstance(self.session, scoped_session) else self.session

    def commit(self) -> None:
        """Make the unit of work permanent."""
        self.session.commit()

    def rollback(self) -> None:
        """Undo the unit of work."""
        self.session.rollback()


class _Questions:
    """A block of questions; one that `contextmanager` makes of a generator takes as long as a small question's text."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.keep_connection(keeps=True)

    def __exit__(self, *_: object) -> None:
        self._database.keep_connection(keeps=False)


def flask_route(database: SQLAlchemy, bind_key: str | None) -> Engine | Connection | None:
    """Return where Flask-SQLAlchemy's own session sends the plugin's statements; None where a host has its own class.

    Args:
        database: the host's.
        bind_key: of the plugin's tables.
    """
    factory = getattr(database.session, "session_factory", None)
    session_class = getattr(factory, "class_", None)
    if getattr(session_class, "get_bind", None) is not FlaskSession.get_bind:
        return None
    return database.engines.get(bind_key)


_engines_apart: WeakKeyDictionary[Engine, Engine] = WeakKeyDictionary()
_engines_lock = threading.Lock()


def _engine_apart(engine: Engine) -> Engine:
    """Return an engine on the same database with a pool of its own.

    A request that holds one connection of a pool and waits for a second one waits for ever where all of the pool's
    connections are held by its likes; with a pool of one, always.

    Whoever disposes of the engine, such as a host before it drops a database or after a fork, disposes of this as well.
    """
    with _engines_lock:
        if engine not in _engines_apart:
            apart, process = create_engine(engine.url, pool=engine.pool.recreate()), os.getpid()

            def dispose(_: Engine) -> None:
                # In a fork the connections are its parent's, and to close them would end them for both.
                apart.dispose(close=os.getpid() == process)

            event.listen(engine, "engine_disposed", dispose)
            _engines_apart[engine] = apart
        return _engines_apart[engine]


def make_sqlite_patient(engine: Engine) -> None:
    """Have SQLite's readers and writers not wait for each other, and writers wait in line for half a minute.

    A write-ahead log is a property of the database file; how long to wait is one of each connection. Nothing is done
    for other databases.
    """
    if engine.dialect.name != "sqlite":
        return

    def prepare(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 30000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    event.listen(engine, "connect", prepare)


def sqlite_journal_mode(engine: Engine) -> str:
    """Return `delete`, `wal`, `memory` or another of SQLite's journal modes."""
    with engine.connect() as connection:
        return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())


def hide_values(error: BaseException | None) -> None:
    """Keep out of a traceback the values of statements: messages, names and paths of what was pushed (ATTACKS S84).

    Args:
        error: and what led to it.
    """
    while error is not None:
        if isinstance(error, StatementError):
            error.hide_parameters = True
        error = error.__cause__ or error.__context__


def only_reads(engine: Engine) -> bool:
    """Say whether PostgreSQL would refuse every write: it is a standby, or `default_transaction_read_only` is on."""
    if engine.dialect.name != "postgresql":
        return False
    with engine.connect() as connection:
        return connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"


def commits_each_statement(engine: Engine) -> bool:
    """Say whether the host's engine is in autocommit, where a transaction holds nothing together and no lock lasts."""
    if engine.dialect.name != "postgresql":
        return False
    with engine.connect() as connection:
        # The driver's own word: SQLAlchemy asks the server, which does not know.
        return getattr(connection.connection.dbapi_connection, "autocommit", False) is True


def database_answers(engine: Engine) -> bool:
    """Say whether the database answers."""
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True


def columns(model: type[Base]) -> ReadOnlyColumnCollection[str, Column[Any]]:
    """Return the columns of a model's table, for statements that every fetch makes.

    A statement over these is run as it is; one over the model's attributes is first looked over by the ORM, which
    takes as long as PostgreSQL takes to answer it.
    """
    return cast(Table, model.__table__).c


def batches(items: Iterable[str], size: int = ID_BATCH) -> Iterator[list[str]]:
    """Yield `items` in sorted lists of at most `size`."""
    ordered = sorted(items)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


_ROUTE: Mapping[str, Any] = {"mapper": MusehubRepo}
