"""Walks over commits, held to a naive closure on random histories."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.client import Workdir
from musehub_plugin.client.history import History, Walk
from musehub_plugin.client.record import new_record
from tests.effort import effort


@st.composite
def dags(draw: st.DrawFn, *, honest_dates: bool) -> list[tuple[list[int], int]]:
    """A history as `[(parents, hour)]`, parents before children."""
    nodes: list[tuple[list[int], int]] = []
    for number in range(draw(st.integers(1, 10))):
        parents = draw(st.lists(st.integers(0, number - 1), max_size=3, unique=True)) if number else []
        nodes.append((parents, number if honest_dates else draw(st.integers(0, 9))))
    return nodes


def stored(nodes: list[tuple[list[int], int]], root: Path) -> tuple[History, list[str]]:
    workdir = Workdir.create(root)
    names: list[str] = []
    for number, (parents, hour) in enumerate(nodes):
        names.append(ids.fake_id(str(number)))
        workdir.write_commit(
            new_record(
                commit_id=names[-1],
                repo_id="",
                branch="",
                snapshot_id=ids.fake_id("s"),
                message="",
                committed_at=f"2026-01-01T{hour:02}:00:00+00:00",
                parent_ids=[names[parent] for parent in parents],
                author="",
                metadata={},
            )
        )
    return History(workdir), names


def closure(nodes: list[tuple[list[int], int]], heads: Iterable[int]) -> set[int]:
    found = set(heads)
    while more := {parent for number in found for parent in nodes[number][0]} - found:
        found |= more
    return found


subsets = st.lists(st.integers(0, 99), max_size=3)


@effort(60)
@given(dags(honest_dates=True), subsets, subsets)
def test_with_true_dates_exactly_what_is_lacking_is_found(
    nodes: list[tuple[list[int], int]], heads: list[int], held: list[int]
) -> None:
    heads, held = [n % len(nodes) for n in heads], [n % len(nodes) for n in held]
    with tempfile.TemporaryDirectory() as folder:
        history, names = stored(nodes, Path(folder, "copy"))
        found = history.missing([names[n] for n in heads], [names[n] for n in held])
    assert set(found) == {names[n] for n in closure(nodes, heads) - closure(nodes, held)}


@effort(60)
@given(dags(honest_dates=False), subsets, subsets)
def test_with_false_dates_nothing_that_is_lacking_is_left_out(
    nodes: list[tuple[list[int], int]], heads: list[int], held: list[int]
) -> None:
    heads, held = [n % len(nodes) for n in heads], [n % len(nodes) for n in held]
    with tempfile.TemporaryDirectory() as folder:
        history, names = stored(nodes, Path(folder, "copy"))
        found = history.missing([names[n] for n in heads], [names[n] for n in held])
    assert {names[n] for n in closure(nodes, heads) - closure(nodes, held)} <= set(found)
    assert set(found) <= {names[n] for n in closure(nodes, heads)}


@effort(60)
@given(dags(honest_dates=False), subsets)
def test_parents_come_before_their_children(nodes: list[tuple[list[int], int]], heads: list[int]) -> None:
    heads = [n % len(nodes) for n in heads]
    with tempfile.TemporaryDirectory() as folder:
        history, names = stored(nodes, Path(folder, "copy"))
        order = history.missing([names[n] for n in heads], [])
    assert len(order) == len(set(order))
    for number in closure(nodes, heads):
        for parent in nodes[number][0]:
            assert order.index(names[parent]) < order.index(names[number])


@effort(60)
@given(dags(honest_dates=False), st.integers(0, 99), st.integers(0, 99))
def test_ancestors_are_those_of_the_closure(nodes: list[tuple[list[int], int]], one: int, other: int) -> None:
    one, other = one % len(nodes), other % len(nodes)
    with tempfile.TemporaryDirectory() as folder:
        history, names = stored(nodes, Path(folder, "copy"))
        assert history.is_ancestor(names[one], names[other]) == (one in closure(nodes, [other]))


def test_what_turns_out_to_be_held_after_it_was_passed_is_not_lacking(tmp_path: Path) -> None:
    base, held, old, head = range(4)
    history, names = stored([([], 9), ([base], 5), ([], 1), ([base, old], 7)], tmp_path / "copy")
    assert set(history.missing([names[head]], [names[held]])) == {names[old], names[head]}


def test_painting_a_commit_paints_what_the_walk_has_seen_of_its_past(tmp_path: Path) -> None:
    history, names = stored([([], 0), ([0], 1), ([1], 2), ([2], 3)], tmp_path / "copy")
    walk = Walk(history)
    walk.add(names[3])
    passed = iter(walk)
    assert [next(passed), next(passed), next(passed)] == [names[3], names[2], names[1]]
    walk.paint(names[3])
    assert (walk.is_common(names[1]), list(passed)) == (True, [])


def test_a_small_push_on_a_long_history_reads_little(tmp_path: Path) -> None:
    chain: list[tuple[list[int], int]] = [([number - 1] if number else [], min(number, 23)) for number in range(24)]
    history, names = stored(chain, tmp_path / "copy")
    assert list(history.missing([names[23]], [names[21]])) == [names[22], names[23]]
    assert len(history) <= 6


def test_a_chain_of_thousands_needs_no_recursion(tmp_path: Path) -> None:
    history, names = stored([([number - 1] if number else [], 0) for number in range(3_000)], tmp_path / "copy")
    assert list(history.missing([names[-1]], [])) == names
