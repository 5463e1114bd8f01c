"""From a push to its index: rows are the queue of record, Redis only makes it sooner."""

from __future__ import annotations

import json
import re
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from rq.job import JOB_ID_PATTERN
from sqlalchemy import select, text

from musehub_plugin.index import index_mpack
from musehub_plugin.jobs.queue import request_index, sweep
from musehub_plugin.jobs.tasks import index
from musehub_plugin.models import MusehubMPackIndex
from musehub_plugin.signals import step
from musehub_plugin.store.models import MusehubJob
from musehub_plugin.testing.apps import close_app, hub_of, make_app, run_jobs
from musehub_plugin.testing.factories import History, create_repo
from musehub_plugin.testing.services import redis_service
from tests.exchange import Caller
from tests.integration.jobs.conftest import Work, job_states, push

REPO = "alice/songs"


def indexed(app: Flask) -> list[tuple[Any, ...]]:
    with app.app_context():
        statement = select(
            MusehubMPackIndex.entity_id,
            MusehubMPackIndex.mpack_id,
            MusehubMPackIndex.frame,
            MusehubMPackIndex.size_bytes,
        )
        return sorted(tuple(row) for row in hub_of(app).database().execute(statement))


def only_job(app: Flask) -> MusehubJob:
    with app.app_context():
        session = hub_of(app).sqlalchemy.session
        return session.execute(select(MusehubJob)).scalar_one()


def make_due(app: Flask) -> None:
    """Let the interval pass in which a job is not put on the queue twice."""
    with app.app_context():
        session = hub_of(app).sqlalchemy.session
        job = session.execute(select(MusehubJob)).scalar_one()
        job.not_before = job.created_at
        session.commit()


def test_f08_r04_a_push_can_be_fetched_once_a_worker_has_run(caller: Caller, work: Work) -> None:
    head = push(caller, b"one")
    waiting = caller.fetch(REPO, [head])
    assert (waiting.status_code, waiting.get_json()["code"]) == (503, "not-indexed")
    assert int(waiting.headers["Retry-After"]) >= 1
    work()
    assert list(caller.pull(REPO, [head]).blobs.values()) == [b"one"]


def test_one_worker_serves_many_pushes_with_a_fork_for_each(app: Flask, caller: Caller, work: Work) -> None:
    heads = [push(caller, bytes([number]) * 100, f"b{number}") for number in range(4)]
    log = work()
    assert "Traceback" not in log
    assert job_states(app) == ["done"] * 4
    assert len(caller.pull(REPO, heads).blobs) == 4


def test_two_workers_at_once_share_the_pushes(app: Flask, caller: Caller, work: Work) -> None:
    heads = [push(caller, bytes([number]) * 100, f"b{number}") for number in range(6)]
    with ThreadPoolExecutor(2) as pool:
        logs = [future.result() for future in [pool.submit(work) for _ in range(2)]]
    assert [log for log in logs if "Traceback" in log] == []
    assert job_states(app) == ["done"] * 6
    assert len(caller.pull(REPO, heads).blobs) == 6


def test_r02_f12_a_worker_finds_what_a_flushed_redis_forgot(
    app: Flask, caller: Caller, connection: redis.Redis, work: Work
) -> None:
    head = push(caller, b"one")
    connection.flushdb()
    make_due(app)
    work()
    assert caller.fetch(REPO, [head]).status_code == 200


def test_r02_a_job_is_queued_by_one_sweep_of_two(app: Flask, caller: Caller) -> None:
    push(caller, b"one")
    make_due(app)
    with app.app_context():
        hub = hub_of(app)
        assert [sweep(hub, hub.database()), sweep(hub, hub.database())] == [1, 0]


def test_r03_a_push_is_taken_at_once_while_redis_is_down(
    config: dict[str, Any], tmp_path: Path, connection: redis.Redis
) -> None:
    with redis_service() as service:
        app = make_app(tmp_path, {**config, "MUSEHUB_REDIS_URL": service.url})
        try:
            with app.app_context():
                create_repo(hub_of(app).sqlalchemy.session)
            caller = Caller(app, "alice")
            service.stop()
            seconds = []
            for number in range(3):
                before = time.monotonic()
                head = push(caller, bytes([number]), f"b{number}")
                seconds.append(time.monotonic() - before)
            # A client library's own patience would be 4 s, for each of them.
            assert min(seconds) < 2
            assert job_states(app) == ["pending"] * 3
            service.start()
            run_jobs(app)
            assert caller.fetch(REPO, [head]).status_code == 200
        finally:
            close_app(app)


def test_r07_an_index_job_that_runs_twice_changes_nothing(app: Flask, caller: Caller, work: Work) -> None:
    push(caller, b"one")
    work()
    before = indexed(app)
    subject = only_job(app).subject
    with app.app_context():
        assert index(subject) == 0
    assert indexed(app) == before
    assert job_states(app) == ["done"]


def index_meanwhile(app: Flask, at: str, *, lapsed: bool) -> list[int]:
    """Index the one mpack, and again by another worker when the first reaches `at`; return what the other indexed."""
    job = only_job(app)
    other: list[int] = []

    def meanwhile(sender: object, name: str) -> None:
        if name != at or other:
            return
        other.append(-1)
        with app.app_context():
            hub = hub_of(app)
            if lapsed:
                session = hub.sqlalchemy.session
                session.execute(select(MusehubJob)).scalar_one().lease_until = job.created_at
                session.commit()
            other[0] = index_mpack(hub, hub.database(), job.subject)

    with step.connected_to(meanwhile), app.app_context():
        hub = hub_of(app)
        index_mpack(hub, hub.database(), job.subject)
    return other


