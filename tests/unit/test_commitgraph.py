"""Packed history, however it was cut into segments, against the plain definitions."""

from __future__ import annotations

import itertools
import random
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import commitgraph, graph, ids
from musehub_plugin.commitgraph import CommitGraph, NewCommit, Segment, merged
from tests.dags import CONTENTS, Dag, History, dags
from tests.effort import effort

HEADER_BYTES = 28


def new_commits(history: History, *, all_of: frozenset[int] = frozenset()) -> list[NewCommit]:
    """Return a history as it is packed.

    Args:
        history: the history.
        all_of: numbers of commits that are said to introduce all that their manifests have.
    """
    found = []
    for number, commit_id in enumerate(history.order):
        record = history.records[commit_id]
        manifest = history.manifests[record["snapshot_id"]]
        before: dict[str, str] = {}
        if record["parent_ids"] and number not in all_of:
            before = history.manifests[history.records[record["parent_ids"][0]]["snapshot_id"]]
        introduced = {object_id for path, object_id in manifest.items() if before.get(path) != object_id}
        found.append(NewCommit(commit_id, record["snapshot_id"], record["parent_ids"], introduced))
    return found


def packed(commits: list[NewCommit], cuts: list[int], merges: list[tuple[int, int]]) -> CommitGraph:
    """Return commits as segments.

    Args:
        commits: in order.
        cuts: where a segment begins.
        merges: runs of segments, as places among those that are left, that are then made one each.
    """
    packed_graph = CommitGraph()
    for start, end in zip([0, *cuts], [*cuts, len(commits)], strict=True):
        # Some are given again, as a push of what is there does.
        data = packed_graph.grown(commits[max(0, start - 2) : end])
        if data is not None:
            packed_graph = CommitGraph([*packed_graph.segments, Segment(data)])
    for first, last in merges:
        segments = list(packed_graph.segments)
        low, high = sorted((first % len(segments), last % len(segments)))
        segments[low : high + 1] = [Segment(merged(segments[low : high + 1]))]
        packed_graph = CommitGraph(segments)
    return packed_graph


@st.composite
def packed_histories(draw: st.DrawFn) -> tuple[History, CommitGraph]:
    dag: Dag = draw(dags(max_commits=14))
    history = dag.history()
    size = len(history.order)
    cuts = sorted(draw(st.sets(st.integers(0, size), max_size=5)))
    merges = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=2))
    too_much = draw(st.frozensets(st.integers(0, size - 1), max_size=3))
    return history, packed(new_commits(history, all_of=too_much), cuts, merges)


def some(data: st.DataObject, history: History, *, at_least: int = 0) -> list[str]:
    return data.draw(st.lists(st.sampled_from(history.order), min_size=at_least, max_size=4))


def ordinals(packed_graph: CommitGraph, commit_ids: list[str]) -> list[int]:
    found = [packed_graph.find(commit_id) for commit_id in commit_ids]
    assert None not in found
    return [ordinal for ordinal in found if ordinal is not None]


@given(packed_histories())
def test_every_commit_is_found_with_its_snapshot_and_parents(drawn: tuple[History, CommitGraph]) -> None:
    history, packed_graph = drawn
    assert len(packed_graph) == len(history.order)
    for ordinal, commit_id in enumerate(history.order):
        assert packed_graph.find(commit_id) == ordinal
        assert packed_graph.commit_id(ordinal) == commit_id
        assert packed_graph.snapshot_id(ordinal) == history.records[commit_id]["snapshot_id"]
        parents = [packed_graph.commit_id(parent) for parent in packed_graph.parents(ordinal)]
        assert parents == history.parents(commit_id)


@given(packed_histories())
def test_a_generation_is_one_more_than_the_highest_parent_s(drawn: tuple[History, CommitGraph]) -> None:
    history, packed_graph = drawn
    for ordinal in range(len(history.order)):
        parents = packed_graph.parents(ordinal)
        assert packed_graph.generation(ordinal) == 1 + max(map(packed_graph.generation, parents), default=0)


@given(packed_histories())
def test_blobs_are_found_by_their_ids_and_nothing_else_is(drawn: tuple[History, CommitGraph]) -> None:
    history, packed_graph = drawn
    for object_id in history.blobs(history.order):
        ordinal = packed_graph.find_blob(object_id)
        assert ordinal is not None
        assert ids.from_digest(packed_graph.blob_digest(ordinal)) == object_id
    assert packed_graph.blob_count == len(history.blobs(history.order))
    assert packed_graph.find(ids.fake_id("nobody")) is None
    assert packed_graph.find_blob(ids.fake_id("nobody")) is None


