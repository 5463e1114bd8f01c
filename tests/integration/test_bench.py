"""The benchmarks work, on a history of a few commits; nobody looks at the times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import chosen
from benchmarks.racing.histories import steps_of, steps_of_one, synthetic

PROJECT = Path(__file__).parents[2]
COMMITS = 40


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a short run measured."""
    out = tmp_path_factory.mktemp("bench") / "measured.json"
    program = [sys.executable, "benchmarks/bench.py", "--sizes", str(COMMITS), "--quick", "--json", str(out)]
    done = subprocess.run(program, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return {**found, "printed": done.stdout}


def count(repository: Path, revisions: str) -> int:
    program = ["git", "-C", str(repository), "rev-list", "--count", revisions]
    return int(subprocess.run(program, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("who", ["git plain", "git tuned", "hub"])
def test_a_run_clones_from_both_sides(measured: dict[str, Any], who: str) -> None:
    (history,) = measured["histories"]
    assert min(history["samples"]["clone, whole, s"][who]) > 0


def test_a_run_fetches_from_both_sides(measured: dict[str, Any]) -> None:
    samples = measured["histories"][0]["samples"]
    assert min(samples["fetch of 1 commit, 1/s"]["git plain"]) > 0
    assert min(samples["fetch of 1 commit, first time, 1/s"]["hub, URL"]) > 0


def test_a_run_prints_ratios_beside_targets(measured: dict[str, Any]) -> None:
    rows = [line.split(" | ") for line in measured["printed"].splitlines() if line.startswith("| clone, whole")]
    assert [len(row) for row in rows] == [7]


def test_where_nothing_is_asked_for_this_repository_is_raced_on() -> None:
    asked = [chosen(None, []), chosen("60", []), chosen(None, [Path("other")])]
    # What was downloaded without its history has none to race on.
    this = [PROJECT] if (PROJECT / ".git").exists() else []
    assert [repositories for _, repositories in asked] == [this, [], [Path("other")]]


def test_the_transfer_of_a_clone_is_told_apart(measured: dict[str, Any]) -> None:
    samples = measured["histories"][0]["samples"]
    assert min(samples["clone, downloaded, s"]["hub"]) > 0
    assert "| clone, answer and download |" in measured["printed"]


def test_the_parts_of_the_cpu_are_told() -> None:
    program = [sys.executable, "benchmarks/parts.py", "--commits", str(2 * COMMITS), "--requests", "4"]
    done = subprocess.run(program, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr
    head, _, total, *_ = done.stdout.splitlines()
    spent = dict(zip(head.split(" | "), total.split(" | "), strict=True))
    assert float(spent["nothing new"]) > 0


def test_a_synthetic_history_has_as_many_commits_as_asked_for(tmp_path: Path) -> None:
    history = synthetic(COMMITS, tmp_path)
    assert count(history.source, "main") == COMMITS


def test_a_synthetic_history_is_the_same_each_time(tmp_path: Path) -> None:
    heads = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        history = synthetic(COMMITS, folder)
        heads.append((history.source / "refs" / "heads" / "main").read_text())
    assert heads[0] == heads[1]


def test_a_step_of_one_commit_brings_one(tmp_path: Path) -> None:
    history = synthetic(COMMITS, tmp_path)
    for step in steps_of_one(history):
        assert count(history.source, f"{step.have}..{step.want}") == 1


def test_a_long_step_brings_about_as_many_commits_as_asked_for(tmp_path: Path) -> None:
    assert {step.commits for step in steps_of(synthetic(COMMITS, tmp_path), 10, 3)} <= set(range(8, 13))
