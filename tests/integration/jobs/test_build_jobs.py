"""A fetch that takes a while: a job makes its mpack, the client comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy import delete, select, update

from musehub_plugin.build_job import run_build_job
from musehub_plugin.errors import HistoryDamaged, HubError, StorageUnavailable
from musehub_plugin.gc import collect
from musehub_plugin.ids import fake_id
from musehub_plugin.jobs.queue import sweep
from musehub_plugin.models import MusehubRepo
from musehub_plugin.repack import run_repack_job
from musehub_plugin.signals import step
from musehub_plugin.store.jobs import BUILD, INDEX, REPACK, add_job, claim_job, repack_job_id
from musehub_plugin.store.models import MusehubFetchPlan, MusehubJob
from musehub_plugin.testing.apps import close_app, hub_of, make_app
from musehub_plugin.testing.factories import History, make_commit
from tests.exchange import Caller
from tests.integration.jobs.conftest import Work, job_states, push

REPO = "alice/songs"


@pytest.fixture
def config(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a hub that leaves fetches of more than three commits and blobs to a job."""
    return {**config, "MUSEHUB_BUILD_BY_JOB": 3, "MUSEHUB_INDEX_INLINE": 100}


def heads_of(caller: Caller) -> list[str]:
    return [push(caller, bytes([number]) * 10, f"b{number}") for number in range(4)]


def test_a_large_fetch_is_a_503_until_a_worker_has_made_its_pack(caller: Caller, work: Work) -> None:
    heads = heads_of(caller)
    waiting = caller.fetch(REPO, heads)
    assert (waiting.status_code, waiting.get_json()["code"]) == (503, "building")
    assert int(waiting.headers["Retry-After"]) >= 1
    assert caller.fetch(REPO, heads).status_code == 503
    work()
    assert len(caller.pull(REPO, heads).blobs) == 4


def test_asking_often_makes_one_job(app: Flask, caller: Caller, work: Work) -> None:
    heads = heads_of(caller)
    before = len(job_states(app))
    for _ in range(3):
        assert caller.fetch(REPO, heads).status_code == 503
    assert len(job_states(app)) == before + 1
    work()
    assert set(job_states(app)) == {"done"}


def test_a_build_that_a_flushed_redis_forgot_is_found_by_a_worker(
    caller: Caller, connection: redis.Redis, work: Work
) -> None:
    heads = heads_of(caller)
    assert caller.fetch(REPO, heads).status_code == 503
    connection.flushdb()
    work()
    assert len(caller.pull(REPO, heads).blobs) == 4


def test_a_small_fetch_is_made_at_once(caller: Caller) -> None:
    head = push(caller, b"one")
    assert caller.fetch(REPO, [head]).status_code == 200


def test_no_fetch_is_left_to_a_job_where_none_shall_be(app: Flask, config: dict[str, Any], tmp_path: Path) -> None:
    heads = heads_of(Caller(app, "alice"))
    never = make_app(tmp_path / "never", {**config, "MUSEHUB_BUILD_BY_JOB": 0})
    assert Caller(never).fetch(REPO, heads).status_code == 200
    close_app(never)


def test_what_waits_is_done_by_a_sweep_once_the_hub_has_no_queue_any_more(
    app: Flask, caller: Caller, config: dict[str, Any], tmp_path: Path
) -> None:
    assert caller.fetch(REPO, heads_of(caller)).status_code == 503
    with app.app_context():
        db = hub_of(app).database()
        for repo_id in db.execute(select(MusehubRepo.repo_id)).scalars().all():
            add_job(db, repack_job_id(repo_id), REPACK, repo_id)
        db.commit()
    without = make_app(tmp_path / "without", {**config, "MUSEHUB_REDIS_URL": None})
    with without.app_context():
        sweep(hub_of(without), hub_of(without).database())
    assert job_states(without) == ["done"] * 6
    close_app(without)


