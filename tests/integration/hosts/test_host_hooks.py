"""A host's own repos, users, policy and receivers of signals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blinker import NamedSignal
from flask import Flask
from flask_login import LoginManager, UserMixin, login_user
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select

from musehub_plugin import Identity, MuseHub, signals
from musehub_plugin.auth.flask_login import flask_login_identity
from musehub_plugin.gc import collect
from musehub_plugin.models import MusehubBranch, MusehubCommit, MusehubRepo
from musehub_plugin.testing.apps import bearer_user
from tests.exchange import Caller
from tests.integration.hosts.conftest import MakeHost
from tests.integration.hosts.hosting import hub_of, make_tables, new_host, round_trip


@dataclass
class Project:
    """A repo as a host keeps it, in a table of its own."""

    repo_id: Any
    owner: str = "alice"
    slug: str = "songs"
    visibility: str = "public"
    owner_user_id: Any = "alice"
    deleted_at: Any = None


@pytest.fixture
def host_of(request: pytest.FixtureRequest, tmp_path: Path, closing: Callable[[Flask], None]) -> Callable[..., Flask]:
    """Makes a host on either database whose own repos are the given ones."""

    def make(*projects: Project, database: str = "sqlite") -> Flask:
        app = new_host(tmp_path)
        app.config.update(request.getfixturevalue(f"{database}_config"))
        musehub = MuseHub()
        musehub.identity_loader(bearer_user)

        @musehub.repo_loader
        def load(owner: str, slug: str) -> Project | None:
            return next((item for item in projects if (item.owner, item.slug) == (owner, slug)), None)

        musehub.init_app(app, SQLAlchemy(app))
        closing(app)
        make_tables(app)
        return app

    return make


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_host_s_integer_ids_are_kept_as_text(host_of: Callable[..., Flask], database: str) -> None:
    app = host_of(Project(42), database=database)
    caller = Caller(app, "alice")
    round_trip(caller)
    assert caller.refs("alice/songs").get_json()["repo_id"] == "42"
    with app.app_context():
        assert hub_of(app).sqlalchemy.session.execute(select(MusehubBranch.repo_id)).scalars().all() == ["42"]


def test_an_owner_s_integer_id_is_the_identity_of_the_same_digits(host_of: Callable[..., Flask]) -> None:
    app = host_of(Project("r", owner_user_id=7))
    round_trip(Caller(app, "7"))


def test_an_ownerless_private_repo_is_nobody_s(host_of: Callable[..., Flask]) -> None:
    app = host_of(Project("r", owner_user_id=None, visibility="private"))
    assert Caller(app, "None").refs("alice/songs").status_code == 404


def test_the_plugin_s_own_repos_are_not_asked_where_a_host_has_its_own(host_of: Callable[..., Flask]) -> None:
    app = host_of()
    with app.app_context():
        session = hub_of(app).sqlalchemy.session
        session.add(MusehubRepo(owner="alice", slug="songs", visibility="public", owner_user_id="alice"))
        session.commit()
    assert Caller(app, "alice").refs("alice/songs").status_code == 404


def test_who_creates_a_repo_that_the_host_does_not_look_for_is_warned(host_of: Callable[..., Flask]) -> None:
    command = ["musehub", "repo", "create", "alice/songs", "--user-id", "1"]
    done = host_of().test_cli_runner().invoke(args=command)
    assert (done.exit_code, "warning: this host has a repo_loader" in done.stderr) == (0, True)


def test_a_host_s_default_branch_is_in_the_refs(host_of: Callable[..., Flask]) -> None:
    project = Project("r")
    project.default_branch = "trunk"  # type: ignore[attr-defined]  # hosts may have it
    assert Caller(host_of(project)).refs("alice/songs").get_json()["default_branch"] == "trunk"


def test_without_a_default_branch_it_is_main(host_of: Callable[..., Flask]) -> None:
    assert Caller(host_of(Project("r"))).refs("alice/songs").get_json()["default_branch"] == "main"


@pytest.mark.parametrize("deleted", [True, "2026-01-01"])
def test_a_host_s_deleted_repo_is_not_found(host_of: Callable[..., Flask], deleted: object) -> None:
    assert Caller(host_of(Project("r", deleted_at=deleted))).refs("alice/songs").status_code == 404


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_what_a_host_s_deleted_repo_held_is_collected_once_the_host_has_said_so(
    host_of: Callable[..., Flask], database: str
) -> None:
    project = Project(7)
    app = host_of(project, database=database)
    round_trip(Caller(app, "alice"))
    project.deleted_at = datetime.now(UTC)
    with app.app_context():
        hub = hub_of(app)
        session = hub.sqlalchemy.session
        assert collect(hub, hub.database(), grace=1).commits == 0
        two_days_ago = datetime.now(UTC) - timedelta(days=2)
        session.add(MusehubRepo(repo_id="7", owner="alice", slug="songs", deleted_at=two_days_ago))
        session.commit()
        collected = collect(hub, hub.database())
        assert (collected.repos, collected.commits, collected.blobs) == (1, 1, 1)
        assert [session.query(model).count() for model in (MusehubRepo, MusehubBranch, MusehubCommit)] == [0, 0, 0]


def test_hooks_run_once_a_request(tmp_path: Path, closing: Callable[[Flask], None]) -> None:
    app = new_host(tmp_path)
    musehub = MuseHub()
    calls: list[str] = []

    @musehub.identity_loader
    def load_identity(request: Any) -> Identity | None:
        calls.append("identity")
        return bearer_user(request)

    @musehub.repo_loader
    def load_repo(owner: str, slug: str) -> Project:
        calls.append("repo")
        return Project("r")

    musehub.init_app(app, SQLAlchemy(app))
    closing(app)
    make_tables(app)
    assert Caller(app, "alice").refs("alice/songs").status_code == 200
    assert calls == ["identity", "repo"]


def test_a_hook_that_fails_is_a_500_that_says_nothing(tmp_path: Path, closing: Callable[[Flask], None]) -> None:
    app = new_host(tmp_path)
    musehub = MuseHub()

    @musehub.repo_loader
    def load_repo(owner: str, slug: str) -> Project:
        raise LookupError("canary")

    musehub.init_app(app, SQLAlchemy(app))
    closing(app)
    answer = Caller(app).refs("alice/songs")
    assert answer.status_code == 500
    assert "canary" not in answer.text


def test_a_policy_that_gives_a_collaborator_the_right_to_write(
    tmp_path: Path, closing: Callable[[Flask], None]
) -> None:
    app = new_host(tmp_path)
    musehub = MuseHub()
    musehub.identity_loader(bearer_user)
    musehub.repo_loader(lambda owner, slug: Project("r", visibility="private"))

    @musehub.access_policy
    def may(identity: Identity | None, action: str, repo: Any) -> bool:
        return identity is not None and identity.user_id in {"alice", "bob"}

    musehub.init_app(app, SQLAlchemy(app))
    closing(app)
    make_tables(app)
    round_trip(Caller(app, "bob"))
    assert Caller(app, "carol").refs("alice/songs").status_code == 404


class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    """An account of the host, whose id is a number."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.username = f"user {number}"


