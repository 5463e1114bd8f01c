"""How blobs are read that few fetches need, those that a thin pack leans on among them."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import BinaryIO

import pytest

from musehub_plugin import ids
from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.framecache import FrameCache
from musehub_plugin.hub import EXTENSION_KEY
from musehub_plugin.mpack.thin import MAX_BASES
from musehub_plugin.storage.base import Deletes, StreamsMPacks
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.integration.ready.receiving import Receiver

REPO = "alice/songs"
FOLDERS = 6


def test_blobs_to_lean_on_that_are_lost_make_a_pack_less_thin(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history, content = History(), Random(0).randbytes(1000)
    have = history.commit({"a": content})
    first = history.pack()
    assert hub.caller("alice").push(REPO, first, have).status_code == 200
    head = history.commit({"a": content + b"!"}, [have])
    assert hub.caller("alice").push(REPO, history.pack(have=[have]), head).status_code == 200
    hub.run_jobs()
    storage = hub.storage
    assert isinstance(storage, Deletes)
    storage.delete_mpack(ids.blob_id(first))
    answer = hub.caller().fetch(REPO, [head], [have], ["inline", "thin"]).get_json()
    assert (answer["blob_count"], answer["size_bytes"] > len(content)) == (1, True)


@pytest.mark.parametrize("way", ["lost", "away"])
def test_a_pack_that_lost_some_of_what_it_could_lean_on_is_right(
    hub: HubEnvironment, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    hub.create_repo(REPO)
    chance, history, line = Random(0), History(), list[str]()
    a, b = chance.randbytes(1000), chance.randbytes(1000)
    packs: list[bytes] = []
    for files in ({"a": a}, {"a": a, "b": b}, {"a": a + b"!", "b": b + b"!"}):
        line.append(history.commit(files, line[-1:]))
        packs.append(history.pack(want=line[-1:], have=line[-2:-1]))
        assert hub.caller("alice").push(REPO, packs[-1], line[-1]).status_code == 200
    hub.run_jobs()
    hub.app.extensions[EXTENSION_KEY] = replace(hub_of(hub.app), frames=FrameCache(0))
    receiver = Receiver(hub.caller(), REPO)
    receiver.fetch([line[1]])
    storage, gone = hub.storage, ids.blob_id(packs[1])
    assert isinstance(storage, Deletes)
    assert isinstance(storage, StreamsMPacks)
    opened = storage.open_mpack

    def away(mpack_id: str) -> BinaryIO | None:
        if mpack_id == gone:
            raise StorageUnavailable("it is away")
        return opened(mpack_id)

    if way == "lost":
        storage.delete_mpack(gone)
    else:
        monkeypatch.setattr(storage, "open_mpack", away)
    assert len(receiver.fetch([line[2]], [line[1]], ["inline", "thin"]).blobs) == 2


def test_a_thin_pack_leaves_out_what_was_removed(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    have = history.commit({"a": b"one", "b": b"two"})
    head = history.commit({"a": b"three"}, [have])
    assert hub.caller("alice").push(REPO, history.pack(), head).status_code == 200
    hub.run_jobs()
    receiver = Receiver(hub.caller(), REPO)
    receiver.fetch([have])
    receiver.fetch([head], [have], ["inline", "thin"])
    assert receiver.manifests == history.snapshots


def test_a_thin_pack_leans_on_no_more_snapshots_than_a_pack_may(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    haves = [history.commit({f"{number}": b"%d" % number}) for number in range(MAX_BASES + 1)]
    head = history.commit({"all": b"merged"}, haves)
    assert hub.caller("alice").push(REPO, history.pack(), head).status_code == 200
    hub.run_jobs()
    receiver = Receiver(hub.caller(), REPO)
    receiver.fetch(haves)
    assert receiver.fetch([head], haves, ["inline", "thin"]).commits == {head}


def test_a_frame_at_hand_that_is_not_what_it_should_be_is_passed_over(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history, content = History(), b"la la la\n" * 100
    head = history.commit({"a": content})
    pack = history.pack()
    assert hub.caller("alice").push(REPO, pack, head).status_code == 200
    hub.run_jobs()
    false = bytes(len(content))
    frames = FrameCache(1 << 20)
    frames.keep(ids.blob_id(pack), 0, len(false), [false])
    hub.app.extensions[EXTENSION_KEY] = replace(hub_of(hub.app), frames=frames)
    assert list(hub.caller().pull(REPO, [head]).blobs.values()) == [content]


def test_a_pack_that_many_changes_lean_on_is_opened_once(hub: HubEnvironment) -> None:
    # A push for each folder, then changes that go round the folders twice: by path, each push's pack is needed once.
    hub.create_repo(REPO)
    chance, history = Random(0), History()
    files: dict[str, bytes | str] = {}
    line: list[str] = []
    for folder in range(FOLDERS):
        files |= {f"{folder}/{name}": chance.randbytes(1000) for name in "ab"}
        line.append(history.commit(files, line[-1:]))
        assert hub.caller("alice").push(REPO, history.pack(have=line[-2:-1]), line[-1]).status_code == 200
    have = line[-1]
    for name in "ab":
        for folder in range(FOLDERS):
            files[f"{folder}/{name}"] = chance.randbytes(1000)
            line.append(history.commit(files, line[-1:]))
    assert hub.caller("alice").push(REPO, history.pack(have=[have]), line[-1]).status_code == 200
    hub.run_jobs()
    hub.app.extensions[EXTENSION_KEY] = replace(hub_of(hub.app), frames=FrameCache(0))
    seen = hub.observe(lambda: hub.caller().fetch(REPO, [line[-1]], [have], ["inline", "thin"]))
    assert seen.response.get_json()["blob_count"] == 2 * FOLDERS
    assert seen.storage_calls.count("open_mpack") == FOLDERS + 1
