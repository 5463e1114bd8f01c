"""The contract's section 2: `GET refs` and `POST negotiate`."""

from __future__ import annotations

import functools

import msgpack
import pytest

from musehub_plugin import ids
from musehub_plugin.testing import History
from tests.environment import HubEnvironment, assert_same
from tests.exchange import MSGPACK

REPO = "alice/songs"
UNKNOWN = ids.fake_id("a commit that nobody has")


def chain(hub: HubEnvironment, length: int) -> list[str]:
    hub.create_repo(REPO)
    history = History()
    commits: list[str] = []
    for number in range(length):
        commits.append(history.commit({"a": b"%d" % number}, commits[-1:]))
    assert hub.caller("alice").push(REPO, history.pack(), commits[-1]).status_code == 200
    return commits


def test_refs_name_the_repo_its_branches_and_its_default_branch(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO, default_branch="trunk")
    history = History()
    one, two = history.commit({"a": b"1"}), history.commit({"a": b"2"})
    alice = hub.caller("alice")
    alice.push(REPO, history.pack(), one, branch="trunk")
    alice.push(REPO, history.pack(), two, branch="feature/x")
    answer = hub.caller().refs(REPO)
    assert answer.status_code == 200
    body = answer.get_json()
    assert isinstance(body.pop("capabilities"), list)
    assert body == {
        "repo_id": repo_id,
        "default_branch": "trunk",
        "branch_heads": {"trunk": one, "feature/x": two},
    }


def test_an_empty_repo_has_no_branches_and_main_as_its_default(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    body = hub.caller().refs(REPO).get_json()
    assert (body["branch_heads"], body["default_branch"]) == ({}, "main")


def test_refs_are_msgpack_unless_json_is_preferred(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    caller = hub.caller()
    for accept in ("", "*/*", "application/x-msgpack, application/json"):
        answer = caller.get(f"/{REPO}/refs", accept=accept)
        assert answer.content_type == MSGPACK
        assert msgpack.unpackb(answer.data) == caller.refs(REPO).get_json()


def test_refs_that_did_not_change_are_304(hub: HubEnvironment) -> None:
    chain(hub, 1)
    caller = hub.caller()
    etag = caller.refs(REPO).headers["ETag"]
    answer = caller.get(f"/{REPO}/refs", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.data) == (304, b"")
    assert answer.headers["ETag"] == etag


def test_refs_that_changed_have_another_etag(hub: HubEnvironment) -> None:
    commits = chain(hub, 2)
    caller = hub.caller()
    etag = caller.refs(REPO).headers["ETag"]
    history = History()
    new = history.commit({"a": b"new"}, [commits[-1]])
    assert hub.caller("alice").push(REPO, history.pack(), new).status_code == 200
    answer = caller.get(f"/{REPO}/refs", headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer.get_json()["branch_heads"] == {"main": new}


def test_json_and_msgpack_refs_have_different_etags(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    caller = hub.caller()
    assert caller.refs(REPO).headers["ETag"] != caller.get(f"/{REPO}/refs", accept=MSGPACK).headers["ETag"]


def test_an_etag_opens_no_repo_that_is_closed(hub: HubEnvironment) -> None:
    hub.create_repo(REPO, visibility="private")
    etag = hub.caller("alice").refs(REPO).headers["ETag"]
    bob = hub.caller("bob")
    ask = functools.partial(bob.get, headers={"If-None-Match": etag})
    closed = hub.observe(lambda: ask(f"/{REPO}/refs"))
    assert closed.response.status_code == 404
    assert_same(closed, hub.observe(lambda: ask("/alice/nothing/refs")))


def test_negotiation_acknowledges_the_haves_that_the_repo_holds_in_their_order(hub: HubEnvironment) -> None:
    first, second, third = chain(hub, 3)
    body = hub.caller().negotiate(REPO, [third], [second, UNKNOWN, first]).get_json()
    assert body == {"ack": [second, first], "common_base": second, "ready": True}


def test_negotiation_without_common_commits_is_not_ready(hub: HubEnvironment) -> None:
    *_, tip = chain(hub, 3)
    body = hub.caller().negotiate(REPO, [tip], [UNKNOWN]).get_json()
    assert body == {"ack": [], "common_base": None, "ready": False}


def test_a_have_that_no_want_reaches_is_acknowledged_and_no_base(hub: HubEnvironment) -> None:
    first, second = chain(hub, 2)
    body = hub.caller().negotiate(REPO, [first], [second]).get_json()
    assert (body["ack"], body["common_base"]) == ([second], None)


@pytest.mark.parametrize(("want", "status"), [([], 422), (["main"], 422), ([UNKNOWN], 404)])
def test_negotiation_checks_its_wants_as_fetch_does(hub: HubEnvironment, want: list[str], status: int) -> None:
    chain(hub, 1)
    assert hub.caller().negotiate(REPO, want).status_code == status
