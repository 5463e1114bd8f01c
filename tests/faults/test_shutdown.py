"""Programs that are told to stop finish what they are at."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from musehub_plugin.testing.supervised import reserved_ports
from tests.faults.histories import several_blobs
from tests.faults.laboratory import Laboratory
from tests.faults.muse import Muse

pytestmark = pytest.mark.faults

REPO = "alice/songs"
PROJECT = Path(__file__).parents[2]
GUNICORN = (sys.executable, "-m", "gunicorn", "--threads", "4", "--no-control-socket")


def test_r29_a_worker_that_is_told_to_stop_finishes_its_job(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    assert web.muse.push(REPO, history.pack(), head).status == 200
    rule = lab.control.at("index.batch-written", "hold", role="worker")
    program = [sys.executable, "-m", "flask", "--app", "tests.faults.forge_app", "musehub", "worker"]
    with (
        (lab.directory / "worker.log").open("wb") as log,
        subprocess.Popen(program, env=lab.environment("worker"), stdout=log, stderr=log, cwd=PROJECT) as worker,
    ):
        try:
            rule.wait()
            worker.send_signal(signal.SIGTERM)
            rule.release()
            assert worker.wait(120) == 0
        finally:
            worker.kill()
    assert lab.job_states() == ["done"]
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r29_a_server_that_is_told_to_stop_answers_what_it_has_begun(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    with (
        reserved_ports(1) as (port,),
        (lab.directory / "gunicorn.log").open("wb") as log,
        subprocess.Popen(
            [*GUNICORN, "--bind", f"127.0.0.1:{port}", "tests.faults.forge_app:create_app()"],
            env=lab.environment("web"),
            stdout=log,
            stderr=log,
            cwd=PROJECT,
        ) as server,
        ThreadPoolExecutor(2) as threads,
    ):
        muse = Muse(f"http://127.0.0.1:{port}")
        try:
            lab.wait(lambda: muse.request("GET", f"/{REPO}/refs").status == 200, "the server")
            assert muse.push(REPO, history.pack(), head).status == 200
            lab.worker(burst=True).join()
            more = history.commit({"more.txt": b"more"}, [head])
            muse.upload(REPO, history.pack())
            rules = [lab.control.at("fetch.packed", "hold"), lab.control.at("unpack.stored", "hold")]
            fetch = threads.submit(muse.fetch, REPO, [head])
            push = threads.submit(muse.unpack, REPO, history.pack(), more)
            for rule in rules:
                rule.wait()
            server.send_signal(signal.SIGTERM)
            for rule in rules:
                rule.release()
            muse.assert_complete(fetch.result(), history, [head])
            assert push.result().status == 200
            assert server.wait(120) == 0
        finally:
            server.kill()
    assert lab.web().muse.refs(REPO) == {"main": more}
