"""The queue loses everything, or is away, or holds nonsense: the index comes all the same."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from musehub_plugin import ids
from musehub_plugin.jobs.broker import queue
from musehub_plugin.store.jobs import index_job_id
from tests.faults.histories import one_blob, several_blobs
from tests.faults.laboratory import Laboratory
from tests.faults.muse import Answer, Muse

pytestmark = pytest.mark.faults

REPO = "alice/songs"


@pytest.fixture
def redis(lab: Laboratory) -> Iterator[Redis]:
    """The server of the queue."""
    with Redis.from_url(lab.servers.redis.url) as connection:
        yield connection


def test_r02_what_a_flushed_queue_forgot_is_done_by_the_next_worker(lab: Laboratory, redis: Redis) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    assert web.muse.push(REPO, history.pack(), head).status == 200
    redis.flushall()
    lab.worker()
    # Before anybody asks: a fetch that waits would put the job on the queue itself.
    lab.wait_for_jobs()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r02_a_worker_finds_what_is_lost_while_it_runs(lab: Laboratory, redis: Redis) -> None:
    web = lab.web()
    lab.worker()
    lab.create_repo("alice/first")
    history, head = one_blob("first")
    assert web.muse.push("alice/first", history.pack(), head).status == 200
    # The worker is past its start, and sweeps when it has nothing to do.
    web.muse.assert_fetchable("alice/first", history, {"main": head})
    lab.create_repo(REPO)
    history, head = one_blob("songs")
    lab.control.at("unpack.committed", "kill")
    assert web.muse.push(REPO, history.pack(), head).status == 0
    lab.wait_for_jobs()
    lab.web().muse.assert_fetchable(REPO, history, {"main": head})


def test_r02_two_sweepers_at_once_share_the_work(lab: Laboratory) -> None:
    # What the one has taken is not due again before the other one looks.
    web, other = (lab.web(MUSEHUB_SWEEP_INTERVAL=600) for _ in range(2))
    pushed = []
    for number in range(8):
        repo = f"alice/songs-{number}"
        lab.create_repo(repo)
        history, head = one_blob(repo)
        assert web.muse.push(repo, history.pack(), head).status == 200
        pushed.append((repo, history, head))
    lab.sql("UPDATE musehub_job SET not_before = now()")
    both = threading.Barrier(2)

    def sweep(muse: Muse) -> Answer:
        both.wait()
        return muse.lab("sweep")

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(sweep, [web.muse, other.muse]))
    assert [answer.status for answer in answers] == [200, 200]
    assert sum(answer.body["due"] for answer in answers) == 8
    lab.worker(burst=True).join()
    for repo, history, head in pushed:
        web.muse.assert_fetchable(repo, history, {"main": head})


def test_r02_a_sweeper_leaves_what_another_one_is_at(lab: Laboratory) -> None:
    web = lab.web(MUSEHUB_SWEEP_INTERVAL=600)
    pushes(lab, web.muse, "songs", 3)
    lab.sql("UPDATE musehub_job SET not_before = now()")
    with lab.held("SELECT 1 FROM musehub_job ORDER BY job_id LIMIT 1 FOR UPDATE"):
        # It neither waits nor takes what is taken.
        assert web.muse.lab("sweep").body == {"due": 2}
    assert web.muse.lab("sweep").body == {"due": 1}


def pushes(lab: Laboratory, muse: Muse, name: str, count: int) -> list[float]:
    """Push to new repos, and return how many seconds each unpacking took."""
    seconds = []
    for number in range(count):
        repo = f"alice/{name}-{number}"
        lab.create_repo(repo)
        history, head = one_blob(repo)
        answer = muse.push(repo, history.pack(), head)
        assert answer.status == 200, answer
        seconds.append(answer.seconds)
    return seconds


def test_r03_a_push_does_not_wait_for_a_queue_that_is_away(lab: Laboratory, redis: Redis) -> None:
    web = lab.web()
    with_queue = min(pushes(lab, web.muse, "with", 5))
    lab.servers.redis.stop()
    try:
        without = min(pushes(lab, web.muse, "without", 5))
    finally:
        lab.servers.redis.start()
    # Measured: 82 ms with the queue, 99 ms without. A client library's own patience would be 4 s, for each of them.
    assert without < with_queue + 2
    # Once it is back, empty, nothing has to be restarted.
    pushes(lab, web.muse, "after", 1)
    assert redis.llen(f"rq:queue:{lab.config['MUSEHUB_QUEUE']}") == 1
    lab.worker()
    lab.wait_for_jobs()


def test_r03_a_push_does_not_wait_long_for_a_queue_that_hangs(lab: Laboratory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        web = lab.web(MUSEHUB_REDIS_URL=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        # Half a second of its own patience. One that waits would take minutes, each time.
        assert min(pushes(lab, web.muse, "songs", 3)) < 4


def test_r04_a_fetch_of_what_is_not_indexed_is_503_and_puts_the_job_on_the_queue_once(
    lab: Laboratory, redis: Redis
) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web(MUSEHUB_SWEEP_INTERVAL=600)
    assert web.muse.push(REPO, history.pack(), head).status == 200
    redis.flushall()
    for _ in range(3):
        web.muse.fetch(REPO, [head]).assert_try_again("not-indexed")
    assert redis.llen(f"rq:queue:{lab.config['MUSEHUB_QUEUE']}") == 1
    lab.worker(burst=True).join()
    web.muse.assert_complete(web.muse.fetch(REPO, [head]), history, [head])


def test_r06_a_job_that_is_in_no_list_and_no_registry_is_found(lab: Laboratory, redis: Redis) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    pack = history.pack()
    assert web.muse.push(REPO, pack, head).status == 200
    # What is left when a worker dies between taking a job and saying so: a job that calls itself queued.
    assert redis.lpop(f"rq:queue:{lab.config['MUSEHUB_QUEUE']}") is not None
    assert redis.hget(f"rq:job:{index_job_id(ids.blob_id(pack))}", "status") == b"queued"
    lab.worker()
    lab.wait_for_jobs()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r07_a_job_that_runs_again_changes_nothing(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    pack = history.pack()
    assert web.muse.push(REPO, pack, head).status == 200
    path = f"index/{ids.blob_id(pack)}"
    assert web.muse.lab(path).body == {"blobs": 6}
    before = lab.sql("SELECT * FROM musehub_mpack_index ORDER BY entity_id")
    lab.sql("UPDATE musehub_job SET state = 'pending'")
    assert web.muse.lab(path).body == {"blobs": 6}
    assert lab.sql("SELECT * FROM musehub_mpack_index ORDER BY entity_id") == before
    web.muse.assert_fetchable(REPO, history, {"main": head})


@pytest.mark.parametrize("step", ["index.claimed", "index.batch-written", "index.batch-committed", "index.settled"])
def test_r07_a_job_that_runs_twice_at_once_ends_in_one_index(lab: Laboratory, step: str) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    pack = history.pack()
    assert web.muse.push(REPO, pack, head).status == 200
    path = f"index/{ids.blob_id(pack)}"
    with ThreadPoolExecutor(2) as threads:
        rule = lab.control.at(step, "hold")
        first = threads.submit(web.muse.lab, path)
        rule.wait()
        if step in {"index.claimed", "index.batch-committed"}:
            lab.sql("UPDATE musehub_job SET lease_until = now() - interval '1 second'")
        second = threads.submit(web.muse.lab, path)
        lab.wait(lambda: second.done() or lab.is_somebody_waiting(), "the second run")
        rule.release()
        assert [first.result().status, second.result().status] == [200, 200]
    assert lab.job_states() == ["done"]
    web.muse.assert_fetchable(REPO, history, {"main": head})
    assert lab.verify().problems == []


def poisoned(lab: Laboratory, muse: Muse, repo: str) -> Callable[[], bytes]:
    """Push to a repo, spoil what storage keeps, and return what gives the pack."""
    lab.create_repo(repo)
    history, head = several_blobs(repo)
    pack = history.pack()
    assert muse.push(repo, pack, head).status == 200
    lab.replace_mpack(ids.blob_id(pack), b"this is no mpack")
    return lambda: pack


def test_r08_a_job_that_cannot_succeed_is_given_up_and_starves_no_other(lab: Laboratory) -> None:
    web = lab.web(MUSEHUB_JOB_ATTEMPTS=2)
    poisoned(lab, web.muse, REPO)
    lab.create_repo("alice/good")
    good, good_head = several_blobs("good")
    assert web.muse.push("alice/good", good.pack(), good_head).status == 200
    lab.worker(MUSEHUB_JOB_ATTEMPTS=2)
    web.muse.assert_fetchable("alice/good", good, {"main": good_head})
    lab.wait(lambda: lab.job_states() == ["done", "failed"], "the end of the attempts")
    row = lab.sql("SELECT attempts, error FROM musehub_job WHERE state = 'failed'")[0]
    assert row.attempts == 2
    # The reason is what is wrong with the mpack; the worker came to its end each time.
    assert row.error
    assert "did not end" not in row.error
    answer = web.muse.fetch(REPO, [several_blobs(REPO)[1]])
    answer.assert_try_again("index-failed")
    assert int(answer.headers["Retry-After"]) >= 60


def test_r08_pushing_it_again_heals_what_could_not_be_indexed(lab: Laboratory) -> None:
    web = lab.web()
    pack = poisoned(lab, web.muse, REPO)()
    lab.worker(MUSEHUB_JOB_ATTEMPTS=1)
    lab.wait(lambda: lab.job_states() == ["failed"], "the end of the attempts")
    history, head = several_blobs(REPO)
    assert web.muse.push(REPO, pack, head).status == 200
    web.muse.assert_fetchable(REPO, history, {"main": head})
    assert lab.verify().problems == []


def test_r08_verify_heals_what_could_not_be_indexed_once_the_bytes_are_back(lab: Laboratory) -> None:
    web = lab.web()
    pack = poisoned(lab, web.muse, REPO)()
    lab.worker(burst=True, MUSEHUB_JOB_ATTEMPTS=1).join()
    assert lab.job_states() == ["failed"]
    lab.replace_mpack(ids.blob_id(pack), pack)
    found = lab.verify(repair=True)
    assert {problem.kind for problem in found.problems} == {"index-failed", "index-wrong"}
    assert found.unrepaired == 0
    history, head = several_blobs(REPO)
    web.muse.assert_complete(web.muse.fetch(REPO, [head]), history, [head])
    assert lab.verify().problems == []


def test_r08_an_mpack_that_kills_its_workers_is_given_up(lab: Laboratory) -> None:
    web = lab.web()
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    assert web.muse.push(REPO, history.pack(), head).status == 200
    rules = [lab.control.at("index.claimed", "kill", role="worker") for _ in range(2)]
    # A rule that is left would be one attempt too many.
    surplus = lab.control.at("index.claimed", "kill", role="worker")
    for _ in range(3):
        lab.sql("UPDATE musehub_job SET lease_until = now(), not_before = now()")
        lab.worker(burst=True, MUSEHUB_JOB_ATTEMPTS=2).join()
    assert all(rule.has_fired for rule in rules)
    assert not surplus.has_fired
    assert lab.job_states() == ["failed"]
    assert "did not end" in lab.sql("SELECT error FROM musehub_job")[0].error


def test_r09_a_job_from_another_release_fails_alone_and_the_work_is_done(lab: Laboratory, redis: Redis) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    pack = history.pack()
    assert web.muse.push(REPO, pack, head).status == 200
    redis.flushall()
    lab.sql("UPDATE musehub_job SET not_before = now() + interval '1 hour'")
    with lab.hub() as (hub, _):
        for number, (task, arguments) in enumerate(
            [("index", (ids.blob_id(pack), {"version": 2})), ("index_of_a_later_release", (ids.blob_id(pack),))]
        ):
            queue(hub).enqueue_call(
                f"musehub_plugin.jobs.tasks.{task}", args=arguments, job_id=f"later-{number}", result_ttl=0
            )
    lab.worker(burst=True).join()
    assert lab.job_states() == ["pending"]
    lab.sql("UPDATE musehub_job SET not_before = now()")
    lab.worker(burst=True).join()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r10_an_index_job_of_a_deleted_repo_is_done_and_one_of_nothing_does_nothing(lab: Laboratory) -> None:
    repo_id = lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    assert web.muse.push(REPO, history.pack(), head).status == 200
    assert web.muse.lab(f"delete/{repo_id}").status == 200
    lab.worker(burst=True).join()
    assert lab.job_states() == ["done"]
    assert web.muse.lab(f"index/{ids.fake_id('nobody pushed this')}").body == {"blobs": 0}


def test_r10_an_index_job_whose_mpack_is_missing_fails_with_the_reason(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    pack = history.pack()
    assert web.muse.push(REPO, pack, head).status == 200
    lab.replace_mpack(ids.blob_id(pack), None)
    lab.worker(burst=True, MUSEHUB_JOB_ATTEMPTS=1).join()
    assert lab.job_states() == ["failed"]
    assert "not in storage" in lab.sql("SELECT error FROM musehub_job")[0].error
