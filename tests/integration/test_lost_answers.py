"""A ready answer names a pack and does not look whether it is there: verify does, and forgets what is not."""

from __future__ import annotations

import pytest

from musehub_plugin import ids
from musehub_plugin.scrub import Problem, scrub
from musehub_plugin.storage.base import Deletes
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.exchange import Caller
from tests.integration.ready.test_repack import Growing

REPO = "alice/songs"


@pytest.fixture
def line(hub: HubEnvironment) -> tuple[History, list[str]]:
    """Five commits that were pushed, one resting on the other."""
    hub.create_repo(REPO)
    history, commits = History(), list[str]()
    for number in range(5):
        commits.append(history.commit({"song": b"%d" % number}, commits[-1:]))
    assert hub.caller("alice").push(REPO, history.pack(), commits[-1]).status_code == 200
    hub.run_jobs()
    return history, commits


def scrubbed(hub: HubEnvironment, *, repair: bool) -> list[Problem]:
    with hub.app.app_context():
        return scrub(hub_of(hub.app), hub_of(hub.app).database(), repair=repair).problems


def lose(hub: HubEnvironment, mpack_id: str) -> None:
    assert isinstance(hub.storage, Deletes)
    hub.storage.delete_mpack(mpack_id)


def test_a_good_answer_is_no_problem(hub: HubEnvironment, line: tuple[History, list[str]]) -> None:
    _, commits = line
    hub.caller().pull(REPO, commits[4:], commits[:1])
    assert scrubbed(hub, repair=True) == []


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_r34_an_answer_whose_pack_is_not_what_it_was_is_found(
    hub: HubEnvironment, line: tuple[History, list[str]], how: str
) -> None:
    _, commits = line
    mpack_id = hub.caller().pull(REPO, commits[4:], commits[:1]).answer["mpack_id"]
    if how == "missing":
        lose(hub, mpack_id)
    else:
        hub.storage.put_mpack(mpack_id, b"other bytes")
    (found,) = scrubbed(hub, repair=False)
    assert (found.kind, found.subject, found.repaired) == (f"answer-{how}", mpack_id, False)


def test_r34_a_repair_forgets_a_lost_answer_which_is_then_made_anew(
    hub: HubEnvironment, line: tuple[History, list[str]]
) -> None:
    _, commits = line
    lose(hub, hub.caller().pull(REPO, commits[4:], commits[:1]).answer["mpack_id"])
    (found,) = scrubbed(hub, repair=True)
    assert (found.kind, found.repaired) == ("answer-missing", True)
    assert set(hub.caller().pull(REPO, commits[4:], commits[:1]).commits) == set(commits[1:])


def test_r34_after_a_repair_what_was_answered_with_a_lost_pushed_pack_is_503(
    hub: HubEnvironment, line: tuple[History, list[str]]
) -> None:
    history, commits = line
    answer = hub.caller().pull(REPO, commits[4:]).answer
    assert answer["mpack_id"] == ids.blob_id(history.pack())
    lose(hub, answer["mpack_id"])
    (found,) = scrubbed(hub, repair=True)
    assert (found.kind, found.repaired) == ("mpack-missing", False)
    # Another process, which has none of its bytes.
    assert Caller(hub.make_app()).fetch(REPO, commits[4:]).status_code == 503


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_r34_clones_do_not_begin_with_a_lost_pack_once_it_was_repaired_and_pushed_again(
    hub: HubEnvironment, how: str
) -> None:
    growing = Growing(hub)
    growing.push(4)
    growing.repack()
    (clone_pack,) = growing.chain()
    if how == "missing":
        lose(hub, clone_pack.mpack_id)
    else:
        hub.storage.put_mpack(clone_pack.mpack_id, b"other bytes")
    assert next(problem.kind for problem in scrubbed(hub, repair=True)) == f"mpack-{how}"
    assert growing.caller.push(REPO, growing.history.pack(), growing.made[-1]).status_code == 200
    hub.run_jobs()
    assert hub.caller().pull(REPO, growing.made[-1:]).blobs == growing.history.blobs


def test_r34_a_lost_pack_whose_blobs_are_elsewhere_is_repaired_once(hub: HubEnvironment) -> None:
    growing = Growing(hub)
    growing.push(3)
    growing.repack()
    (clone_pack,) = growing.chain()
    # The same blobs in another pack.
    head = growing.history.commit({"c.txt": b"more"}, growing.made[-1:])
    assert growing.caller.push(REPO, growing.history.pack(), head).status_code == 200
    hub.run_jobs()
    lose(hub, clone_pack.mpack_id)
    (found,) = scrubbed(hub, repair=True)
    assert (found.kind, found.repaired) == ("mpack-missing", True)
    assert scrubbed(hub, repair=False) == []
    assert hub.caller().pull(REPO, [head]).blobs == growing.history.blobs
