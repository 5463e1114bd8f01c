"""A hub on several machines, as far as one machine can play them: what they share is a database, Redis and a bucket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, Worker

from musehub_plugin.client import HubTransport, clone, verify
from musehub_plugin.testing import History
from musehub_plugin.testing.supervised import reserved_ports
from tests.faults.laboratory import Laboratory
from tests.faults.muse import Muse

pytestmark = pytest.mark.faults

REPOS = [f"alice/songs-{number}" for number in range(4)]
PUSHES = 6
WORKERS = 3
PROJECT = Path(__file__).parents[2]
GUNICORN = (sys.executable, "-m", "gunicorn", "--workers", "2", "--threads", "4", "--no-control-socket")
WORKER = (sys.executable, "-m", "flask", "--app", "tests.faults.forge_app", "musehub", "worker")


@pytest.fixture
def webs(lab: Laboratory) -> Iterator[list[Muse]]:
    """Who talks to either of two web servers; three workers run beside them."""
    with ExitStack() as stack:
        ports = stack.enter_context(reserved_ports(2))
        servers = [[*GUNICORN, "--bind", f"127.0.0.1:{port}", "tests.faults.forge_app:create_app()"] for port in ports]
        for number, program in enumerate([*servers, *[WORKER] * WORKERS]):
            log = stack.enter_context((lab.directory / f"process-{number}.log").open("wb"))
            environment = lab.environment("web" if number < len(servers) else "worker")
            process = subprocess.Popen(program, env=environment, stdout=log, stderr=log, cwd=PROJECT)
            stack.callback(process.wait)
            stack.callback(os.kill, process.pid, signal.SIGTERM)
        found = [Muse(f"http://127.0.0.1:{port}") for port in ports]
        lab.wait(lambda: all(is_ready(web) for web in found), "the web servers")
        lab.wait(lambda: len(workers(lab)) == WORKERS, "the workers")
        yield found


def is_ready(web: Muse) -> bool:
    """Say whether a web server answers, and has what it needs."""
    return web.request("GET", "/-/musehub/ready").status == 200


def workers(lab: Laboratory) -> list[BaseWorker]:
    """Return the workers that the lab's queue has."""
    with Redis.from_url(lab.config["MUSEHUB_REDIS_URL"]) as connection:
        queue = Queue(lab.config["MUSEHUB_QUEUE"], connection=connection, serializer=JSONSerializer)
        return list(Worker.all(queue=queue, serializer=JSONSerializer))


def have_all_worked(lab: Laboratory) -> bool:
    """Say whether each worker has done a job."""
    counts = [worker.successful_job_count for worker in workers(lab)]
    return len(counts) == WORKERS and min(counts) > 0


def push_all(webs: list[Muse], repo: str) -> tuple[History, str]:
    """Push a history commit by commit, each through the other web server than the one before."""
    history = History()
    parents: list[str] = []
    for number in range(PUSHES):
        head = history.commit({f"{n}.txt": f"{repo} {number} {n}".encode() for n in range(3)}, parents)
        answer = webs[number % 2].push(repo, history.pack(), head)
        assert answer.status == 200, answer
        parents = [head]
    return history, parents[0]


def test_two_web_servers_and_three_workers_are_one_hub(lab: Laboratory, webs: list[Muse], tmp_path: Path) -> None:
    for repo in REPOS:
        lab.create_repo(repo)
    with ThreadPoolExecutor(len(REPOS)) as threads:
        pushed = dict(zip(REPOS, threads.map(lambda repo: push_all(webs, repo), REPOS), strict=True))
    lab.wait_for_jobs()
    for repo, (history, head) in pushed.items():
        for number, web in enumerate(webs):
            web.assert_fetchable(repo, history, {"main": head})
            transport = HubTransport(f"{web.origin}/{repo}")
            cloned = clone(transport, tmp_path / f"{number}" / repo.replace("/", "-"))
            transport.close()
            assert cloned.head == head
            assert verify(cloned.workdir).problems == []
    for number in range(100):
        if have_all_worked(lab):
            break
        # Who takes a job is not said, and a worker counts what it did a moment later: each gets its turn in the end.
        lab.create_repo(f"alice/more-{number}")
        push_all(webs, f"alice/more-{number}")
        lab.wait_for_jobs()
    assert have_all_worked(lab)
