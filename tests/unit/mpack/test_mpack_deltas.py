"""A snapshot given as what changed is written as one given whole."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.mpack import MPackReader, MPackWriter
from musehub_plugin.mpack import writer as writer_module
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.mpack.writer import NOT_IN_PACK, NumberedSnapshot

Manifest = dict[str, str]
PATHS = st.sampled_from(["a", "a/b", "a.b", "é", "z" * 300])
OBJECTS = st.sampled_from([ids.fake_id(f"object {n}") for n in range(5)])
HELD = [ids.fake_id(f"object {n}") for n in range(2)]


@pytest.fixture(scope="module", autouse=True, params=[1 << 17, 3, 0], ids=["in memory", "some in a file", "in a file"])
def _where_manifests_are(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writer_module, "WIDE_TO_WRITE", request.param)
        yield


def write_whole(manifests: list[Manifest], derivable: bool) -> bytes:
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for object_id in HELD:
            writer.add_blob(object_id, b"x")
        for n, manifest in enumerate(manifests):
            writer.add_snapshot(ids.fake_id(str(n)), manifest, derivable=derivable)
    return out.getvalue()


def write_changes(manifests: list[Manifest], derivable: bool) -> bytes:
    out = io.BytesIO()
    before: Manifest = {}
    with MPackWriter(out) as writer:
        for object_id in HELD:
            writer.add_blob(object_id, b"x")
        for n, manifest in enumerate(manifests):
            removed = before.keys() - manifest.keys()
            # Every other time with entries that did not change.
            changed = {path: oid for path, oid in manifest.items() if n % 2 or before.get(path) != oid}
            writer.add_snapshot_delta(ids.fake_id(str(n)), removed, changed, derivable=derivable)
            before = manifest
    return out.getvalue()


def write_numbers(manifests: list[Manifest], derivable: bool) -> bytes:
    out = io.BytesIO()
    objects = DigestTable()
    # Numbers that are in another order than the blobs of the pack, which follow on one that is not in it.
    for object_id in (ids.fake_id("none"), *reversed(HELD)):
        objects.number(ids.to_digest(object_id))
    changes = []
    before: Manifest = {}
    for n, manifest in enumerate(manifests):
        changed = {path: oid for path, oid in manifest.items() if n % 2 or before.get(path) != oid}
        paths = sorted(changed)
        numbers = [objects.number(ids.to_digest(changed[path])) for path in paths]
        digest = ids.to_digest(ids.fake_id(str(n)))
        changes.append((digest, before.keys() - manifest.keys(), paths, numbers, derivable))
        before = manifest
    places = [HELD.index(each) if each in HELD else NOT_IN_PACK for each in map(ids.from_digest, digests(objects))]
    with MPackWriter(out) as writer:
        for object_id in HELD:
            writer.add_blob(object_id, b"x")
        writer.add_numbered_snapshots(changes, objects, places)
    return out.getvalue()


def digests(table: DigestTable) -> Iterator[bytes]:
    return (table[number] for number in range(table.count))


@given(st.lists(st.dictionaries(PATHS, OBJECTS), max_size=8), st.booleans())
def test_changes_give_the_bytes_of_whole_manifests(manifests: list[Manifest], derivable: bool) -> None:
    assert write_changes(manifests, derivable) == write_whole(manifests, derivable)


@given(st.lists(st.dictionaries(PATHS, OBJECTS), max_size=8), st.booleans())
def test_changes_of_numbered_objects_give_the_bytes_of_whole_manifests(
    manifests: list[Manifest], derivable: bool
) -> None:
    assert write_numbers(manifests, derivable) == write_whole(manifests, derivable)


def test_changes_give_the_bytes_of_whole_manifests_over_many_frames() -> None:
    chance = random.Random(1)
    manifest: Manifest = {}
    manifests = []
    for n in range(9_000):
        # Most steps are small, some replace nearly all.
        for _ in range(chance.choice([0, 1, 1, 2, 2, 3, 40]) if n % 500 else 200):
            path = f"dir/{chance.randrange(60)}"
            if chance.random() < 0.3:
                manifest.pop(path, None)
            else:
                manifest[path] = ids.fake_id(f"object {chance.randrange(400)}")
        manifests.append(manifest.copy())
    assert write_changes(manifests, True) == write_numbers(manifests, True) == write_whole(manifests, True)


def test_a_change_that_is_larger_than_the_manifest_is_written_as_the_manifest() -> None:
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        writer.add_snapshot_delta(ids.fake_id("s0"), [], {f"p{n}": ids.fake_id("o") for n in range(9)}, derivable=False)
        removed = [f"p{n}" for n in range(1, 9)]
        writer.add_snapshot_delta(ids.fake_id("s1"), removed, {}, derivable=False)
    delta = list(MPackReader(out).snapshot_deltas())[1]
    assert (delta.full, delta.removed, delta.changed) == (True, [], {"p0": ids.fake_id("o")})


def test_changes_and_whole_manifests_may_take_turns() -> None:
    first, second, third = ({f"path{n}": ids.fake_id(str(n)) for n in range(size)} for size in (3, 5, 2))
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        writer.add_snapshot(ids.snapshot_id(first), first)
        changed = {path: oid for path, oid in second.items() if path not in first}
        writer.add_snapshot_delta(ids.snapshot_id(second), [], changed, derivable=True)
        writer.add_snapshot(ids.snapshot_id(third), third)
    pairs = [(ids.snapshot_id(manifest), manifest) for manifest in (first, second, third)]
    assert list(MPackReader(out).snapshots()) == pairs


def test_a_path_that_is_removed_and_changed_is_changed() -> None:
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        writer.add_snapshot_delta(ids.fake_id("s0"), [], {"a": ids.fake_id("0")}, derivable=False)
        writer.add_snapshot_delta(ids.fake_id("s1"), ["a"], {"a": ids.fake_id("1")}, derivable=False)
    assert [manifest for _, manifest in MPackReader(out).snapshots()][1] == {"a": ids.fake_id("1")}


def test_removing_a_path_that_is_not_there_is_refused() -> None:
    writer = MPackWriter(io.BytesIO())
    with pytest.raises(ValueError, match="removes 'a', which is not there"):
        writer.add_snapshot_delta(ids.fake_id("s"), ["a"], {}, derivable=False)


def test_a_snapshot_that_was_added_before_is_refused_as_a_change() -> None:
    writer = MPackWriter(io.BytesIO())
    writer.add_snapshot(ids.fake_id("s"), {})
    with pytest.raises(ValueError, match="was added before"):
        writer.add_snapshot_delta(ids.fake_id("s"), [], {}, derivable=False)


def numbered(count: int) -> DigestTable:
    objects = DigestTable()
    for number in range(count):
        objects.number(ids.to_digest(ids.fake_id(str(number))))
    return objects


@pytest.mark.parametrize(
    ("removed", "paths", "wrong"),
    [
        (["a"], [], "removes 'a', which is not there"),
        ([], ["a" * 5000], "is over 4096 bytes"),
    ],
)
def test_a_numbered_change_that_cannot_be_is_refused(removed: list[str], paths: list[str], wrong: str) -> None:
    writer = MPackWriter(io.BytesIO())
    change = (ids.to_digest(ids.fake_id("s")), removed, paths, [0] * len(paths), True)
    with pytest.raises(ValueError, match=wrong):
        writer.add_numbered_snapshots([change], numbered(1), [NOT_IN_PACK])


def test_a_snapshot_that_comes_twice_by_numbers_is_refused() -> None:
    change: NumberedSnapshot = (ids.to_digest(ids.fake_id("s")), [], ["a"], [0], True)
    writer = MPackWriter(io.BytesIO())
    with pytest.raises(ValueError, match="was added before"):
        writer.add_numbered_snapshots([change, change], numbered(1), [NOT_IN_PACK])


def test_snapshots_by_numbers_are_refused_after_others() -> None:
    writer = MPackWriter(io.BytesIO())
    writer.add_snapshot(ids.fake_id("s"), {})
    with pytest.raises(ValueError, match="that has others"):
        writer.add_numbered_snapshots([], numbered(0), [])


def test_a_snapshot_may_follow_on_those_by_numbers() -> None:
    manifest = {"a": ids.fake_id("0"), "b": ids.fake_id("1")}
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        change: NumberedSnapshot = (ids.to_digest(ids.fake_id("s0")), [], ["a", "b"], [0, 1], False)
        writer.add_numbered_snapshots([change], numbered(2), [NOT_IN_PACK] * 2)
        writer.add_snapshot_delta(ids.fake_id("s1"), ["b"], {}, derivable=False)
    assert [found for _, found in MPackReader(out).snapshots()] == [manifest, {"a": ids.fake_id("0")}]
