"""What an answer takes: SQL statements and calls of object storage, however long the history is."""

from __future__ import annotations

import pytest

from musehub_plugin import ids
from musehub_plugin.repack import repack
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment

REPO = "alice/songs"
WAYS = ((), ("inline",), ("inline", "mpacks", "thin"))
OWN = 2
"""Statements of the plugin's own for an answer that is ready, who is asking and what they may included."""


def line(hub: HubEnvironment, commits: int, repo: str = REPO) -> tuple[History, list[str]]:
    """Push a line of commits of one file each; return it, and its commits in their order."""
    hub.create_repo(repo)
    history = History()
    made: list[str] = []
    for number in range(commits):
        made.append(history.commit({"a.txt": f"{number}".encode(), "b.txt": b"the same"}, made[-1:]))
    assert hub.caller("alice").push(repo, history.pack(), made[-1]).status_code == 200
    hub.run_jobs()
    return history, made


def pushed_on(hub: HubEnvironment, history: History, tip: str, repo: str = REPO) -> str:
    """Push one more commit and return its id."""
    head = history.commit({"a.txt": f"on {tip}".encode(), "b.txt": b"the same"}, [tip])
    assert hub.caller("alice").push(repo, history.pack(have=[tip]), head).status_code == 200
    hub.run_jobs()
    return head


@pytest.mark.parametrize("capabilities", WAYS, ids=["by URL", "inline", "all"])
def test_a_ready_answer_takes_two_statements_and_no_call_of_storage(
    hub: HubEnvironment, capabilities: tuple[str, ...]
) -> None:
    _, made = line(hub, 5)
    caller = hub.caller()
    first = caller.fetch(REPO, [made[-1]], [made[2]], capabilities)
    seen = hub.observe(lambda: caller.fetch(REPO, [made[-1]], [made[2]], capabilities))
    assert seen.response.get_json()["mpack_id"] == first.get_json()["mpack_id"]
    assert len(seen.statements) <= OWN, seen.statements
    assert not {"open_mpack", "get", "put_mpack", "put"} & set(seen.storage_calls)


def test_a_ready_answer_of_several_packs_takes_two_statements(hub: HubEnvironment) -> None:
    history, made = line(hub, 5)
    with hub.app.app_context():
        database = hub_of(hub.app).database()
        repack(hub_of(hub.app), database, _repo_id(hub))
    head = pushed_on(hub, history, made[-1])
    caller = hub.caller()
    assert len(caller.fetch(REPO, [head], [], ["mpacks"]).get_json()["mpacks"]) == 2
    seen = hub.observe(lambda: caller.fetch(REPO, [head], [], ["mpacks"]))
    assert len(seen.response.get_json()["mpacks"]) == 2
    assert len(seen.statements) <= OWN, seen.statements


def test_nothing_new_takes_two_statements_and_no_call_of_storage(hub: HubEnvironment) -> None:
    _, made = line(hub, 5)
    caller = hub.caller()
    caller.fetch(REPO, [made[-1]], [made[-1]])
    seen = hub.observe(lambda: caller.fetch(REPO, [made[-1]], [made[-1]]))
    assert seen.response.get_json()["mpack_id"] is None
    assert len(seen.statements) <= OWN, seen.statements
    assert seen.storage_calls == ()


@pytest.mark.parametrize("capabilities", WAYS, ids=["by URL", "inline", "all"])
def test_a_first_fetch_of_one_commit_takes_as_many_statements_whatever_the_history(
    hub: HubEnvironment, capabilities: tuple[str, ...]
) -> None:
    taken = []
    for repo, commits in (("alice/short", 100), ("alice/long", 2000)):
        history, made = line(hub, commits, repo)
        head = pushed_on(hub, history, made[-1], repo)
        caller = hub.caller()
        seen = hub.observe(lambda: caller.fetch(repo, [head], [made[-1]], capabilities))  # noqa: B023 - called at once
        assert seen.response.get_json()["commit_count"] == 1
        taken.append(seen.statements)
    assert len(taken[0]) == len(taken[1]), taken


def test_a_push_of_one_commit_takes_no_more_statements_on_a_longer_history(hub: HubEnvironment) -> None:
    taken = []
    for repo, commits in (("alice/short", 100), ("alice/long", 2000)):
        history, made = line(hub, commits, repo)
        tip = pushed_on(hub, history, made[-1], repo)
        head = history.commit({"a.txt": b"one more", "b.txt": b"the same"}, [tip])
        pack = history.pack(have=[tip])
        caller = hub.caller("alice")
        ticket = caller.presign(repo, pack)
        assert caller.upload(ticket.get_json(), pack) == 200
        seen = hub.observe(lambda: caller.unpack(repo, ids.blob_id(pack), head))  # noqa: B023 - called at once
        assert seen.response.status_code == 200
        taken.append(seen.statements)
    assert len(taken[1]) <= len(taken[0]), taken


def _repo_id(hub: HubEnvironment) -> str:
    with hub.app.app_context():
        found = hub_of(hub.app).access.find(*REPO.split("/"))
        assert found is not None
        return str(found.repo_id)
