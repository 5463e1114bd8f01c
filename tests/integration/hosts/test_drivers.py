"""Hosts on psycopg 3, the driver that SQLAlchemy 2.1 takes for a URL that names none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import make_url, text

from musehub_plugin.testing import History
from musehub_plugin.testing.services import fresh_database
from tests.exchange import Caller
from tests.integration.hosts.conftest import MakeHost
from tests.integration.hosts.hosting import hub_of, round_trip

pytest.importorskip("psycopg")


@pytest.fixture
def host(musehub_postgres_url: str, make_host: MakeHost) -> Iterator[Flask]:
    with fresh_database(musehub_postgres_url) as url:
        named = make_url(url).set(drivername="postgresql+psycopg")
        yield make_host(SQLALCHEMY_DATABASE_URI=named.render_as_string(hide_password=False))


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
