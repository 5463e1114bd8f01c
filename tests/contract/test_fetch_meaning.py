"""The contract's section 2, "Meaning": what a fetch sends, on graphs of any shape, from a push to the parsed pack."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.models import MusehubCommit, MusehubCommitGraph, MusehubSnapshot
from musehub_plugin.testing import History, make_commit
from tests.effort import effort
from tests.environment import HubEnvironment

REPO = "alice/songs"
PATHS = ("a.txt", "b/c.txt", "b/d.txt")


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Histories of up to nine commits: several roots, merges of up to three parents, blobs and trees that recur."""
    history = History()
    for number in range(draw(st.integers(1, 9))):
        known = list(history.commits)
        parents = draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
        contents = draw(st.lists(st.integers(0, 4), min_size=len(PATHS), max_size=len(PATHS)))
        files = {path: b"%d" % content for path, content in zip(PATHS, contents, strict=True) if content}
        history.commit(files, parents, message=f"{number}")
    return history


def naive_reach(history: History, tips: Iterable[str]) -> set[str]:
    """Return every commit that `tips` reach, by the definition."""
    found = {tip for tip in tips if tip in history.commits}
    while True:
        more = {parent for commit in found for parent in history.commits[commit]["parent_ids"]} - found
        if not more:
            return found
        found |= more


def trees(history: History, commits: Collection[str]) -> set[str]:
    return {history.commits[commit]["snapshot_id"] for commit in commits}


def blobs(history: History, commits: Collection[str]) -> set[str]:
    return {blob for tree in trees(history, commits) for blob in history.snapshots[tree].values()}


def assert_exact(hub: HubEnvironment, repo: str, history: History, want: list[str], have: list[str]) -> None:
    """Assert that a fetch sends exactly what the definition says."""
    held = naive_reach(history, have)
    lacking = naive_reach(history, want) - held
    caller = hub.caller()
    if not lacking:
        assert caller.fetch(repo, want, have).get_json()["mpack_id"] is None
        return
    pulled = caller.pull(repo, want, have)
    assert set(pulled.commits) == lacking
    assert set(pulled.snapshots) == trees(history, lacking)
    assert set(pulled.blobs) == blobs(history, lacking) - blobs(history, held)


@effort(8, shared_fixtures=True, shrinks=False)
@given(data=st.data(), history=histories())
def test_a_fetch_sends_what_want_reaches_and_have_does_not(
    hub: HubEnvironment, data: st.DataObject, history: History
) -> None:
    commits = list(history.commits)
    slug = f"songs-{next(_SLUGS)}"
    hub.create_repo(f"alice/{slug}")
    assert hub.caller("alice").push(f"alice/{slug}", history.pack(), commits[-1]).status_code == 200
    for _ in range(3):
        want = data.draw(st.lists(st.sampled_from(commits), min_size=1, max_size=3), label="want")
        have = data.draw(st.lists(st.sampled_from([*commits, ids.fake_id("foreign")]), max_size=4), label="have")
        assert_exact(hub, f"alice/{slug}", history, want, have)


_SLUGS = itertools.count()


def pushed(hub: HubEnvironment, history: History) -> None:
    hub.create_repo(REPO)
    assert hub.caller("alice").push(REPO, history.pack(), list(history.commits)[-1]).status_code == 200


def test_a_merge_brings_both_sides(hub: HubEnvironment) -> None:
    history = History()
    base = history.commit({"a": b"base"})
    left = history.commit({"a": b"left"}, [base])
    right = history.commit({"a": b"right"}, [base])
    merge = history.commit({"a": b"both"}, [left, right])
    pushed(hub, history)
    assert set(hub.caller().pull(REPO, [merge], [left]).commits) == {right, merge}


def test_criss_cross_merges_are_exact(hub: HubEnvironment) -> None:
    history = History()
    base = history.commit({"a": b"base"})
    left = history.commit({"a": b"left"}, [base])
    right = history.commit({"a": b"right"}, [base])
    one = history.commit({"a": b"one"}, [left, right])
    two = history.commit({"a": b"two"}, [right, left])
    top = history.commit({"a": b"top"}, [one, two])
    pushed(hub, history)
    assert set(hub.caller().pull(REPO, [top], [one]).commits) == {two, top}
    assert set(hub.caller().pull(REPO, [one, two], [left]).commits) == {right, one, two}


def test_several_wants_are_answered_in_one_mpack(hub: HubEnvironment) -> None:
    history = History()
    base = history.commit({"a": b"base"})
    left = history.commit({"a": b"left"}, [base])
    right = history.commit({"a": b"right"}, [base])
    alone = history.commit({"z": b"another root"})
    pushed(hub, history)
    assert set(hub.caller().pull(REPO, [left, alone, right]).commits) == {base, left, right, alone}


def test_a_have_that_is_no_ancestor_excludes_what_it_reaches(hub: HubEnvironment) -> None:
    history = History()
    base = history.commit({"a": b"base"})
    left = history.commit({"a": b"left"}, [base])
    right = history.commit({"a": b"right"}, [base])
    pushed(hub, history)
    assert set(hub.caller().pull(REPO, [right], [left]).commits) == {right}


def test_a_want_that_is_a_have_does_not_hide_another(hub: HubEnvironment) -> None:
    history = History()
    first = history.commit({"a": b"1"})
    second = history.commit({"a": b"2"}, [first])
    pushed(hub, history)
    assert set(hub.caller().pull(REPO, [first, second], [first]).commits) == {second}


