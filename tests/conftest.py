"""What all tests share: the hub on real parts, once on PostgreSQL and S3, once on SQLite and files."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from musehub_plugin.models import Base
from musehub_plugin.store import migrate
from musehub_plugin.store.session import Database
from musehub_plugin.testing import services
from musehub_plugin.testing.apps import hub_of
from tests import effort  # noqa: F401 - importing it sets the properties' defaults
from tests.environment import HubEnvironment

# What somebody has git do, such as to sign every tag, is not the tests' concern, nor which repository the hook of git
# belongs to that runs them.
os.environ.update(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1")
for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
    os.environ.pop(name, None)

ENVIRONMENTS = ("postgresql+s3", "sqlite+files")


@pytest.fixture(scope="session")
def migrated_postgres_url(musehub_postgres_url: str) -> str:
    """A PostgreSQL database with the plugin's tables, made by its migrations."""
    url = make_url(musehub_postgres_url).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    engine = create_engine(url, poolclass=NullPool)
    migrate.upgrade(engine)
    return url


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the plugin's tables, made by its migrations; copied, never used itself."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    migrate.upgrade(engine)
    return path


@pytest.fixture
def postgres_config(migrated_postgres_url: str) -> dict[str, Any]:
    """Settings that name a PostgreSQL database whose tables are empty."""
    engine = create_engine(migrated_postgres_url, poolclass=NullPool)
    with engine.begin() as connection:
        # A few milliseconds where a database of its own for each test takes a hundred.
        for table in Base.metadata.sorted_tables:
            connection.execute(table.delete())
    return {"SQLALCHEMY_DATABASE_URI": migrated_postgres_url}


@pytest.fixture
def sqlite_config(migrated_sqlite_file: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings that name a SQLite database whose tables are empty."""
    path = tmp_path / "hub.db"
    shutil.copy(migrated_sqlite_file, path)
    return {"SQLALCHEMY_DATABASE_URI": f"sqlite:///{path}"}


@pytest.fixture
def s3_config(musehub_s3_url: str) -> dict[str, Any]:
    """Settings that name a fresh prefix of an S3 bucket."""
    parts = urlsplit(musehub_s3_url)
    fresh = parts._replace(path=f"{parts.path.rstrip('/')}/{secrets.token_hex(6)}").geturl()
    return dict(services.s3_config(fresh))


@pytest.fixture
def files_config(tmp_path: Path) -> dict[str, Any]:
    """Settings that name an empty folder for objects."""
    return {"MUSEHUB_STORAGE": (tmp_path / "objects").as_uri()}


@pytest.fixture(params=ENVIRONMENTS)
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubEnvironment]:
    """A hub without repos, on each pair of real parts."""
    database, storage = request.param.split("+")
    config = {
        **request.getfixturevalue(f"{database.replace('postgresql', 'postgres')}_config"),
        **request.getfixturevalue(f"{storage}_config"),
    }
    environment = HubEnvironment(request.param, tmp_path, config)
    yield environment
    environment.close()


@pytest.fixture
def db(hub: HubEnvironment) -> Iterator[Database]:
    """A unit of work of the hub."""
    with hub.app.app_context():
        yield hub_of(hub.app).database()
