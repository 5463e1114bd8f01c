"""Packed histories that a process has read: as many as have room, and never a stale one."""

from __future__ import annotations

import pytest

from musehub_plugin.history import GraphCache
from musehub_plugin.store.session import Database
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment

REPOS = ("alice/a", "alice/b", "alice/c")


@pytest.fixture
def repo_ids(hub: HubEnvironment) -> list[str]:
    """Three repos of one commit each."""
    found = []
    for repo in REPOS:
        found.append(hub.create_repo(repo))
        pushed(hub, repo, History())
    return found


def pushed(hub: HubEnvironment, repo: str, history: History, *parents: str) -> str:
    """Push a commit and return its id."""
    head = history.commit({"a.txt": f"{repo} {len(parents)}".encode()}, parents)
    assert hub.caller("alice").push(repo, history.pack(want=[head], have=parents), head).status_code == 200
    return head


def test_the_last_history_is_kept_whatever_its_size_and_no_other(db: Database, repo_ids: list[str]) -> None:
    cache = GraphCache(0)
    first = cache.load(db, repo_ids[0])
    assert cache.load(db, repo_ids[0]) is first
    cache.load(db, repo_ids[1])
    assert cache.load(db, repo_ids[0]) is not first


def test_the_history_that_was_used_longest_ago_goes(db: Database, repo_ids: list[str]) -> None:
    a, b, c = repo_ids
    cache = GraphCache(2 * GraphCache(0).load(db, a).size_bytes)
    first, second = cache.load(db, a), cache.load(db, b)
    assert cache.load(db, a) is first
    cache.load(db, c)
    assert cache.load(db, a) is first
    assert cache.load(db, b) is not second


def test_a_history_that_was_pushed_to_is_read_anew(hub: HubEnvironment, db: Database) -> None:
    repo_id = hub.create_repo(REPOS[0])
    history, cache = History(), GraphCache(1 << 20)
    first = pushed(hub, REPOS[0], history)
    assert len(cache.load(db, repo_id)) == 1
    db.rollback()
    second = pushed(hub, REPOS[0], history, first)
    assert cache.load(db, repo_id).find(second) == 1