def kinds_left(app: Flask, *, grace: int) -> set[str]:
    """Return the kinds of jobs that are on record after a collection."""
    with app.app_context():
        db = hub_of(app).database()
        collect(hub_of(app), db, grace=grace)
        return set(db.execute(select(MusehubJob.kind)).scalars())


def test_a_collection_forgets_the_jobs_of_fetches_that_were_made(app: Flask, caller: Caller, work: Work) -> None:
    assert caller.fetch(REPO, heads_of(caller)).status_code == 503
    work()
    assert (kinds_left(app, grace=3600), kinds_left(app, grace=-1)) == ({INDEX, BUILD}, {INDEX})


def test_a_collection_forgets_no_job_of_a_fetch_that_waits(app: Flask, caller: Caller) -> None:
    assert caller.fetch(REPO, heads_of(caller)).status_code == 503
    assert kinds_left(app, grace=-1) == {INDEX, BUILD}


def test_a_collection_forgets_the_job_of_a_deleted_repo(app: Flask) -> None:
    with app.app_context():
        db = hub_of(app).database()
        repo_id = db.execute(select(MusehubRepo.repo_id)).scalar_one()
        add_job(db, repack_job_id(repo_id), REPACK, repo_id)
        db.execute(update(MusehubRepo).values(deleted_at=db.now(-1)))
        db.commit()
    assert kinds_left(app, grace=-1) == set()


class WorkerDied(BaseException):
    """The end of a worker, which nothing that it does comes after."""


def die(_: object, name: str) -> None:
    raise WorkerDied


@pytest.mark.parametrize("kind", [BUILD, REPACK])
def test_r08_a_job_that_kills_its_workers_is_given_up(app: Flask, caller: Caller, kind: str) -> None:
    assert caller.fetch(REPO, heads_of(caller)).status_code == 503
    hub = hub_of(app)
    run = {BUILD: run_build_job, REPACK: run_repack_job}[kind]
    with app.app_context():
        db = hub.database()
        repo_id = db.execute(select(MusehubRepo.repo_id)).scalar_one()
        add_job(db, repack_job_id(repo_id), REPACK, repo_id)
        db.commit()
        subject = db.execute(select(MusehubJob.subject).where(MusehubJob.kind == kind)).scalar_one()
        for _ in range(hub.settings.job_attempts):
            with step.connected_to(die), pytest.raises(WorkerDied):
                run(hub, db, subject)
            db.rollback()
            db.execute(update(MusehubJob).where(MusehubJob.kind == kind).values(lease_until=db.now(-1)))
            db.commit()
        run(hub, db, subject)
        assert db.execute(select(MusehubJob.state).where(MusehubJob.kind == kind)).scalar_one() == "failed"


@pytest.mark.parametrize("capabilities", [["inline"], ["inline", "mpacks", "thin"]], ids=["inline", "all"])
def test_a_small_pack_that_a_job_made_is_answered_to_who_has_commits_of_their_own(
    caller: Caller, work: Work, capabilities: list[str]
) -> None:
    history = History()
    head = ""
    for number in range(60):
        head = history.commit({"a.txt": f"{number}".encode()}, [head] if head else [])
    assert caller.push(REPO, history.pack(), head).status_code == 200
    have = [fake_id("not pushed yet")]
    assert caller.fetch(REPO, [head], have, capabilities).status_code == 503
    work()
    assert caller.fetch(REPO, [head], have, capabilities).status_code == 200


def fail(_: object, name: str) -> None:
    if name == "fetch.packed":
        raise StorageUnavailable("it is away")


def test_r08_a_job_that_fails_knows_what_it_is_to_make_when_it_is_tried_again(app: Flask, caller: Caller) -> None:
    heads = heads_of(caller)
    assert caller.fetch(REPO, heads).status_code == 503
    hub = hub_of(app)
    with app.app_context():
        db = hub.database()
        subject = db.execute(select(MusehubJob.subject).where(MusehubJob.kind == BUILD)).scalar_one()
        with step.connected_to(fail):
            assert not run_build_job(hub, db, subject)
        assert run_build_job(hub, db, subject)
    assert caller.fetch(REPO, heads).status_code == 200


