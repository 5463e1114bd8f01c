"""Clones of what a repack made ready."""

from __future__ import annotations

import pytest

from musehub_plugin.repack import repack
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.integration.ready.receiving import Receiver

REPO = "alice/songs"


@pytest.mark.parametrize("capabilities", [(), ("inline",), ("mpacks",)], ids=["one pack", "in the answer", "several"])
def test_a_tree_that_came_back_after_a_repack_is_cloned(hub: HubEnvironment, capabilities: tuple[str, ...]) -> None:
    repo_id = hub.create_repo(REPO)
    caller = hub.caller("alice")
    history = History()
    first = history.commit({"a.txt": b"one"})
    second = history.commit({"a.txt": b"two"}, [first])
    assert caller.push(REPO, history.pack(), second).status_code == 200
    hub.run_jobs()
    with hub.app.app_context():
        repack(hub_of(hub.app), hub_of(hub.app).database(), repo_id)
    between = history.commit({"a.txt": b"three"}, [second])
    reverted = history.commit({"a.txt": b"one"}, [between])
    last = history.commit({"a.txt": b"four", "b.txt": b"one"}, [reverted])
    assert caller.push(REPO, history.pack(have=[second]), last).status_code == 200
    hub.run_jobs()
    receiver = Receiver(caller, REPO)
    received = receiver.fetch([last], [], capabilities)
    assert received.commits == history.commits.keys()
    assert receiver.manifests == history.snapshots
    assert receiver.blobs == history.blobs
