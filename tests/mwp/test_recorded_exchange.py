"""What the released command asks, in its order and form, and what it gets."""

from __future__ import annotations

import pytest

from tests.environment import HubEnvironment
from tests.mwp.conftest import NewRemote
from tests.mwp.muse import Copy, Refused, Remote, sha256


def test_a_first_push_is_there_for_a_clone(remote: Remote) -> None:
    local = Copy()
    local.commit({"a.txt": b"one"})
    local.commit({"a.txt": b"one", "b/c.txt": b"two"})
    tip = local.commit({"a.txt": b"three", "b/c.txt": b"two", "empty": b""})
    answer = local.push(remote)
    assert answer == {
        "ok": True,
        "message": "pushed 3 commit(s) to 'main'",
        "branch_heads": {"main": tip},
        "remote_head": tip,
    }
    assert remote.asked == ["refs", "filter-objects", "push/objects", "push"]
    clone = Copy.clone(remote)
    assert remote.asked[4:] == ["refs", "fetch"]
    assert clone.files() == local.files()
    assert clone.snapshots == local.snapshots
    assert clone.objects == local.objects
    assert clone.commits.keys() == local.commits.keys()
