"""Paths of a run of manifests, held against a naive answer."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin.mpack import SnapshotDelta
from musehub_plugin.names import IS_FOLDER, unsafe_manifest, unsafe_path
from musehub_plugin.treepaths import TreePaths

paths = st.text("ab/-.\x01", min_size=1, max_size=6)
# From so many paths of 40 bytes on, those of a tree in a file are on more than one page.
SEVERAL_PAGES = 1_700
# Of so many changes of a small tree all of its paths are sorted anew.
MANY = 100


def is_unsafe(manifest: set[str]) -> bool:
    clash = any(other.startswith(path + "/") for path in manifest for other in manifest)
    return clash or any(unsafe_path(path) is not None for path in manifest)


def delta(removed: set[str], changed: set[str], *, full: bool, is_wide: bool) -> SnapshotDelta:
    return SnapshotDelta(0, "", full, sorted(removed), dict.fromkeys(sorted(changed), ""), 0, False, is_wide)


@given(st.data())
def test_a_run_of_manifests_is_as_safe_as_each_of_them(data: st.DataObject) -> None:
    tree, manifest, was_wide = TreePaths(), set[str](), False
    for _ in range(8):
        full = not manifest or data.draw(st.booleans())
        # Only a manifest that is given whole is narrow after a wide one.
        is_wide = (was_wide and not full) or data.draw(st.booleans())
        removed = set() if full else data.draw(st.sets(st.sampled_from(sorted(manifest))))
        changed = data.draw(st.sets(paths, min_size=1, max_size=60))
        now = (set() if full else manifest - removed) | changed
        found = tree.follow(delta(removed, changed, full=full, is_wide=is_wide))
        assert (found is not None) == is_unsafe(now)
        if found is not None:
            assert is_unsafe({found[0]}) or any(path.startswith(found[0] + "/") for path in now)
            return
        manifest, was_wide = now, is_wide


@given(st.sets(paths))
def test_a_manifest_is_unsafe_where_one_of_its_paths_is_or_is_a_folder(manifest: set[str]) -> None:
    assert (unsafe_manifest(manifest) is not None) == is_unsafe(manifest)


def test_the_path_that_is_a_folder_of_another_is_named_in_whatever_order_they_come() -> None:
    assert unsafe_manifest(["a/b", "a.c", "a"]) == ("a", IS_FOLDER)


def test_a_clash_is_seen_among_many_changes() -> None:
    many = {f"in/{number}/a" for number in range(MANY)}
    assert TreePaths().follow(delta(set(), {*many, "in/7"}, full=True, is_wide=False)) == ("in/7", IS_FOLDER)


@pytest.mark.parametrize("is_wide", [False, True])
def test_an_unsafe_path_is_seen_among_many_changes(*, is_wide: bool) -> None:
    many = {f"in/{number}" for number in range(MANY)}
    found = TreePaths().follow(delta(set(), {*many, "in/../x"}, full=True, is_wide=is_wide))
    assert found is not None
    assert found[0] == "in/../x"


@pytest.mark.parametrize("is_wide", [False, True])
def test_what_was_there_before_a_manifest_that_is_given_whole_clashes_with_nothing(*, is_wide: bool) -> None:
    tree = TreePaths()
    assert tree.follow(delta(set(), {"a"}, full=True, is_wide=True)) is None
    assert tree.follow(delta(set(), {"b"}, full=True, is_wide=is_wide)) is None
    assert tree.follow(delta(set(), {"a/in it"}, full=False, is_wide=True)) is None
    assert tree.follow(delta(set(), {"b/in it"}, full=False, is_wide=True)) == ("b", IS_FOLDER)


def test_what_many_changes_remove_clashes_with_nothing() -> None:
    tree = TreePaths()
    many = {f"a/{number}" for number in range(MANY)}
    assert tree.follow(delta(set(), many, full=True, is_wide=False)) is None
    assert tree.follow(delta(many, {"a"}, full=False, is_wide=False)) is None


@pytest.mark.parametrize(("there", "added"), [("", "/in it"), ("/in it", "")], ids=["in a file", "of a folder"])
def test_a_clash_is_seen_wherever_pages_end(there: str, added: str) -> None:
    tree = TreePaths()
    names = [f"{number:04}{'-' * 36}" for number in range(SEVERAL_PAGES)]
    assert tree.follow(delta(set(), {name + there for name in names}, full=True, is_wide=True)) is None
    for name in names:
        assert tree.follow(delta(set(), {name + added}, full=False, is_wide=True)) is not None
        assert tree.follow(delta({name + added}, set(), full=False, is_wide=True)) is None


@pytest.mark.parametrize("more", range(710, 728))
def test_a_clash_is_seen_of_what_a_page_that_became_two_begins_with(more: int) -> None:
    tree = TreePaths()
    before = {f"b{number:04}{'-' * 36}" for number in range(700)}
    assert tree.follow(delta(set(), {*before, f"{'a' * 40}/in it"}, full=True, is_wide=True)) is None
    after = {f"{number:04}{'-' * 36}" for number in range(more)}
    assert tree.follow(delta(set(), {"a" * 40, *after}, full=False, is_wide=True)) == ("a" * 40, IS_FOLDER)


def test_a_clash_is_seen_on_every_page_that_changes_come_to() -> None:
    tree = TreePaths()
    names = [f"{number:04}{'-' * 36}" for number in range(SEVERAL_PAGES)]
    assert tree.follow(delta(set(), set(names), full=True, is_wide=True)) is None
    changed = {f"{names[0]}-", f"{names[-1]}/in it"}
    assert tree.follow(delta(set(), changed, full=False, is_wide=True)) == (names[-1], IS_FOLDER)


@pytest.mark.parametrize("more", range(675, 692))
def test_a_clash_is_seen_where_a_page_becomes_two(more: int) -> None:
    tree = TreePaths()
    before = {f"{number:04}{'-' * 36}" for number in range(700)}
    assert tree.follow(delta(set(), {*before, "a" * 40}, full=True, is_wide=True)) is None
    after = {f"b{number:04}{'-' * 36}" for number in range(more)}
    found = tree.follow(delta(set(), {f"{'a' * 40}/in it", *after}, full=False, is_wide=True))
    assert found is not None
    assert found[0] == "a" * 40


@pytest.mark.parametrize("is_wide", [False, True])
def test_a_line_break_is_told_from_the_character_that_is_sorted_like_it(*, is_wide: bool) -> None:
    tree = TreePaths()
    assert tree.follow(delta(set(), {"a\x01b"}, full=True, is_wide=is_wide)) is None
    found = tree.follow(delta(set(), {"a\nb"}, full=False, is_wide=is_wide))
    assert found is not None
    assert found[0] == "a\nb"


def test_deep_folders_take_no_memory_of_their_own() -> None:
    deep = {f"{number:02}/{'a/' * 2_000}a" for number in range(50)}
    tracemalloc.start()
    try:
        assert unsafe_manifest(deep) is None
        assert TreePaths().follow(delta(set(), deep, full=True, is_wide=False)) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Their 100,000 folders' names are 200 MB.
    assert peak < 4 << 20
