"""Connections of the host's pool for statements that are each a transaction of their own."""

from __future__ import annotations

import logging
from typing import cast

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Engine
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


def in_autocommit(engine: Engine) -> AutocommitConnection | None:
    """Take a connection of an engine's pool; None where no statement can be a transaction of its own on it.

    That is where a transaction is open in it, as after a host's own `SET`, and where it is closed.

    Args:
        engine: of psycopg2's.

    Raises:
        psycopg2.Error: there is no connection to be had.
        sqlalchemy.exc.TimeoutError: likewise, within the pool's time.
    """
    pooled = engine.raw_connection()
    connection = cast("psycopg2.extensions.connection", pooled.dbapi_connection)
    if connection.get_transaction_status() == TRANSACTION_STATUS_IDLE:
        return AutocommitConnection(engine, pooled)
    pooled.close()
    return None
