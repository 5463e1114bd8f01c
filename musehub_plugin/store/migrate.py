"""Running the plugin's migrations on an engine.

The history is the plugin's own: its version table is not the host's, and neither sees the other's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from musehub_plugin.store.host_migrations import VERSION_TABLE
from musehub_plugin.store.models import Base


def script_location() -> Path:
    """Return the folder of the migrations: in the installed package, or beside it in a checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    package = Path(__file__).parents[1]
    # Never another installation's: an editable install of a second checkout would answer to the package's name.
    found = (package / "migrations", package.parent / "migrations")
    for place in found:
        if (place / "env.py").is_file():
            return place
    raise FileNotFoundError("musehub_plugin.migrations: the migrations are not installed")


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the plugin's tables to a revision."""
    with _config(engine) as config:
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Bring the plugin's tables back to a revision; "base" removes them."""
    with _config(engine) as config:
        command.downgrade(config, revision)


def stamp(engine: Engine, revision: str = "head") -> None:
    """Record a revision without running anything, for tables that were made by `create_all`."""
    with _config(engine) as config:
        command.stamp(config, revision)


def current(engine: Engine) -> str | None:
    """Return the revision that the database is at, or None where the tables were never made."""
    with engine.connect() as connection:
        return _context(connection).get_current_revision()


def head() -> str | None:
    """Return the newest revision that this release knows."""
    return _scripts().get_current_head()


def is_known(revision: str) -> bool:
    """Say whether this release has a revision: one that it has not was made by a newer release."""
    return revision in {script.revision for script in _scripts().walk_revisions()}


def differences(engine: Engine) -> list[Any]:
    """Return how the database differs from the models, as Alembic's autogenerate sees it; empty where it does not."""
    with engine.connect() as connection:
        return list(compare_metadata(_context(connection), Base.metadata))


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", _escaped(script_location()))
    return ScriptDirectory.from_config(config)


def _context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(
        connection,
        opts={
            "version_table": VERSION_TABLE,
            "target_metadata": Base.metadata,
            "include_name": lambda name, type_, _: type_ != "table" or name in Base.metadata.tables,
        },
    )


@contextmanager
def _config(engine: Engine) -> Iterator[Config]:
    config = Config()
    config.set_main_option("script_location", _escaped(script_location()))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        yield config
        connection.commit()


def _escaped(path: Path) -> str:
    # The value goes through configparser, to which a percent sign is special.
    return str(path).replace("%", "%%")
