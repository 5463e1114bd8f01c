"""Alembic's environment for the plugin's tables.

Run by `musehub_plugin.store.migrate`, which hands over a connection: there is no URL to configure, no ini file, and
the host's logging stays as it is.
"""

from alembic import context
from sqlalchemy import Connection, text

from musehub_plugin.store.host_migrations import VERSION_TABLE
from musehub_plugin.store.models import Base

# Two deployments that migrate at once take turns; the number is arbitrary and must only be the plugin's own.
_ADVISORY_LOCK = 0x6D757365


def run(connection: Connection) -> None:
    """Run the migrations that the command at hand asks for, in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
        include_name=lambda name, type_, _: type_ != "table" or name in Base.metadata.tables,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # The host's limits are for requests: a large table takes longer, and so does another deployment's turn.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            # A migration that waits behind a long query would make every later query wait behind it.
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        elif connection.dialect.name == "sqlite" and not _is_in_transaction(connection):
            # Left to itself the driver begins none for a table's making: an upgrade that was killed could not go on.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        context.run_migrations()


def _is_in_transaction(connection: Connection) -> bool:
    """Say whether the driver has begun a transaction: a host may have it begin them all."""
    return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))


run(context.config.attributes["connection"])
