"""kill -9 at a hundred moments of clone, fetch, push and import: running the command again always ends well."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from musehub_plugin.client import Workdir, import_git, push, verify
from tests.integration.client.conftest import LiveHub
from tests.integration.client.killing import Commands
from tests.unit.client.git_histories import GitHistory

KILLS = 20
SIGKILL = -9


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """Commands of the owner of all repos."""
    with Commands({"MUSEHUB_TOKEN": "ada", "HOME": str(tmp_path)}) as commands:
        yield commands


@pytest.fixture
def history(tmp_path: Path) -> GitHistory:
    """A dozen commits with a merge, on two branches."""
    history = GitHistory(tmp_path / "history.git")
    last = history.commit(files={b"a": b"0", b"empty": b"", b"folder/name": bytes(range(256)) * 300})
    for number in range(1, 8):
        last = history.commit(parents=[last], files={b"a": b"%d" % number, b"d%d/f" % number: b"x" * number})
    side = history.commit(ref="refs/heads/side", parents=[last], files={b"side": b"s", b"a": None})
    history.commit(parents=[last, side], files={b"a": b"merged"})
    return history


@pytest.fixture
def imported(history: GitHistory, tmp_path: Path) -> Workdir:
    """The history in a working copy."""
    workdir = Workdir.create(tmp_path / "imported")
    import_git(history.path, workdir)
    return workdir


def moments(commands: Commands, seed: str, count: int, *arguments: str, cwd: Path) -> list[int]:
    """Return steps of a command at which to kill it: seeded, among all that it takes."""
    run = commands.run(*arguments, cwd=cwd)
    assert run.code == 0, run.output
    assert run.steps >= count
    return sorted(Random(seed).sample(range(1, run.steps + 1), count))


def require_whole(root: Path, heads: dict[str, str] | None = None) -> None:
    """Fail unless everything in a working copy verifies, and its branches are these."""
    workdir = Workdir(root)
    assert verify(workdir).problems == []
    if heads is not None:
        assert workdir.branches() == heads


@pytest.mark.parametrize("options", [(), ("--bare",)], ids=["loose", "bare"])
def test_a_clone_that_is_killed_is_ended_by_the_same_command(
    live_hub: LiveHub, imported: Workdir, commands: Commands, tmp_path: Path, options: tuple[str, ...]
) -> None:
    url = live_hub.add_repo("engine")
    push(imported, live_hub.transport(url), branches=["main", "side"])
    for step in moments(commands, "clone", KILLS, "clone", *options, url, "whole", cwd=tmp_path):
        target = f"copy-{step}"
        assert commands.run("clone", *options, url, target, cwd=tmp_path, kill_at=step).code == SIGKILL
        began = (tmp_path / target / ".muse").exists()
        if began:
            require_whole(tmp_path / target)
        # The last steps come when the clone is whole already.
        if not began or Workdir(tmp_path / target).unfinished_clone() is not None:
            again = commands.run("clone", *options, url, target, cwd=tmp_path)
            assert again.code == 0, (step, again.output)
        require_whole(tmp_path / target, imported.branches())
        assert sorted(path.name for path in (tmp_path / target).iterdir() if path.name.startswith(".")) == [".muse"]
        if not options:
            assert (tmp_path / target / "a").read_bytes() == b"merged"


def test_a_fetch_that_is_killed_is_ended_by_the_same_command(
    live_hub: LiveHub, history: GitHistory, imported: Workdir, commands: Commands, tmp_path: Path
) -> None:
    url = live_hub.add_repo("engine")
    push(imported, live_hub.transport(url), branches=["side"])
    assert commands.run("clone", url, "old", cwd=tmp_path).code == 0
    push(imported, live_hub.transport(url), branches=["main"])
    shutil.copytree(tmp_path / "old", tmp_path / "trial")
    for step in moments(commands, "fetch", KILLS, "pull", "--all", cwd=tmp_path / "trial"):
        copy = tmp_path / f"copy-{step}"
        shutil.copytree(tmp_path / "old", copy)
        assert commands.run("pull", "--all", cwd=copy, kill_at=step).code == SIGKILL
        require_whole(copy)
        again = commands.run("pull", "--all", cwd=copy)
        assert again.code == 0, (step, again.output)
        require_whole(copy, imported.branches())


def test_a_push_that_is_killed_is_ended_by_the_same_command(
    live_hub: LiveHub, imported: Workdir, commands: Commands, tmp_path: Path
) -> None:
    url = live_hub.add_repo("trial")
    shutil.copytree(imported.root, tmp_path / "trial")
    for step in moments(commands, "push", KILLS, "push", "--all", "--set", url, cwd=tmp_path / "trial"):
        url = live_hub.add_repo(f"engine-{step}")
        # From the same state each time: a second push writes down less of where the branches are, and ends sooner.
        copy = tmp_path / f"copy-{step}"
        shutil.copytree(imported.root, copy)
        assert commands.run("push", "--all", "--set", url, cwd=copy, kill_at=step).code == SIGKILL
        require_whole(copy)
        again = commands.run("push", "--all", "--set", url, cwd=copy)
        assert again.code == 0, (step, again.output)
        assert live_hub.transport(url).get("refs")["branch_heads"] == imported.branches()


def test_an_import_that_is_killed_is_ended_by_the_same_command(
    history: GitHistory, imported: Workdir, commands: Commands, tmp_path: Path
) -> None:
    for step in moments(commands, "import", KILLS, "import-git", "history.git", "--into", "whole", cwd=tmp_path):
        target = f"copy-{step}"
        run = commands.run("import-git", "history.git", "--into", target, cwd=tmp_path, kill_at=step)
        assert run.code == SIGKILL
        if (tmp_path / target / ".muse").exists():
            require_whole(tmp_path / target)
        again = commands.run("import-git", "history.git", "--into", target, cwd=tmp_path)
        assert again.code == 0, (step, again.output)
        require_whole(tmp_path / target, imported.branches())
