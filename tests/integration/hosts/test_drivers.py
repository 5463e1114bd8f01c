"""Hosts on psycopg 3, the driver that SQLAlchemy 2.1 takes for a URL that names none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import make_url, text

from musehub_plugin import MuseHub
from musehub_plugin.testing import History
from musehub_plugin.testing.apps import bearer_user
from musehub_plugin.testing.services import fresh_database
from tests.exchange import Caller
from tests.integration.hosts.hosting import hub_of, make_repo, make_tables, new_host, round_trip

pytest.importorskip("psycopg")


@pytest.fixture
def host(tmp_path: Path, musehub_postgres_url: str, closing: Callable[[Flask], None]) -> Iterator[Flask]:
    with fresh_database(musehub_postgres_url) as url:
        app = new_host(tmp_path)
        named = make_url(url).set(drivername="postgresql+psycopg")
        app.config["SQLALCHEMY_DATABASE_URI"] = named.render_as_string(hide_password=False)
        musehub = MuseHub()
        musehub.identity_loader(bearer_user)
        musehub.init_app(app, SQLAlchemy(app))
        closing(app)
        make_tables(app)
        make_repo(app)
        yield app


def test_what_is_pushed_by_way_of_psycopg_is_fetched(host: Flask) -> None:
    round_trip(Caller(host, "alice"))


def test_a_database_that_only_reads_is_unavailable_by_way_of_psycopg(host: Flask) -> None:
    pack = History()
    pack.commit({"song.txt": b"la la la"})
    with host.app_context():
        engine = hub_of(host).sqlalchemy.engine
        with engine.begin() as connection:
            connection.execute(text(f"ALTER DATABASE {engine.url.database} SET default_transaction_read_only = on"))
        engine.dispose()
    assert Caller(host, "alice").presign("alice/songs", pack.pack()).status_code == 503
