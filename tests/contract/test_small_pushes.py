"""A small push needs no job: it is indexed in its own transaction (`MUSEHUB_INDEX_INLINE`)."""

from __future__ import annotations

from musehub_plugin.config import make_settings
from musehub_plugin.testing import History
from tests.environment import HubEnvironment
from tests.exchange import Caller

REPO = "alice/songs"
NO_QUEUE = "redis://127.0.0.1:1/0"


def test_small_pushes_are_indexed_at_once_by_default() -> None:
    assert make_settings({}, default_storage="memory://").index_inline > 0


def test_a_push_of_as_many_blobs_as_the_setting_says_is_fetchable_without_a_job(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    alice = Caller(hub.make_app(MUSEHUB_REDIS_URL=NO_QUEUE, MUSEHUB_INDEX_INLINE=2), "alice")
    history = History()
    head = history.commit({"a.txt": b"one", "b.txt": b"two"}, [])
    assert alice.push(REPO, history.pack(), head).status_code == 200
    assert alice.pull(REPO, [head]).blobs == history.blobs


def test_a_push_of_one_blob_more_waits_for_its_job(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    alice = Caller(hub.make_app(MUSEHUB_REDIS_URL=NO_QUEUE, MUSEHUB_INDEX_INLINE=1), "alice")
    history = History()
    head = history.commit({"a.txt": b"one", "b.txt": b"two"}, [])
    assert alice.push(REPO, history.pack(), head).status_code == 200
    assert alice.fetch(REPO, [head]).status_code == 503
