"""Manifests that are in a file, since memory has no room for them, are those that a dict would be."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.mpack import (
    Limits,
    MPackError,
    MPackReader,
    MPackWriter,
    manifests,
    pages,
    snapshots,
    verify,
    wide,
    widewriting,
)
from musehub_plugin.mpack.manifests import FROM_PREVIOUS, UNFINISHED, ManifestHasher, SnapshotDecoder
from musehub_plugin.mpack.pages import PageFile, PageHasher, SortedPages
from musehub_plugin.mpack.wide import WideManifest

paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=3)
objects = st.integers(0, 5).map(lambda number: ids.fake_id(str(number)))
manifests_of_few = st.dictionaries(paths, objects, max_size=12)
# A few paths are many here, and few bytes a page.
MANY = 3


@pytest.fixture(autouse=True, scope="module")
def _small_bounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifests, "WIDE_PATHS", MANY)
        patch.setattr(wide, "PIECE", 2)
        patch.setattr(widewriting, "PIECE", 2)
        patch.setattr(snapshots, "_CHANGES_PER_ROW", 4)
        patch.setattr(snapshots, "_RAW_TARGET", 500)
        patch.setattr(pages, "_PAGE_BYTES", 150)
        patch.setattr(pages, "_KEPT_PAGES", 2)
        yield


@given(
    st.lists(
        st.dictionaries(
            st.binary(min_size=1, max_size=2).filter(lambda key: b"\0" not in key),
            st.none() | st.sampled_from([b"1", b"2" * 60, b""]),
            max_size=20,
        ),
        max_size=6,
    )
)
def test_pages_are_a_sorted_dictionary(steps: list[dict[bytes, bytes | None]]) -> None:
    found, expected, hasher = SortedPages(PageFile()), dict[bytes, bytes](), PageHasher()
    before: list[tuple[SortedPages, list[tuple[bytes, bytes]]]] = []
    for step in steps:
        found.update(step)
        for key, value in step.items():
            if value is None:
                expected.pop(key, None)
            else:
                expected[key] = value
        rows = sorted(expected.items())
        before.append((found.copy(), rows))
        assert list(found.items()) == rows
        assert (len(found), [found.at(number) for number in range(len(rows))]) == (len(rows), rows)
        assert found.get_many(step) == {key: expected[key] for key in step if key in expected}
        assert [found.get(key) for key in step] == [expected.get(key) for key in step]
        assert hasher.digest(found) == hashlib.sha256(b"\0".join(map(b"\0".join, rows))).digest()
    # A copy stays as it is, whatever becomes of what it was made of.
    for copy, rows in before:
        assert list(copy.items()) == rows


def test_places_of_pages_that_are_gone_are_used_again() -> None:
    file = PageFile()
    found = SortedPages(file)
    for value in range(50):
        found.update({b"%d" % number: b"%d" % value for number in range(100)})
    assert file.size < 4 * 100 * (1 << 13)


@given(st.lists(manifests_of_few, min_size=1, max_size=6))
def test_the_hash_of_wide_manifests_is_their_id(run: list[dict[str, str]]) -> None:
    hasher = ManifestHasher()
    before: dict[str, str] = {}
    for number, manifest in enumerate(run):
        changed = {path: object_id for path, object_id in manifest.items() if before.get(path) != object_id}
        # Wide ones and others take turns, where there is nothing to go on from.
        full = number % 3 == 0
        hasher.change(
            () if full else before.keys() - manifest.keys(),
            manifest if full else changed,
            full=full,
            is_wide=number % 4 != 0 or not full,
        )
        before = manifest
        assert ids.from_digest(hasher.digest()) == ids.snapshot_id(manifest)


@given(st.lists(manifests_of_few, min_size=1, max_size=8), st.booleans())
def test_a_pack_of_wide_manifests_gives_what_was_written(run: list[dict[str, str]], derivable: bool) -> None:
    run = list({ids.snapshot_id(manifest): manifest for manifest in run}.values())
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for manifest in run:
            writer.add_snapshot(ids.snapshot_id(manifest), manifest, derivable=derivable)
    reader = MPackReader(out)
    expected = [(ids.snapshot_id(manifest), manifest) for manifest in run]
    assert [(snapshot_id, dict(manifest)) for snapshot_id, manifest in reader.snapshots()] == expected
    reader = MPackReader(out)
    assert [ids.from_digest(digest) for digest, _ in reader.hashed_snapshots()] == [each for each, _ in expected]
    verify(MPackReader(out))


@given(st.lists(st.tuples(manifests_of_few, st.booleans()), min_size=1, max_size=8), st.booleans() | st.none())
def test_wide_manifests_are_written_as_others_are(
    run: list[tuple[dict[str, str], bool]], derivable: bool | None
) -> None:
    run = list({ids.snapshot_id(manifest): (manifest, is_wide) for manifest, is_wide in run}.values())
    plain, some_wide = io.BytesIO(), io.BytesIO()
    with MPackWriter(plain) as writer, MPackWriter(some_wide) as other:
        for manifest, is_wide in run:
            snapshot_id = ids.snapshot_id(manifest)
            writer.add_snapshot(snapshot_id, manifest, derivable=derivable)
            wide_one = WideManifest.of(manifest, PageFile())
            other.add_snapshot(snapshot_id, wide_one if is_wide else manifest, derivable=derivable)
    assert some_wide.getvalue() == plain.getvalue()


def test_changes_follow_on_a_wide_manifest() -> None:
    manifest = {"a": ids.fake_id("1")}
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        writer.add_snapshot(ids.fake_id("one"), WideManifest.of(manifest, PageFile()))
        writer.add_snapshot_delta(ids.fake_id("two"), ["a"], {"b": manifest["a"]}, derivable=False)
    assert [dict(found) for _, found in MPackReader(out).snapshots()] == [manifest, {"b": manifest["a"]}]


def test_a_wide_manifest_of_a_path_that_is_too_long_is_not_written() -> None:
    manifest = WideManifest.of({"a" * 4097: ids.fake_id("1")}, PageFile())
    with MPackWriter(io.BytesIO()) as writer, pytest.raises(ValueError, match="is over 4096 bytes"):
        writer.add_snapshot(ids.fake_id("one"), manifest)


def test_a_wide_manifest_is_a_mapping() -> None:
    entries = {f"d/{number}": ids.fake_id(str(number)) for number in range(40)}
    found = WideManifest.of(entries, PageFile())
    assert (dict(found), len(found), list(found)) == (entries, 40, sorted(entries))
    assert (list(found.items()), list(found.values())) == (
        sorted(entries.items()),
        [entries[path] for path in sorted(entries)],
    )
    assert ("d/3" in found, "d" in found, found["d/39"]) == (True, False, entries["d/39"])
    with pytest.raises(KeyError):
        found["d/40"]


def decoded(rows: list[tuple[int, list[str], dict[str, int]]], **limits: Any) -> list[dict[str, int]]:
    """Read a frame of these rows: code, removed paths, and steps of what is set."""
    named = list(dict.fromkeys(path for _, removed, changed in rows for path in [*removed, *changed]))
    seen: set[str] = set()

    def code(path: str) -> int:
        known = path in seen
        seen.add(path)
        return named.index(path) + 1 if known else 0

    gone: list[int] = []
    now: list[int] = []
    columns = [
        named,
        [row[0] for row in rows],
        [len(row[1]) for row in rows],
        gone,
        [len(row[2]) for row in rows],
        now,
        [step for row in rows for step in row[2].values()],
        [],
        b"",
    ]
    for _, removed, changed in rows:
        gone += [code(path) for path in removed]
        now += [code(path) for path in changed]
    count = sum(1 for row in rows if not row[0] & UNFINISHED)
    return [
        dict(each.changed)
        for each in SnapshotDecoder(9, Limits(**limits)).decode(msgpack.packb(columns), count, "frame")
    ]


FIVE = dict.fromkeys("abcde", 0)


def test_rows_go_on_in_the_next_one() -> None:
    assert decoded([(UNFINISHED, [], FIVE), (FROM_PREVIOUS, [], {"f": 4})]) == [{**FIVE, "f": 4}]


def test_a_change_of_many_paths_is_read() -> None:
    rows = [(0, [], FIVE), (FROM_PREVIOUS, ["a", "c", "e"], {"b": 1, "x": 1, "y": 1, "z": 1})]
    assert decoded(rows) == [FIVE, {"b": 1, "x": 2, "y": 3, "z": 4}]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([(0, [], FIVE), (FROM_PREVIOUS, ["x"], {})], "removes a path that is not there"),
        ([(0, [], FIVE), (FROM_PREVIOUS | UNFINISHED, ["a"], {}), (FROM_PREVIOUS, ["a"], {})], "is not there"),
        ([(UNFINISHED, [], FIVE), (FROM_PREVIOUS, [], {"a": 0})], "sets a path twice"),
        ([(0, [], FIVE), (FROM_PREVIOUS | UNFINISHED, [], FIVE), (FROM_PREVIOUS, [], {"e": 0})], "sets a path twice"),
        ([(UNFINISHED, [], FIVE), (FROM_PREVIOUS, ["a"], {})], "removes paths after it has set some"),
        ([(0, [], {**FIVE, "f": 9})], "refers to object 9"),
        ([(0, [], {**FIVE, "a\0b": 0})], "a path holds a NUL"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(
    rows: list[tuple[int, list[str], dict[str, int]]], problem: str
) -> None:
    with pytest.raises(MPackError, match=problem):
        decoded(rows)


def test_a_manifest_over_the_limit_is_refused() -> None:
    with pytest.raises(MPackError, match="over the limit of 4 paths"):
        decoded([(0, [], FIVE)], max_manifest_entries=4)


def test_long_paths_make_a_manifest_wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(manifests, "WIDE_PATHS", 100)
    monkeypatch.setattr(manifests, "WIDE_BYTES", 100)
    out = io.BytesIO()
    manifest = {f"{number}" * 50: ids.fake_id("1") for number in range(3)}
    with MPackWriter(out) as writer:
        writer.add_snapshot(ids.snapshot_id(manifest), manifest)
    [delta] = MPackReader(out, folder=tmp_path).snapshot_deltas()
    assert (delta.is_wide, dict(delta.changed), delta.snapshot_id) == (True, manifest, ids.snapshot_id(manifest))


def test_who_has_the_memory_reads_wide_manifests_as_others() -> None:
    out = io.BytesIO()
    manifest = {f"{number}": ids.fake_id("1") for number in range(9)}
    with MPackWriter(out) as writer:
        writer.add_snapshot(ids.snapshot_id(manifest), manifest)
    [delta] = MPackReader(out, wide_in_file=False).snapshot_deltas()
    assert (delta.is_wide, delta.changed, delta.snapshot_id) == (False, manifest, ids.snapshot_id(manifest))
