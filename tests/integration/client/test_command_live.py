"""The command `musehub` against a live hub, as somebody types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.client.conftest import LiveHub
from tests.unit.client.git_histories import GitHistory


def musehub(*arguments: str, cwd: Path) -> dict[str, object]:
    """Run the command in a process of its own and return what it reports."""
    program = "from musehub_plugin.client.command import main; main()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments, "--json"],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "MUSEHUB_TOKEN": "ada"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_from_git_to_a_private_repo_and_back(live_hub: LiveHub, tmp_path: Path) -> None:
    history = GitHistory(tmp_path / "history.git")
    first = history.commit(files={b"dir/a": b"1", b"empty": b""})
    history.commit(ref="refs/heads/side", parents=[first], files={b"b": b"2"}, message=b"side")
    url = live_hub.add_repo("engine", visibility="private")

    musehub("import-git", "history.git", "--into", "engine", cwd=tmp_path)
    pushed = musehub("push", "--set", url, "--all", cwd=tmp_path / "engine")
    assert (pushed["commits"], pushed["blobs"]) == (2, 3)

    cloned = musehub("clone", url, "copy", cwd=tmp_path)
    assert (cloned["commits"], cloned["branches"], cloned["files"]) == (2, ["main", "side"], 2)
    assert (tmp_path / "copy/dir/a").read_bytes() == b"1"
    assert musehub("verify", cwd=tmp_path / "copy")["problems"] == []

    history.commit(parents=[first], files={b"dir/a": b"new"}, message=b"later")
    musehub("import-git", "history.git", "--into", "engine", cwd=tmp_path)
    assert musehub("push", cwd=tmp_path / "engine")["commits"] == 1
    fetched = musehub("fetch", cwd=tmp_path / "copy")
    assert (fetched["commits"], fetched["blobs"]) == (1, 1)
