"""Connections to PostgreSQL that are cut in the middle of a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from musehub_plugin import signals
from musehub_plugin.models import MusehubRepo
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import make_commit
from musehub_plugin.testing.services import libpq_url
from tests.environment import HubEnvironment

CUT = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database()
"""


@pytest.fixture
def hub(tmp_path: Path, postgres_config: dict[str, Any], s3_config: dict[str, Any]) -> Iterator[HubEnvironment]:
    pool = {"SQLALCHEMY_ENGINE_OPTIONS": {"pool_pre_ping": True}}
    environment = HubEnvironment("postgresql+s3", tmp_path, {**postgres_config, **s3_config, **pool})
    yield environment
    environment.close()


@contextmanager
def cut_at(step: str, url: str) -> Iterator[None]:
    """Cut every connection to a database once `step` is reached."""

    def cut(sender: None, *, name: str) -> None:
        if name == step:
            connection = psycopg2.connect(libpq_url(url))
            try:
                connection.cursor().execute(CUT)
            finally:
                connection.close()

    with signals.step.connected_to(cut):
        yield


def read_something(hub: HubEnvironment) -> None:
    """Look up a user, as a host does before the plugin's turn comes."""
    hub_of(hub.app).sqlalchemy.session.execute(text("SELECT 1"))


def test_what_the_host_had_begun_is_the_hosts_to_end(hub: HubEnvironment) -> None:
    hub.create_repo()
    with hub.session() as session:
        session.add(MusehubRepo(repo_id="pending", owner="bob", slug="drafts"))
        session.flush()
        # In one context, as tests of a host do it.
        hub.caller().refs("alice/songs")
        assert session.get(MusehubRepo, "pending") is not None


@pytest.mark.parametrize("host_has_begun", [False, True])
@pytest.mark.parametrize(("step", "status"), [("fetch.planned", 503), ("fetch.packed", 200), ("fetch.stored", 200)])
def test_r13_a_fetch_whose_connections_are_cut_is_answered(
    hub: HubEnvironment, postgres_config: dict[str, Any], step: str, status: int, host_has_begun: bool
) -> None:
    if host_has_begun:
        hub.app.before_request(lambda: read_something(hub))
    repo_id = hub.create_repo()
    with hub.session() as session:
        head = make_commit(session, repo_id, {"a.txt": b"one"}, branch="main")
    caller = hub.caller()
    with cut_at(step, postgres_config["SQLALCHEMY_DATABASE_URI"]):
        answers = [caller.fetch("alice/songs", [head])]
    answers.append(caller.fetch("alice/songs", [head]))
    assert [answer.status_code for answer in answers] == [status, 200]


def test_r14_a_database_that_has_failed_is_not_asked_to_roll_back(
    tmp_path: Path, postgres_config: dict[str, Any]
) -> None:
    hub = HubEnvironment("postgresql", tmp_path, postgres_config)
    plugin = hub_of(hub.app)
    asked: list[bool] = []

    def begin_and_fail(*_: object) -> bool:
        read_something(hub)
        # SQLAlchemy tells of a rollback where it sends none, too: a connection that it has given up has none to send.
        engine = plugin.sqlalchemy.engines[None]
        event.listen(engine, "rollback", lambda connection: asked.append(not connection.invalidated))
        # A second connection, say, to a machine from which nothing comes back: the first would be waited for as well.
        raise OperationalError("SELECT 1", {}, TimeoutError("no answer"))

    plugin.hooks.policy = begin_and_fail
    hub.create_repo("alice/songs")
    status = hub.caller().refs("alice/songs").status_code
    hub.close()
    assert (status, any(asked)) == (503, False)


def test_r14_a_pool_that_is_in_use_is_waited_for_once(tmp_path: Path, postgres_config: dict[str, Any]) -> None:
    waits = 0

    class CountedPool(QueuePool):
        def connect(self) -> PoolProxiedConnection:
            nonlocal waits
            waits += 1
            return super().connect()

    options = {"poolclass": CountedPool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    hub = HubEnvironment("postgresql", tmp_path, {**postgres_config, "SQLALCHEMY_ENGINE_OPTIONS": options})
    with hub.app.app_context():
        held = hub_of(hub.app).sqlalchemy.engines[None].connect()
    waits = 0
    status = hub.caller().refs("alice/songs").status_code
    held.close()
    hub.close()
    assert (status, waits) == (503, 1)


def test_a_hosts_policy_may_ask_the_database_where_the_pool_has_one_connection(
    tmp_path: Path, postgres_config: dict[str, Any]
) -> None:
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    hub = HubEnvironment("postgresql", tmp_path, {**postgres_config, "SQLALCHEMY_ENGINE_OPTIONS": options})
    plugin = hub_of(hub.app)
    plugin.hooks.policy = lambda *_: plugin.sqlalchemy.session.execute(text("SELECT 1")).scalar() == 1
    hub.create_repo("alice/songs")
    status = hub.caller().refs("alice/songs").status_code
    hub.close()
    assert status == 200
