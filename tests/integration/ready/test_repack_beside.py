"""A repack of a long history, part of which a process beside it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment

REPO = "alice/songs"
# Above what a plan keeps in memory.
COMMITS = 1_100

# In a process of its own: a fork wants to be the only thread, and must not come back into the tests.
PROGRAM = """
import json, os, signal, sys, threading
from pathlib import Path
from musehub_plugin.repack import repack
from musehub_plugin.store import fetch_plans
from musehub_plugin.testing.apps import close_app, hub_of, make_app

folder, config, repo_id, how = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
forked, forks, end = os.fork, [], threading.Event()

def fork():
    if how == "refused":
        raise BlockingIOError("no more processes")
    pid = forked()
    if pid:
        forks.append(pid)
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return pid

os.fork = fork
if how == "beside a thread":
    threading.Thread(target=end.wait).start()
app = make_app(folder, config, create_tables=False)
with app.app_context():
    hub = hub_of(app)
    repack(hub, hub.database(), repo_id, whole=True)
    chain = fetch_plans.clone_packs(hub.database(), repo_id)
close_app(app)
end.set()
print(json.dumps([len(forks), [each.pack._asdict() for each in chain]]))
"""


@pytest.fixture
def config(postgres_config: dict[str, Any], files_config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a hub whose database several processes can have."""
    return {**postgres_config, **files_config}


def repacked(tmp_path: Path, config: dict[str, Any], repo_id: str, how: str) -> tuple[int, list[dict[str, Any]]]:
    """Return how often a repack in a process of its own forked, and the clone packs that it made."""
    folder = tmp_path / how
    folder.mkdir()
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(folder), json.dumps(config), repo_id, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    forks, chain = json.loads(done.stdout)
    return forks, chain


@pytest.mark.skipif(sys.platform != "linux", reason="processes fork on Linux alone")
def test_a_pack_is_the_same_whoever_writes_its_history(tmp_path: Path, config: dict[str, Any]) -> None:
    hub = HubEnvironment("postgresql+files", tmp_path, config)
    repo_id = hub.create_repo(REPO)
    history, head = History(), None
    for number in range(COMMITS):
        files: dict[str, bytes | str] = {
            "a.txt": f"a {number // 2}".encode(),
            f"{number % 40}/b.txt": f"b {number}".encode(),
        }
        head = history.commit(files, [] if head is None else [head])
    assert head is not None
    assert hub.caller("alice").push(REPO, history.pack(), head).status_code == 200
    hub.run_jobs()
    hub.close()
    made = {how: repacked(tmp_path, config, repo_id, how) for how in ("beside", "beside a thread", "killed", "refused")}
    forks = {"beside": 1, "beside a thread": 0, "killed": 1, "refused": 0}
    assert {how: count for how, (count, _) in made.items()} == forks
    assert [chain for _, chain in made.values()] == [made["beside"][1]] * len(made) != [[]] * len(made)
