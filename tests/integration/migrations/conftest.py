"""Empty databases of both kinds."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from musehub_plugin.testing.services import fresh_database


@pytest.fixture(params=["postgresql", "sqlite"])
def new_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Engine]]:
    """Makes empty databases of one kind."""
    with ExitStack() as stack:

        def make() -> Engine:
            if request.param == "postgresql":
                url = stack.enter_context(fresh_database(request.getfixturevalue("musehub_postgres_url")))
            else:
                url = f"sqlite:///{tmp_path / secrets.token_hex(4)}.db"
            engine = create_engine(url)
            stack.callback(engine.dispose)
            return engine

        yield make


@pytest.fixture
def engine(new_engine: Callable[[], Engine]) -> Engine:
    """An empty database."""
    return new_engine()
