"""A bare working copy keeps a pack as it came, and so believes it in nothing either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from musehub_plugin import ids
from musehub_plugin.client import BadMPack, Workdir
from musehub_plugin.client.keeping import keep_mpack
from musehub_plugin.mpack import build_wire_mpack
from tests.unit.client.test_apply import blob, commit, snapshot

FALSE = ids.fake_id("false")
NOWHERE = ids.fake_id("nowhere")
TREE = snapshot({"a": b"1"})
COMMIT = commit(TREE["snapshot_id"])

# Each with the id that is to be named.
BAD: dict[str, tuple[dict[str, list[dict[str, Any]]], str]] = {
    "a blob that is another": ({"blobs": [{"object_id": ids.blob_id(b"1"), "content": b"2"}]}, ids.blob_id(b"1")),
    "a snapshot that is another": ({"snapshots": [{**TREE, "snapshot_id": FALSE}]}, FALSE),
    "a commit that is another": ({"commits": [{**COMMIT, "commit_id": FALSE}]}, FALSE),
    "a blob that is nowhere": ({"blobs": []}, ids.blob_id(b"1")),
    "a snapshot that is nowhere": ({"commits": [commit(NOWHERE)]}, NOWHERE),
    "a parent that is nowhere": ({"commits": [commit(TREE["snapshot_id"], [NOWHERE])]}, NOWHERE),
}


@pytest.fixture
def bare(tmp_path: Path) -> Workdir:
    """A bare working copy without commits."""
    return Workdir.create(tmp_path / "bare", bare=True)


def keep(bare: Workdir, **parts: list[dict[str, Any]]) -> str:
    """Have a pack of some parts kept, those of a good one where they are not given; return its id."""
    data = build_wire_mpack(**{"commits": [COMMIT], "snapshots": [TREE], "blobs": [blob(b"1")], **parts})
    path = bare.root / "received.mpack"
    path.write_bytes(data)
    keep_mpack(bare, path, ids.blob_id(data))
    return ids.blob_id(data)


@pytest.mark.parametrize("name", BAD)
def test_s77_a_pack_that_is_wrong_is_not_kept_and_the_error_names_what(bare: Workdir, name: str) -> None:
    parts, named = BAD[name]
    with pytest.raises(BadMPack, match=named):
        keep(bare, **parts)
    assert list(bare.packs) == []


def test_a_pack_that_names_what_another_pack_holds_is_kept(bare: Workdir) -> None:
    first = keep(bare)
    later = commit(TREE["snapshot_id"], [COMMIT["commit_id"]], message="later")
    second = keep(bare, commits=[later], snapshots=[], blobs=[])
    assert {pack.mpack_id for pack in bare.packs} == {first, second}


def test_a_parent_that_comes_after_its_child_is_found(bare: Workdir) -> None:
    later = commit(TREE["snapshot_id"], [COMMIT["commit_id"]], message="later")
    keep(bare, commits=[later, COMMIT])
    assert bare.has_commit(COMMIT["commit_id"])
