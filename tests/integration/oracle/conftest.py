"""Two empty databases, a PostgreSQL and a SQLite one, for plans that must not differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from musehub_plugin.models import Base
from musehub_plugin.store.session import Database


@pytest.fixture(scope="module")
def databases(musehub_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Database]]:
    """A unit of work on each database, by dialect; tests roll back what they write."""
    from musehub_plugin.testing.services import fresh_database

    with ExitStack() as stack:
        urls = {
            "postgresql": stack.enter_context(fresh_database(musehub_postgres_url)),
            "sqlite": f"sqlite:///{tmp_path_factory.mktemp('oracle') / 'hub.db'}",
        }
        found = {}
        for dialect, url in urls.items():
            engine = create_engine(url)
            stack.callback(engine.dispose)
            Base.metadata.create_all(engine)
            found[dialect] = Database(stack.enter_context(Session(engine)))
        yield found
