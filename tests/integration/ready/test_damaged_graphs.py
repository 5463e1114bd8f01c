"""A repo's packed history that is altered costs time and nothing else: its rows say the same."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import select, update

from musehub_plugin import ids
from musehub_plugin.repack import repack
from musehub_plugin.scrub import Problem, scrub
from musehub_plugin.store.models import MusehubGraphSegment
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.exchange import Caller

REPO = "alice/songs"


@pytest.fixture
def repo_id(hub: HubEnvironment) -> str:
    return hub.create_repo(REPO, owner_user_id="alice")


@pytest.fixture
def line(hub: HubEnvironment, repo_id: str) -> tuple[History, list[str]]:
    """Five commits that were pushed, one resting on the other."""
    history, commits = History(), list[str]()
    for number in range(5):
        commits.append(history.commit({"song": b"%d" % number}, commits[-1:]))
    assert hub.caller("alice").push(REPO, history.pack(), commits[-1], branch="main").status_code == 200
    return history, commits


def segments(hub: HubEnvironment) -> list[bytes]:
    with hub.session() as session:
        return list(session.execute(select(MusehubGraphSegment.data)).scalars())


def alter(hub: HubEnvironment, how: str) -> None:
    """Alter the bytes of the one segment; one of another version of the plugin is as that wrote it."""
    (data,) = segments(hub)
    altered = {"cut": data[:-1], "turned": data[:-1] + bytes([data[-1] ^ 1]), "of another version": b"?" + data[1:]}
    values: dict[str, bytes | str] = {"data": altered[how]}
    if how == "of another version":
        values["segment_id"] = ids.from_digest(hashlib.sha256(altered[how]).digest())
    with hub.session() as session:
        session.execute(update(MusehubGraphSegment).values(values))
        session.commit()


def scrubbed(hub: HubEnvironment, *, repair: bool) -> list[Problem]:
    with hub.app.app_context():
        return scrub(hub_of(hub.app), hub_of(hub.app).database(), repair=repair).problems


@pytest.mark.parametrize("how", ["cut", "turned", "of another version"])
def test_what_is_asked_of_an_altered_graph_is_answered_from_rows(
    hub: HubEnvironment, line: tuple[History, list[str]], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, commits = line
    alter(hub, how)
    # Another process, which has not read it.
    caller = Caller(hub.make_app())
    answer = caller.pull(REPO, [commits[4]], have=[commits[2]])
    assert set(answer.commits) == set(commits[3:])
    assert "integrity: graph-damaged" in caplog.text
    # It is looked at once, not for each request.
    caplog.clear()
    caller.pull(REPO, [commits[3]], have=[commits[2]])
    assert "integrity" not in caplog.text


def test_a_push_and_a_repack_make_an_altered_graph_anew(
    hub: HubEnvironment, repo_id: str, line: tuple[History, list[str]]
) -> None:
    history, commits = line
    alter(hub, "turned")
    tip = history.commit({"song": b"new"}, [commits[4]])
    app = hub.make_app()
    caller = Caller(app, "alice")
    pack = history.pack(want=[tip], have=[commits[4]])
    assert caller.push(REPO, pack, tip, branch="main", expected_head=commits[4]).status_code == 200
    with app.app_context():
        repack(hub_of(app), hub_of(app).database(), repo_id)
    assert scrubbed(hub, repair=False) == []
    assert sum(map(len, segments(hub))) > 0
    assert set(caller.pull(REPO, [tip], have=[commits[3]]).commits) == {tip, commits[4]}


def test_verify_finds_an_altered_graph_and_its_repair_drops_it(
    hub: HubEnvironment, repo_id: str, line: tuple[History, list[str]]
) -> None:
    alter(hub, "turned")
    (found,) = scrubbed(hub, repair=False)
    assert (found.kind, found.subject, found.repaired) == ("graph-damaged", repo_id, False)
    (found,) = scrubbed(hub, repair=True)
    assert (found.kind, found.repaired) == ("graph-damaged", True)
    assert segments(hub) == []
    assert scrubbed(hub, repair=False) == []