def test_a_user_who_logged_in_by_flask_login_may_push(tmp_path: Path, closing: Callable[[Flask], None]) -> None:
    app = new_host(tmp_path)
    logins = LoginManager(app)

    @logins.user_loader  # type: ignore[untyped-decorator]  # Flask-Login has no types
    def load_user(user_id: str) -> User:
        return User(int(user_id))

    @app.get("/login/<int:number>")
    def log_in(number: int) -> str:
        login_user(User(number))
        return "welcome"

    musehub = MuseHub()
    musehub.identity_loader(flask_login_identity())
    musehub.repo_loader(lambda owner, slug: Project(1, owner_user_id=7, visibility="private"))
    musehub.init_app(app, SQLAlchemy(app))
    closing(app)
    make_tables(app)
    owner, other, anonymous = (Caller(app) for _ in range(3))
    owner.get("/login/7")
    other.get("/login/8")
    round_trip(owner)
    assert [caller.refs("alice/songs").status_code for caller in (other, anonymous)] == [404, 404]


@contextmanager
def received(signal: NamedSignal, app: Flask) -> Iterator[list[SimpleNamespace]]:
    """Collect what a signal sends for one app."""
    found: list[SimpleNamespace] = []

    def receive(sender: Flask, **arguments: Any) -> None:
        assert sender is app
        found.append(SimpleNamespace(**arguments))

    with signal.connected_to(receive, app):
        yield found


def test_a_push_sends_pushed_and_indexed_with_the_app_as_sender(make_host: MakeHost) -> None:
    app = make_host()
    with received(signals.pushed, app) as pushed, received(signals.indexed, app) as indexed:
        pulled = round_trip(Caller(app, "alice"))
    (push,), (index,) = pushed, indexed
    assert (push.branch, push.head_commit_id) == ("main", next(iter(pulled.commits)))
    assert (push.identity.user_id, push.repo.slug) == ("alice", "songs")
    assert index.blob_count == 1


def test_a_fetch_sends_fetched_with_the_app_as_sender(make_host: MakeHost) -> None:
    app = make_host()
    with received(signals.fetched, app) as fetched:
        round_trip(Caller(app, "alice"))
    assert [(call.repo.slug, call.answer.commit_count) for call in fetched] == [("songs", 1)]


def test_a_refused_push_sends_nothing(make_host: MakeHost) -> None:
    app = make_host()
    with received(signals.pushed, app) as pushed:
        assert Caller(app, "bob").presign("alice/songs", b"x").status_code == 403
    assert pushed == []


def test_signals_of_one_app_do_not_reach_receivers_of_another(
    make_host: MakeHost, host_of: Callable[..., Flask]
) -> None:
    other = Flask("other")
    with received(signals.pushed, other) as pushed:
        round_trip(Caller(make_host(), "alice"))
    assert pushed == []