@pytest.mark.parametrize("at", ["index.claimed", "index.batch-written", "index.batch-committed", "index.settled"])
def test_r07_a_job_that_a_worker_is_at_is_not_there_to_take(app: Flask, caller: Caller, at: str) -> None:
    push(caller, b"one")
    assert index_meanwhile(app, at, lapsed=False) == [0]
    assert (job_states(app), len(indexed(app))) == (["done"], 1)


def test_f07_a_job_that_is_queued_twice_ends_well_for_both_workers(
    app: Flask, caller: Caller, connection: redis.Redis
) -> None:
    push(caller, b"one")
    hub = hub_of(app)
    with app.app_context():
        request_index(hub, hub.database(), only_job(app).subject)
    assert connection.llen("rq:queue:musehub") == 2
    entered: list[str] = []

    def second_worker(sender: object, name: str) -> None:
        if name == "index.committed" and not entered:
            entered.append(name)
            run_jobs(app)

    with step.connected_to(second_worker):
        run_jobs(app)
    assert entered
    assert connection.zcard("rq:failed:musehub") == 0


@pytest.mark.parametrize("at", ["index.claimed", "index.batch-committed"])
def test_f04_a_worker_that_was_thought_dead_and_its_successor_do_no_harm(app: Flask, caller: Caller, at: str) -> None:
    head = push(caller, b"one")
    assert index_meanwhile(app, at, lapsed=True) == [1]
    assert (job_states(app), len(indexed(app))) == (["done"], 1)
    assert caller.fetch(REPO, [head]).status_code == 200


def test_r08_an_mpack_that_is_gone_fails_its_job_with_a_reason(app: Flask, caller: Caller) -> None:
    head = push(caller, b"one")
    hub = hub_of(app)
    subject = only_job(app).subject
    hub.storage.delete_mpack(subject)  # type: ignore[attr-defined]  # file storage can
    for _ in range(hub.settings.job_attempts):
        with app.app_context():
            index_mpack(hub, hub.database(), subject)
    job = only_job(app)
    assert (job.state, job.error) == ("failed", "the mpack is not in storage")
    answer = caller.fetch(REPO, [head])
    assert (answer.status_code, answer.get_json()["code"]) == (503, "index-failed")


def test_r10_indexing_an_mpack_that_nobody_pushed_is_nothing_to_do(app: Flask) -> None:
    with app.app_context():
        assert index(f"sha256:{'0' * 64}") == 0
    assert indexed(app) == []


def test_r20_the_same_push_twice_makes_one_job(app: Flask, caller: Caller) -> None:
    push(caller, b"one")
    push(caller, b"one")
    assert len(job_states(app)) == 1


def test_f05_s96_redis_holds_a_job_of_a_legal_id_and_nothing_but_json(
    app: Flask, caller: Caller, connection: redis.Redis
) -> None:
    push(caller, b"one")
    (name,) = connection.lrange("rq:queue:musehub", 0, -1)
    assert isinstance(name, bytes)
    job_id = name.decode()
    data = connection.hget(f"rq:job:{job_id}", "data")
    assert re.fullmatch(JOB_ID_PATTERN, job_id)
    assert job_id == only_job(app).job_id
    assert json.loads(zlib.decompress(data)) == [  # type: ignore[arg-type]  # typed for both kinds
        "musehub_plugin.jobs.tasks.index",
        None,
        [only_job(app).subject],
        {},
    ]


def test_the_answer_to_a_push_names_the_job(app: Flask, caller: Caller) -> None:
    history = History()
    head = history.commit({"a.txt": b"one"})
    answer = caller.push(REPO, history.pack(), head).get_json()
    assert answer["index_job"] == only_job(app).job_id


def test_a_done_job_leaves_redis_soon(caller: Caller, connection: redis.Redis, work: Work) -> None:
    push(caller, b"one")
    work()
    lifetimes = [connection.ttl(key) for key in connection.scan_iter("rq:job:*")]
    assert all(0 < lifetime <= 600 for lifetime in lifetimes)
    assert connection.llen("rq:queue:musehub") == 0


def test_without_redis_a_push_is_indexed_in_its_own_request(sqlite_config: dict[str, Any], tmp_path: Path) -> None:
    app = make_app(tmp_path, sqlite_config)
    try:
        with app.app_context():
            create_repo(hub_of(app).sqlalchemy.session)
        caller = Caller(app, "alice")
        head = push(caller, b"one")
        assert job_states(app) == ["done"]
        assert caller.fetch(REPO, [head]).status_code == 200
    finally:
        close_app(app)


def test_s84_a_job_that_fails_logs_no_values(app: Flask, caller: Caller, work: Work) -> None:
    push(caller, b"la la la")
    rename_column(app, "frame", "page")
    try:
        log = work()
    finally:
        rename_column(app, "page", "frame")
    assert ("UndefinedColumn" in log, "[parameters:" in log) == (True, False)


def rename_column(app: Flask, old: str, new: str) -> None:
    """Make the index one of another release than the code, or its own again."""
    with app.app_context():
        session = hub_of(app).sqlalchemy.session
        session.execute(text(f"ALTER TABLE musehub_mpack_index RENAME COLUMN {old} TO {new}"))
        session.commit()
