"""Checks in processes beside this one: what they find is what a check here would have found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

# In a process of its own: a fork wants to be the only thread, and must not come back into the tests.
PROGRAM = """
import json, os, sys
from musehub_plugin.client.beside import Beside
from musehub_plugin.forks import processes_beside
from musehub_plugin.mpack import MPackError

here = os.getpid()
kept, lock = (os.open(os.devnull, os.O_RDONLY) for _ in range(2))

def check(share):
    if share == "false":
        raise MPackError("it is false")
    if share == "files":
        os.fstat(kept)
        try:
            os.fstat(lock)
        except OSError:
            raise MPackError("the lock is not here")
    if share == "killed" and os.getpid() != here:
        os.kill(os.getpid(), 9)
    if share == "broken" and os.getpid() != here:
        raise ValueError("for no reason")
    if share in ("killed", "broken"):
        print("again", share)

try:
    with Beside(check, json.loads(sys.argv[1]), [kept]) as beside:
        if sys.argv[2] == "finish":
            beside.finish()
    print("done")
except MPackError as error:
    print(error)
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no processes left")
"""


def lines_of(shares: Sequence[str], how: str = "finish") -> list[str]:
    """Return what a process prints that has these shares checked beside it."""
    arguments = [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(shares), how]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("shares", [[], ["true"], ["true", "true", "true"]])
def test_what_is_right_passes(shares: list[str]) -> None:
    assert lines_of(shares) == ["done", "no processes left"]


@pytest.mark.parametrize("shares", [["false"], ["true", "false"], ["false", "true", "false"]])
def test_what_is_wrong_is_raised_here(shares: list[str]) -> None:
    assert lines_of(shares) == ["it is false", "no processes left"]


@pytest.mark.parametrize("share", ["killed", "broken"])
def test_a_process_that_ends_without_an_answer_has_its_share_checked_here(share: str) -> None:
    assert lines_of(["true", share]) == [f"again {share}", "done", "no processes left"]


def test_processes_end_with_who_started_them() -> None:
    assert lines_of(["true", "false"], "leave") == ["done", "no processes left"]


def test_a_process_beside_has_the_files_that_it_reads_and_no_lock() -> None:
    assert lines_of(["files"]) == ["the lock is not here", "no processes left"]