def test_a_have_above_the_want_leaves_nothing_to_send(hub: HubEnvironment) -> None:
    history = History()
    first = history.commit({"a": b"1"})
    second = history.commit({"a": b"2"}, [first])
    pushed(hub, history)
    assert hub.caller().fetch(REPO, [first], [second]).get_json()["commit_count"] == 0


def test_a_blob_of_an_older_commit_of_the_have_side_is_not_sent_again(hub: HubEnvironment) -> None:
    history = History()
    first = history.commit({"a": b"returns"})
    second = history.commit({"a": b"between"}, [first])
    third = history.commit({"a": b"returns"}, [second])
    pushed(hub, history)
    pulled = hub.caller().pull(REPO, [third], [second])
    assert set(pulled.commits) == {third}
    assert set(pulled.snapshots) == trees(history, [third])
    assert pulled.blobs == {}


@pytest.mark.parametrize("held_elsewhere", [False, True], ids=["held nowhere", "held by another repo"])
def test_a_have_that_the_repo_does_not_hold_is_ignored(hub: HubEnvironment, held_elsewhere: bool) -> None:
    history = History()
    first = history.commit({"a": b"shared"})
    pushed(hub, history)
    other = History()
    foreign = other.commit({"a": b"shared", "b": b"theirs"}, [])
    if held_elsewhere:
        hub.create_repo("bob/tunes")
        assert hub.caller("bob").push("bob/tunes", other.pack(), foreign).status_code == 200
    caller = hub.caller()
    assert caller.pull(REPO, [first], [foreign]).data == caller.pull(REPO, [first]).data


def test_a_parent_that_is_nowhere_is_500_with_an_id_and_no_mpack(
    hub: HubEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    repo_id = hub.create_repo(REPO)
    hole = ids.fake_id("never stored")
    with hub.session() as session:
        commit = make_commit(session, repo_id, {"a": b"1"}, [hole])
    before = hub.stored_keys()
    answer = hub.caller().fetch(REPO, [commit])
    assert answer.status_code == 500
    body = answer.get_json()
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert hole not in answer.text
    assert any(body["request_id"] in line and hole in line for line in caplog.messages)
    assert hub.stored_keys() == before


@pytest.mark.parametrize("held_elsewhere", [False, True])
def test_a_want_that_the_repo_lacks_is_404_to_who_says_that_they_have_it(
    hub: HubEnvironment, held_elsewhere: bool
) -> None:
    hub.create_repo(REPO)
    hub.create_repo("bob/other")
    history = History()
    tip = history.commit({"a.txt": b"1"})
    if held_elsewhere:
        assert hub.caller("bob").push("bob/other", history.pack(), tip).status_code == 200
    assert hub.caller().fetch(REPO, [tip], [tip]).status_code == 404


@pytest.mark.parametrize("capabilities", [[], ["inline"]])
def test_s14_a_have_counts_from_when_it_was_pushed_whatever_was_answered_before(
    hub: HubEnvironment, capabilities: list[str]
) -> None:
    hub.create_repo(REPO)
    history = History()
    root = history.commit({"a.txt": b"1"})
    head = history.commit({"a.txt": b"2"}, [root])
    side = history.commit({"a.txt": b"3"}, [root])
    alice = hub.caller("alice")
    assert alice.push(REPO, history.pack(want=[head]), head).status_code == 200
    hub.run_jobs()
    body = {"want": [head], "have": [side], "capabilities": capabilities}
    counts = [alice.post(f"/{REPO}/fetch", body).get_json()["commit_count"] for _ in range(2)]
    assert alice.push(REPO, history.pack(want=[side], have=[root]), side, branch="side").status_code == 200
    hub.run_jobs()
    counts.append(alice.post(f"/{REPO}/fetch", body).get_json()["commit_count"])
    assert counts == [2, 2, 1]


def test_a_second_parent_that_is_nowhere_is_500(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    with hub.session() as session:
        first = make_commit(session, repo_id, {"a": b"1"})
        merge = make_commit(session, repo_id, {"a": b"2"}, [first, ids.fake_id("never stored")])
    answer = hub.caller().fetch(REPO, [merge])
    assert (answer.status_code, answer.get_json()["code"]) == (500, "history-damaged")


def test_a_tree_of_the_have_side_that_is_lost_costs_no_answer(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    with hub.session() as session:
        have = make_commit(session, repo_id, {"a": b"1"})
        head = make_commit(session, repo_id, {"a": b"1", "b": b"2"}, [have])
        lost = session.get_one(MusehubCommit, have).snapshot_id
        session.delete(session.get_one(MusehubSnapshot, lost))
        session.commit()
    assert set(hub.caller().pull(REPO, [head], [have]).blobs.values()) == {b"1", b"2"}


def test_a_parent_that_only_the_caller_has_is_no_hole(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    only_theirs = ids.fake_id("never stored")
    with hub.session() as session:
        commit = make_commit(session, repo_id, {"a": b"1"}, [only_theirs])
    assert set(hub.caller().pull(REPO, [commit], [only_theirs]).commits) == {commit}


def test_wrong_or_missing_rows_of_the_graph_change_nothing(hub: HubEnvironment) -> None:
    history = History()
    first = history.commit({"a": b"1"})
    second = history.commit({"a": b"2"}, [first])
    third = history.commit({"a": b"3"}, [second])
    pushed(hub, history)
    with hub.session() as session:
        graph = {commit: session.get(MusehubCommitGraph, commit) for commit in (first, second, third)}
        session.delete(graph[first])
        top = graph[third]
        assert top is not None
        top.generation = 1
        session.commit()
    assert_exact(hub, REPO, history, [third], [first])
    assert_exact(hub, REPO, history, [third], [])
