"""Connections of the host's pool for statements that are each a transaction of their own."""

from __future__ import annotations

import logging
import threading
from typing import cast

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import PoolProxiedConnection

logger = logging.getLogger(__name__)


class AutocommitConnection:
    """A pooled connection of psycopg2's, in autocommit until it goes back to the pool.

    To turn autocommit on or off hands Python's lock to another thread, as each statement does, and so does a cursor's
    end to another request: once for all statements of a request, and not once for each, saves it a tenth.

    Args:
        engine: whose pool it comes from.
        pooled: the connection; no transaction is open in it.

    Attributes:
        engine: as above.
        cursor: runs the statements.
        info: what is known of the connection; it goes with it.
    """

    def __init__(self, engine: Engine, pooled: PoolProxiedConnection) -> None:
        self.engine = engine
        self._pooled = pooled
        self._connection = cast("psycopg2.extensions.connection", pooled.dbapi_connection)
        self._was: bool = self._connection.autocommit
        if not self._was:
            self._connection.autocommit = True
        self.cursor = self._connection.cursor()
        self.info = pooled.info

    def close(self) -> None:
        """Give the connection back to its pool, as it came."""
        self.cursor.close()
        try:
            if not self._was:
                self._connection.autocommit = False
        except psycopg2.Error as error:
            # It is gone, which the driver has noticed before, or where it had to set the isolation level back.
            logger.debug("a connection of the pool was lost: %s", type(error).__name__)
            self._pooled.invalidate()
        self._pooled.close()

    def discard(self) -> None:
        """Have the pool replace the connection, which failed."""
        self._pooled.invalidate()
        self._pooled.close()


class _Unasked(threading.local):
    """Whether this thread is taking a connection that nobody needs to ask whether it lives."""

    now = False


_unasked = _Unasked()


def _let_threads_spare_the_ping(engine: Engine) -> None:
    """Have the engine's pool take a connection for alive where this thread says so.

    With `pool_pre_ping` a pool asks the database, by the dialect's `do_ping`, before it gives a connection away: a trip
    as long as that of a small question. There is no way past it for one caller alone.
    """
    methods = vars(engine.dialect)
    if "do_ping" in methods:
        return
    ping = engine.dialect.do_ping

    def do_ping(connection: DBAPIConnection) -> bool:
        return _unasked.now or ping(connection)

    methods["do_ping"] = do_ping


def in_autocommit(engine: Engine, *, pings: bool) -> AutocommitConnection | None:
    """Take a connection of an engine's pool; None where no statement can be a transaction of its own on it.

    That is where a transaction is open in it, as after a host's own `SET`, and where it is closed.

    Args:
        engine: of psycopg2's.
        pings: whether the pool asks it whether it lives, where it is one that does. Whoever can begin again on another
            connection finds that out by what there is to ask.

    Raises:
        psycopg2.Error: there is no connection to be had.
        sqlalchemy.exc.TimeoutError: likewise, within the pool's time.
    """
    _let_threads_spare_the_ping(engine)
    _unasked.now = not pings
    try:
        pooled = engine.raw_connection()
    finally:
        _unasked.now = False
    connection = cast("psycopg2.extensions.connection", pooled.dbapi_connection)
    if connection.get_transaction_status() == TRANSACTION_STATUS_IDLE:
        return AutocommitConnection(engine, pooled)
    pooled.close()
    return None
