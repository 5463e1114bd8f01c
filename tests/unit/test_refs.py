"""Branch names: exactly those that git takes, and not over 255 bytes."""

from __future__ import annotations

import itertools
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin.names import bad_branch_name

PIECES = (
    *("a", "B", "7", "é", "名", "-", "_", ".", "..", "/", "//", "@", "@{", "{", "}", "~", "^", ":", "?", "*", "["),
    *("]", "\\", " ", "\t", "\n", "\x01", "\x1f", "\x7f", "\u00a0", "\u202e", ".lock", ".LOCK", "HEAD", "refs/heads/"),
    *("%", "'", '"', "$", "!", "#", "&", ";", "<", "|", "+", "="),
)


def git_takes(name: str, elsewhere: Path) -> bool:
    # Outside of a repository, where `@{-1}` has no branch to stand for.
    command = ["git", "check-ref-format", "--branch", name]
    return subprocess.run(command, cwd=elsewhere, capture_output=True, check=False).returncode == 0


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def test_c32_git_takes_exactly_the_names_that_are_good(elsewhere: Path) -> None:
    chance = random.Random(32)
    pairs = itertools.product(PIECES, repeat=2)
    names = {*PIECES, *("".join(pair) for pair in chance.sample(list(pairs), 150))}
    names |= {f"a{piece}b" for piece in PIECES} | {"".join(chance.choices(PIECES, k=4)) for _ in range(150)}
    wrong = [name for name in sorted(names) if (bad_branch_name(name) is None) != git_takes(name, elsewhere)]
    assert wrong == []


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "\ud800", "a" * 256, "é" * 128])
def test_c32_a_name_that_git_cannot_be_asked_about_is_refused(name: str) -> None:
    assert bad_branch_name(name) is not None


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "feature/x", "main", "a.b/c@d"])
def test_c32_a_usual_or_long_name_is_taken(name: str) -> None:
    assert bad_branch_name(name) is None


@given(st.text(alphabet=st.characters(), max_size=20))
def test_any_text_gets_a_reason_or_none(name: str) -> None:
    reason = bad_branch_name(name)
    assert reason is None or reason.startswith(("is ", "holds ", "has "))
