"""Reachability without a database, against the naive oracle and against git."""

from __future__ import annotations

import itertools
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import graph
from tests.dags import Dag, History, dags, random_dag
from tests.effort import effort

Graph = Mapping[str, Sequence[str]]


def delta(known: Graph, want: Sequence[str], have: Sequence[str]) -> set[str]:
    return graph.reachable(known, known.__getitem__, want) - graph.reachable(known, known.__getitem__, have)


def shape(history: History) -> Graph:
    return {commit_id: history.parents(commit_id) for commit_id in history.order}


def drawn(data: st.DataObject, history: History, *, at_least: int = 0) -> list[str]:
    """Draw ids of a history with repetitions, in any order."""
    return data.draw(st.lists(st.sampled_from(history.order), min_size=at_least, max_size=5))


@effort(300)
@given(dags(max_commits=14), st.data())
def test_n01_a_delta_is_what_the_wants_reach_without_what_the_haves_reach(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    want, have = drawn(data, history, at_least=1), drawn(data, history)
    assert delta(shape(history), want, have) == history.reach(want) - history.reach(have)


def test_n05_thousands_of_random_graphs_agree_with_the_oracle() -> None:
    chance = random.Random(5)
    for number in range(3_000):
        history = random_dag(chance, 14, f"{number} ").history()
        known = shape(history)
        want = chance.choices(history.order, k=chance.randint(1, 3))
        have = chance.choices(history.order, k=chance.randint(0, 3))
        assert delta(known, want, have) == history.reach(want) - history.reach(have), (number, want, have)


def test_n05_what_lies_behind_a_have_is_not_sent_by_another_way() -> None:
    known = {"r": [], "p1": ["r"], "p2": ["r"], "m": ["p1", "p2"]}
    assert delta(known, ["m"], ["p2"]) == {"m", "p1"}


def test_n02_a_have_above_the_want_leaves_nothing() -> None:
    known = {"a": [], "b": ["a"], "c": ["b"]}
    assert delta(known, ["a"], ["c"]) == set()


def test_n06_the_common_part_of_a_sibling_is_not_sent() -> None:
    known: Graph = {"r": [], "x": ["r"], "y": ["r"], "lone": []}
    assert delta(known, ["x"], ["y", "lone"]) == {"x"}


def test_n07_criss_cross_octopus_and_a_parent_named_twice() -> None:
    known = {
        "r": [],
        "a1": ["r"],
        "b1": ["r"],
        "a2": ["a1", "b1"],
        "b2": ["b1", "a1"],
        "o": ["a2", "b2", "r"],
        "d": ["o", "o"],
    }
    assert delta(known, ["d"], ["a2"]) == {"d", "o", "b2"}


def test_n04_ids_that_are_not_known_drop_out() -> None:
    known = {"a": [], "b": ["a", "elsewhere"]}
    assert delta(known, ["b"], ["elsewhere", "nowhere"]) == {"a", "b"}


def test_n10_every_pair_of_the_grid_follows_the_rule() -> None:
    size = 10
    cells = list(itertools.product(range(size), repeat=2))
    known = {
        f"{x},{y}": [f"{left},{down}" for left, down in ((x - 1, y), (x, y - 1)) if left >= 0 and down >= 0]
        for x, y in cells
    }
    below = {(x, y): {f"{left},{down}" for left in range(x + 1) for down in range(y + 1)} for x, y in cells}
    for wx, wy in cells:
        for hx, hy in cells:
            expected = below[wx, wy] - below[hx, hy]
            assert delta(known, [f"{wx},{wy}"], [f"{hx},{hy}"]) == expected, ((wx, wy), (hx, hy))


@given(dags(), st.data())
def test_n28_more_haves_never_add_and_more_wants_never_remove(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    known = shape(history)
    want, have = drawn(data, history, at_least=1), drawn(data, history)
    further = data.draw(st.sampled_from(history.order))
    before = delta(known, want, have)
    assert delta(known, want, [*have, further]) <= before
    assert delta(known, [*want, further], have) >= before


@given(dags(), st.data())
def test_n28_after_a_fetch_nothing_is_left_to_fetch(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    known = shape(history)
    want, have = drawn(data, history, at_least=1), drawn(data, history)
    assert delta(known, want, [*have, *delta(known, want, have)]) == set()


@given(dags(), st.data())
def test_n29_two_fetches_bring_what_one_brings(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    known = shape(history)
    first, second = drawn(data, history, at_least=1), drawn(data, history, at_least=1)
    together = delta(known, [*first, *second], [])
    assert delta(known, first, []) | delta(known, second, first) == together


@given(dags(max_commits=14), st.data())
def test_history_order_holds_each_commit_once_with_parents_first(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    known = shape(history)
    want, have = drawn(data, history, at_least=1), drawn(data, history)
    lacking = delta(known, want, have)
    order = graph.history_order(lacking, known.__getitem__, want)
    place = {commit_id: position for position, commit_id in enumerate(order)}
    assert sorted(order) == sorted(lacking)
    assert all(
        place[parent] < place[commit_id] for commit_id in order for parent in known[commit_id] if parent in lacking
    )


@given(dags(), st.data())
def test_n08_history_order_does_not_depend_on_the_order_of_the_tips(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    known = shape(history)
    tips = drawn(data, history, at_least=1)
    shuffled = [*data.draw(st.permutations(tips)), tips[0]]
    lacking = delta(known, tips, [])
    order = graph.history_order(lacking, known.__getitem__, tips)
    assert graph.history_order(lacking, known.__getitem__, shuffled) == order


@given(dags(), st.data())
def test_is_ancestor_agrees_with_the_oracle(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    known = shape(history)
    one, other = (data.draw(st.sampled_from(history.order)) for _ in range(2))
    assert graph.is_ancestor(known, known.__getitem__, one, other) == (one in history.reach([other]))


def test_n24_a_line_of_fifty_thousand_commits_needs_no_recursion() -> None:
    known = {str(number): [str(number - 1)] if number else [] for number in range(50_000)}
    lacking = delta(known, ["49999"], ["24999"])
    assert len(lacking) == 25_000
    assert graph.history_order(lacking, known.__getitem__, ["49999"])[0] == "25000"


@pytest.fixture(scope="module")
def git_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "--quiet", "--bare", str(folder)], check=True)
    return folder


def fast_import(folder: Path, history: History, batch: int) -> dict[str, str]:
    """Write a history's shape into a git repository, and return git's name of each commit."""
    stream = []
    for mark, commit_id in enumerate(history.order, 1):
        # git keeps a parent once, however often it is named.
        parents = [history.order.index(parent) + 1 for parent in dict.fromkeys(history.parents(commit_id))]
        message = f"{batch} {mark}"
        stream.append(f"commit refs/heads/{batch}-{mark}\nmark :{mark}\n")
        stream.append(f"committer A <a@example.org> {1000 + (mark * 7919) % 50} +0000\n")
        stream.append(f"data {len(message)}\n{message}\n")
        stream.extend(f"{'merge' if position else 'from'} :{parent}\n" for position, parent in enumerate(parents))
        stream.append("\n")
    marks = folder / "marks"
    command = ["git", "-C", str(folder), "fast-import", "--quiet", f"--export-marks={marks}"]
    subprocess.run(command, input="".join(stream), text=True, check=True)
    names = dict(line[1:].split() for line in marks.read_text().splitlines())
    return {names[str(mark)]: commit_id for mark, commit_id in enumerate(history.order, 1)}


def test_n05_git_says_the_same_of_random_graphs(git_repository: Path) -> None:
    chance = random.Random(55)
    for batch in range(12):
        history = random_dag(chance, 30, f"{batch} ").history()
        known = shape(history)
        by_name = fast_import(git_repository, history, batch)
        name_of = {commit_id: name for name, commit_id in by_name.items()}
        for _ in range(6):
            want = chance.choices(history.order, k=chance.randint(1, 3))
            have = chance.choices(history.order, k=chance.randint(0, 3))
            revisions = [*(name_of[tip] for tip in want), *(f"^{name_of[tip]}" for tip in have)]
            listed = subprocess.run(
                ["git", "-C", str(git_repository), "rev-list", *revisions], capture_output=True, text=True, check=True
            ).stdout.split()
            assert delta(known, want, have) == {by_name[name] for name in listed}, (batch, want, have)
