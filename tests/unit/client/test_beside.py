"""Tasks that this process and forks of it take in turn have the results that they would have here alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from musehub_plugin.client.beside import MOST_TASKS

# In a process of its own: a fork wants to be the only thread, and must not come back into the tests.
PROGRAM = """
import fcntl, json, os, sys
from musehub_plugin.client.beside import Beside
from musehub_plugin.mpack import MPackError

here = os.getpid()
begun, kept = os.pipe()
lock = os.open(os.devnull, os.O_RDONLY)
tasks, how, processes = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def work(task):
    if os.getpid() != here:
        os.write(kept, b"!")
    if task == "false":
        raise MPackError("it is false")
    if task in {"elsewhere", "files"} and os.getpid() == here:
        # Until another process has begun a task.
        os.read(begun, 1)
    elif task == "files":
        try:
            os.fstat(lock)
        except OSError:
            return b"the lock is not here"
        return b"the lock is here"
    if task == "killed" and os.getpid() != here:
        os.kill(os.getpid(), 9)
    if task == "broken" and os.getpid() != here:
        raise ValueError("for no reason")
    return task.encode()

if how == "by small pipes":
    usual = os.pipe
    def small():
        ends = usual()
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, 4096)
        return ends
    os.pipe, how = small, "finish"
elif how == "by one process of two":
    usual, forks = os.fork, []
    def refused_once():
        if forks:
            raise BlockingIOError("no more processes")
        forks.append(usual())
        return forks[0]
    os.fork, how = refused_once, "finish"

try:
    with Beside(work, tasks, [kept], processes=processes) as beside:
        if how == "finish":
            beside.finish()
            print(*(beside.result(number).decode() for number in range(len(tasks))))
        elif how == "backwards":
            print(*(beside.result(number).decode() for number in reversed(range(len(tasks)))))
    print("done")
except MPackError as error:
    print(error)
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no processes left")
"""


def lines_of(tasks: Sequence[str], how: str = "finish", *, processes: int = 2) -> list[str]:
    """Return what a process prints that does these tasks together with others."""
    arguments = [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(tasks), how, str(processes)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("processes", [0, 1, 3])
@pytest.mark.parametrize("tasks", [[], ["one"], ["one", "two", "three", "four", "five"]])
def test_results_are_those_of_the_tasks(tasks: list[str], processes: int) -> None:
    assert lines_of(tasks, processes=processes) == [" ".join(tasks), "done", "no processes left"]


def test_results_may_be_asked_for_in_any_order() -> None:
    assert lines_of(["one", "two", "three"], "backwards") == ["three two one", "done", "no processes left"]


@pytest.mark.parametrize("how", ["finish", "by small pipes"])
def test_as_many_tasks_as_there_may_be_are_done(how: str) -> None:
    tasks = ["task"] * MOST_TASKS
    assert lines_of(tasks, how) == [" ".join(tasks), "done", "no processes left"]


@pytest.mark.parametrize("tasks", [["false"], ["true", "false"], ["false", "true", "false"]])
def test_what_is_wrong_is_raised_here(tasks: list[str]) -> None:
    assert lines_of(tasks) == ["it is false", "no processes left"]


@pytest.mark.parametrize("task", ["killed", "broken"])
def test_a_task_whose_process_ends_without_an_answer_is_done_here(task: str) -> None:
    assert lines_of(["elsewhere", task, "true"]) == [f"elsewhere {task} true", "done", "no processes left"]


def test_tasks_are_done_by_as_many_processes_as_the_system_gives() -> None:
    tasks = ["elsewhere", "two", "three"]
    assert lines_of(tasks, "by one process of two") == [" ".join(tasks), "done", "no processes left"]


def test_processes_end_with_who_started_them() -> None:
    assert lines_of(["true", "false"], "leave") == ["done", "no processes left"]


def test_a_process_beside_has_the_files_that_it_needs_and_no_lock() -> None:
    found = lines_of(["files"] * 2, processes=3)
    assert "the lock is here" not in found[0]
    assert "the lock is not here" in found[0]