@effort(300)
@given(packed_histories(), st.data())
def test_a_walk_finds_what_want_reaches_and_have_does_not(
    drawn: tuple[History, CommitGraph], data: st.DataObject
) -> None:
    history, packed_graph = drawn
    want, have = some(data, history, at_least=1), some(data, history)
    walk = packed_graph.walk(ordinals(packed_graph, want), ordinals(packed_graph, have))
    commits, _, _ = history.delta(want, have)
    assert {packed_graph.commit_id(commit) for commit in walk.lacking} == commits
    held = history.reach(have)
    border = {parent for commit_id in commits for parent in history.parents(commit_id) if parent in held}
    assert {packed_graph.commit_id(commit) for commit in walk.border} == border


@effort(300)
@given(packed_histories(), st.data())
def test_the_lacking_blobs_are_those_that_no_held_snapshot_has(
    drawn: tuple[History, CommitGraph], data: st.DataObject
) -> None:
    history, packed_graph = drawn
    want, have = some(data, history, at_least=1), some(data, history)
    with pytest.MonkeyPatch.context() as patch:
        # Few commits, and many.
        patch.setattr(commitgraph, "_FEW", data.draw(st.sampled_from((0, 1_000))))
        walk = packed_graph.walk(ordinals(packed_graph, want), ordinals(packed_graph, have))
        lacking = list(walk.lacking_blobs())
    assert lacking == sorted(set(lacking))
    assert {ids.from_digest(packed_graph.blob_digest(blob)) for blob in lacking} == history.delta(want, have)[2]


@given(packed_histories(), st.data())
def test_a_walk_says_of_any_commit_whether_have_reaches_it(
    drawn: tuple[History, CommitGraph], data: st.DataObject
) -> None:
    history, packed_graph = drawn
    want, have = some(data, history, at_least=1), some(data, history, at_least=1)
    walk = packed_graph.walk(ordinals(packed_graph, want), ordinals(packed_graph, have))
    held = history.reach(have)
    asked = data.draw(st.permutations(history.order))
    for commit_id in asked:
        (ordinal,) = ordinals(packed_graph, [commit_id])
        assert walk.holds(ordinal) == (commit_id in held)


@given(packed_histories(), st.data())
def test_is_ancestor_is_reachability(drawn: tuple[History, CommitGraph], data: st.DataObject) -> None:
    history, packed_graph = drawn
    tips = some(data, history)
    for commit_id in history.order:
        (ordinal,) = ordinals(packed_graph, [commit_id])
        assert packed_graph.is_ancestor(ordinal, ordinals(packed_graph, tips)) == (commit_id in history.reach(tips))


@given(packed_histories(), st.data())
def test_newest_reached_is_the_one_of_the_highest_generation_then_of_the_lowest_id(
    drawn: tuple[History, CommitGraph], data: st.DataObject
) -> None:
    history, packed_graph = drawn
    tips, among = some(data, history), some(data, history)
    reached = ordinals(packed_graph, [each for each in among if each in history.reach(tips)])
    expected = min(reached, key=lambda one: (-packed_graph.generation(one), packed_graph.commit_id(one)), default=None)
    found = packed_graph.newest_reached(ordinals(packed_graph, tips), set(ordinals(packed_graph, among)))
    assert found == expected


def test_of_two_that_are_equally_new_the_one_of_the_lower_id_is_reached() -> None:
    history = History()
    roots = [history.commit([], {}, str(number)) for number in range(10)]
    tip = history.commit(roots, {}, "octopus")
    packed_graph = packed(new_commits(history), [], [])
    for first, second in itertools.pairwise(roots):
        found = packed_graph.newest_reached(ordinals(packed_graph, [tip]), set(ordinals(packed_graph, [first, second])))
        assert found is not None
        assert packed_graph.commit_id(found) == min(first, second)


@given(packed_histories(), st.data())
def test_the_order_of_history_is_that_of_the_rows(drawn: tuple[History, CommitGraph], data: st.DataObject) -> None:
    history, packed_graph = drawn
    want, have = some(data, history, at_least=1), some(data, history)
    commits, _, _ = history.delta(want, have)
    tips = ordinals(packed_graph, want)
    lacking = packed_graph.walk(tips, ordinals(packed_graph, have)).lacking
    by_rows = graph.history_order(commits, history.parents, want)
    assert list(map(packed_graph.commit_id, packed_graph.history_order(lacking, tips))) == by_rows


@given(packed_histories())
def test_the_introducers_of_a_blob_are_its_commits_in_any_number_of_segments(
    drawn: tuple[History, CommitGraph],
) -> None:
    history, packed_graph = drawn
    whole = CommitGraph([Segment(merged(packed_graph.segments))])
    for blob in range(packed_graph.blob_count):
        introducers = list(packed_graph.introducers(blob))
        assert introducers == list(whole.introducers(blob))
        object_id = ids.from_digest(packed_graph.blob_digest(blob))
        for commit in introducers:
            assert object_id in history.blobs([packed_graph.commit_id(commit)])
            assert blob in {*packed_graph.introduced_first(commit), *packed_graph.introduced_again(commit)}


