"""`make demo`: that it shows what is there, and fails where something differs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import demo
import pytest

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a space in its name, with what the demo needs and no git history."""
    folder = tmp_path / "a checkout"
    shutil.copytree(CHECKOUT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path]:
    """Two working copies of the same history."""
    source = demo.small_history(tmp_path / "history.git")
    for name in ("one", "two"):
        demo.musehub("import-git", str(source), "--into", str(tmp_path / name))
    return tmp_path / "one", tmp_path / "two"


def run_demo(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "examples" / "demo.py")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_demo_brings_a_checkouts_history_there_and_back(checkout: Path) -> None:
    git(checkout, "init", "--quiet")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "Begin")
    done = run_demo(checkout)
    assert (done.returncode, done.stderr) == (0, "")
    assert "this repository's git history: 1 commits" in done.stdout


def test_the_demo_shows_a_detached_head(checkout: Path) -> None:
    git(checkout, "init", "--quiet")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "Begin")
    git(checkout, "checkout", "--quiet", "--detach")
    assert "this repository's git history: 1 commits" in run_demo(checkout).stdout


def test_the_demo_makes_a_history_where_there_is_none(checkout: Path) -> None:
    done = run_demo(checkout)
    assert done.returncode == 0, done.stderr
    assert "a small history (git finds no history in this folder): 5 commits" in done.stdout


def test_the_demo_fits_a_screen(checkout: Path) -> None:
    lines = run_demo(checkout).stdout.splitlines()
    assert (len(lines) <= 24, max(map(len, lines)) <= 110) == (True, True)


def test_copies_of_the_same_history_are_the_same(copies: tuple[Path, Path]) -> None:
    assert demo.compare_records(*copies) > 0


@pytest.mark.parametrize("kind", ["commits", "snapshots", "objects", "refs/heads"])
def test_something_missing_makes_a_difference(copies: tuple[Path, Path], kind: str) -> None:
    next(path for path in sorted((copies[1] / ".muse" / kind).rglob("*")) if path.is_file()).unlink()
    with pytest.raises(demo.Different, match=f"1 {kind} differ"):
        demo.compare_records(*copies)


def test_a_file_that_differs_from_gits_makes_a_difference(copies: tuple[Path, Path], tmp_path: Path) -> None:
    (copies[0] / "README").write_text("Another song book.\n")
    with pytest.raises(demo.Different, match="1 files differ from git's HEAD, such as README"):
        demo.compare_files(tmp_path / "history.git", copies[0])


def test_a_file_too_many_makes_a_difference(copies: tuple[Path, Path], tmp_path: Path) -> None:
    (copies[0] / "more").touch()
    with pytest.raises(demo.Different, match="more"):
        demo.compare_files(tmp_path / "history.git", copies[0])
