"""pytest plugin of musehub-plugin: fixtures for tests of a hub, all named `musehub_...`.

It is imported in every pytest run of the environment, so it imports nothing heavy and starts nothing: each
fixture imports and starts what it needs once a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient

    from musehub_plugin.storage.memory import MemoryStorage

# So that a failed assert of the test classes shows its values.
pytest.register_assert_rewrite("musehub_plugin.testing.contract")


@pytest.fixture(scope="session")
def musehub_postgres_url() -> Iterator[str]:
    """URL of an empty PostgreSQL database; each process of a test run has its own."""
    from musehub_plugin.testing import services

    with services.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def musehub_redis_url() -> Iterator[str]:
    """URL of an empty Redis database; each process of a test run has its own."""
    from musehub_plugin.testing import services

    with services.redis() as url:
        yield url


@pytest.fixture(scope="session")
def musehub_s3_url() -> Iterator[str]:
    """URL of an S3 bucket or prefix; `musehub_plugin.testing.services.s3_config` makes settings of it."""
    from musehub_plugin.testing import services

    with services.s3() as url:
        yield url


@pytest.fixture
def musehub_storage() -> MemoryStorage:
    """Object storage in memory, empty."""
    from musehub_plugin.storage.memory import MemoryStorage

    return MemoryStorage()


@pytest.fixture
def musehub_make_app(tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    """Function that makes a Flask app with the plugin: `musehub_make_app(MUSEHUB_PRESIGN_TTL=60)`.

    Each app has a SQLite database and object storage in memory of its own, with the tables made, unless the settings
    say otherwise. Callers are known by `Authorization: Bearer <user id>`; `musehub_plugin.testing.apps.BAD_TOKEN`
    stands for credentials that do not hold. No app context is pushed.
    """
    from musehub_plugin.testing.apps import close_app, make_app

    made: list[Flask] = []

    def make(**config: Any) -> Flask:
        directory = tmp_path / f"musehub-{len(made)}"
        directory.mkdir()
        app = make_app(directory, config)
        made.append(app)
        return app

    yield make
    for app in made:
        close_app(app)


@pytest.fixture
def musehub_app(musehub_make_app: Callable[..., Flask], musehub_storage: MemoryStorage) -> Flask:
    """A Flask app with the plugin, as `musehub_make_app` makes it, whose object storage is `musehub_storage`.

    A test of one's own host overrides this fixture with that host.
    """
    return musehub_make_app(MUSEHUB_STORAGE=musehub_storage)


@pytest.fixture
def musehub_client(musehub_app: Flask) -> Callable[..., FlaskClient]:
    """Function that makes a test client of `musehub_app`: `musehub_client("alice")`, `musehub_client()` anonymous."""
    from musehub_plugin.testing.apps import client_for

    def make(identity: str | None = None) -> FlaskClient:
        return client_for(musehub_app, identity)

    return make


@pytest.fixture
def musehub_run_jobs(musehub_app: Flask) -> Callable[[], int]:
    """Function that does in this process what a worker would, and returns how many mpacks waited to be indexed."""
    from musehub_plugin.testing.apps import run_jobs

    def run() -> int:
        return run_jobs(musehub_app)

    return run