@given(packed_histories())
def test_merged_segments_are_what_would_have_been_packed_at_once(drawn: tuple[History, CommitGraph]) -> None:
    history, _ = drawn
    commits = new_commits(history)
    at_once = CommitGraph().grown(commits)
    one_by_one = packed(commits, list(range(1, len(commits))), [])
    assert merged(one_by_one.segments) == at_once


def test_what_is_there_adds_nothing() -> None:
    history = History()
    history.commit([], {"a.txt": ids.blob_id(CONTENTS[1])}, "one")
    packed_graph = packed(new_commits(history), [], [])
    assert packed_graph.grown(new_commits(history)) is None


def test_a_commit_whose_parent_is_not_packed_is_refused() -> None:
    with pytest.raises(KeyError):
        CommitGraph().grown([NewCommit(ids.fake_id("c"), ids.fake_id("s"), [ids.fake_id("absent")], [])])


def test_a_commit_of_forty_parents_keeps_their_order_over_segments() -> None:
    history = History()
    roots = [history.commit([], {}, str(number)) for number in range(40)]
    random.Random(40).shuffle(roots)
    history.commit(roots, {}, "octopus")
    packed_graph = packed(new_commits(history), [7, 30], [])
    assert [packed_graph.commit_id(parent) for parent in packed_graph.parents(40)] == roots


@pytest.fixture
def segment_data() -> bytes:
    """A segment with a merge of three, blobs, and one that is introduced again."""
    blob, other = ids.blob_id(CONTENTS[1]), ids.blob_id(CONTENTS[2])
    history = History()
    roots = [history.commit([], {"a.txt": object_id}, str(number)) for number, object_id in enumerate((blob, other))]
    tip = history.commit([*roots, roots[0]], {"a.txt": other}, "merge")
    history.commit([tip], {"a.txt": blob}, "revert")
    data = CommitGraph().grown(new_commits(history))
    assert data is not None
    return data


def test_a_segment_that_is_cut_anywhere_is_refused(segment_data: bytes) -> None:
    for size in range(len(segment_data)):
        with pytest.raises(ValueError, match="graph segment"):
            Segment(segment_data[:size])


def test_a_segment_with_bytes_after_its_end_is_refused(segment_data: bytes) -> None:
    with pytest.raises(ValueError, match="graph segment"):
        Segment(segment_data + b"\0")


def test_a_segment_of_another_version_is_refused(segment_data: bytes) -> None:
    with pytest.raises(ValueError, match="of this version"):
        Segment(b"MHG2" + segment_data[4:])


@pytest.mark.parametrize("field", [2, 4, 5, 6], ids=["commits", "blobs", "further parents", "introductions"])
def test_a_segment_whose_counts_are_false_is_refused(segment_data: bytes, field: int) -> None:
    for count in (0, 1, 5, 2**31, 2**32 - 1):
        numbers = list(struct.unpack_from("<7I", segment_data))
        if numbers[field] == count:
            continue
        numbers[field] = count
        with pytest.raises(ValueError, match="graph segment"):
            Segment(struct.pack("<7I", *numbers) + segment_data[HEADER_BYTES:])


def test_segments_that_do_not_follow_one_another_are_refused(segment_data: bytes) -> None:
    segment = Segment(segment_data)
    later = NewCommit(ids.fake_id("later"), ids.fake_id("s"), [], [])
    data = CommitGraph([segment]).grown([later])
    assert data is not None
    for wrong in ([Segment(data)], [Segment(data), segment], [segment, segment]):
        with pytest.raises(ValueError, match="do not follow"):
            CommitGraph(wrong)


@pytest.mark.parametrize("field", [1, 3], ids=["first commit", "first blob"])
def test_a_segment_that_begins_elsewhere_than_the_one_before_ends_is_refused(segment_data: bytes, field: int) -> None:
    numbers = list(struct.unpack_from("<7I", segment_data))
    numbers[field] += 1
    wrong = Segment(struct.pack("<7I", *numbers) + segment_data[HEADER_BYTES:])
    with pytest.raises(ValueError, match="do not follow"):
        CommitGraph([wrong])


def test_a_segment_holds_its_history_once() -> None:
    tracemalloc.start()
    try:
        data = CommitGraph().grown(
            NewCommit(ids.fake_id(f"c{n}"), ids.fake_id(f"s{n}"), [], [ids.fake_id(f"b{n}")]) for n in range(2_000)
        )
        assert data is not None
        size = len(data)
        segment = Segment(data)
        del data
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert segment.size_bytes == size
    assert held < 1.5 * size