def job_of(app: Flask) -> MusehubJob:
    """Return the only job that makes a pack."""
    with app.app_context():
        job: MusehubJob = (
            hub_of(app).database().execute(select(MusehubJob).where(MusehubJob.kind == BUILD)).scalar_one()
        )
        return job


def run(app: Flask) -> bool:
    """Run that job here."""
    subject = job_of(app).subject
    with app.app_context():
        return run_build_job(hub_of(app), hub_of(app).database(), subject)


def test_a_job_makes_a_thin_pack_for_who_asked_for_one(app: Flask, caller: Caller) -> None:
    history, line = History(), list[str]()
    for number in range(4):
        line.append(history.commit({"a.txt": f"{number}".encode()}, line[-1:]))
    assert caller.push(REPO, history.pack(), line[-1]).status_code == 200
    assert caller.fetch(REPO, line[-1:], line[:1], ["thin"]).status_code == 503
    assert run(app)
    assert caller.fetch(REPO, line[-1:], line[:1], ["thin"]).status_code == 200


def test_what_a_job_made_and_is_gone_is_made_again(app: Flask, caller: Caller) -> None:
    heads = heads_of(caller)
    for _ in range(2):
        assert caller.fetch(REPO, heads).status_code == 503
        assert run(app)
        assert caller.fetch(REPO, heads).status_code == 200
        with app.app_context():
            db = hub_of(app).database()
            db.execute(delete(MusehubFetchPlan))
            db.commit()


def test_a_job_that_a_worker_is_at_is_not_begun_again(app: Flask, caller: Caller) -> None:
    heads = heads_of(caller)
    assert caller.fetch(REPO, heads).status_code == 503
    job_id = job_of(app).job_id
    with app.app_context():
        db = hub_of(app).database()
        assert claim_job(db, job_id, 600)
        db.commit()
    assert caller.fetch(REPO, heads).status_code == 503
    assert (run(app), job_of(app).state, job_of(app).attempts) == (False, "running", 1)


@pytest.mark.parametrize(
    ("error", "ends"), [(StorageUnavailable, ("pending", 0)), (HistoryDamaged, ("failed", 5))], ids=["outage", "damage"]
)
def test_r08_a_job_is_tried_as_often_as_may_be_but_for_outages(
    app: Flask, caller: Caller, error: type[HubError], ends: tuple[str, int]
) -> None:
    heads = heads_of(caller)
    assert caller.fetch(REPO, heads).status_code == 503
    attempts = hub_of(app).settings.job_attempts
    assert attempts == 5

    def fail(_: object, name: str) -> None:
        if name == "fetch.packed":
            raise error("it does not work")

    with step.connected_to(fail):
        for _ in range(attempts):
            assert not run(app)
    job = job_of(app)
    assert ((job.state, job.attempts), job.error) == (ends, "it does not work")
    assert caller.fetch(REPO, heads).status_code == 503
    assert run(app)
    assert (job_of(app).state, job_of(app).error) == ("done", None)


def test_a_repack_that_meets_damage_says_what_is_damaged(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    hole = fake_id("never stored")
    with app.app_context():
        hub = hub_of(app)
        db = hub.database()
        repo_id = db.execute(select(MusehubRepo.repo_id)).scalar_one()
        make_commit(hub.sqlalchemy.session, repo_id, {"a.txt": b"one"}, [hole], branch="main")
        add_job(db, repack_job_id(repo_id), REPACK, repo_id)
        db.commit()
        run_repack_job(hub, db, repo_id)
        said = str(db.execute(select(MusehubJob.error)).scalar_one())
    printed = app.test_cli_runner().invoke(args=["musehub", "repack", REPO])
    assert [hole in text for text in (said, caplog.text, printed.output)] == [True] * 3
    assert printed.exit_code == 1
