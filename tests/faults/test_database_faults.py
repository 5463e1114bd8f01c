"""Connections are cut, servers restart, transactions meet: pushes are all there or not at all, and callers are told."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from musehub_plugin import ids
from musehub_plugin.doctor import examine
from musehub_plugin.store import migrate
from musehub_plugin.store.models import MusehubBranch, MusehubObject
from musehub_plugin.testing import History
from musehub_plugin.testing.apps import close_app, hub_of
from tests.faults.forge_app import create_app
from tests.faults.histories import one_blob, several_blobs
from tests.faults.laboratory import Laboratory

pytestmark = pytest.mark.faults

REPO = "alice/songs"
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1}


def test_r11_rows_that_two_transactions_insert_in_opposite_order_do_not_deadlock(lab: Laboratory) -> None:
    objects = [{"object_id": ids.fake_id(str(number)), "size_bytes": 1} for number in range(4_000)]
    both = threading.Barrier(2)

    def insert(rows: list[dict[str, object]]) -> None:
        with lab.hub() as (_, db):
            both.wait()
            db.insert_new(MusehubObject, rows)
            db.commit()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(insert, objects), threads.submit(insert, objects[::-1])]:
            done.result()
    assert lab.sql("SELECT count(*) FROM musehub_object")[0][0] == 4_000


def test_r11_a_transaction_that_lost_a_deadlock_is_run_again(lab: Laboratory) -> None:
    both = threading.Barrier(2)
    runs: list[str] = []

    def branches(first: str, second: str) -> None:
        def work() -> None:
            runs.append(first)
            for name in (first, second):
                db.insert_one(MusehubBranch, {"repo_id": "r", "name": name, "head_commit_id": ids.fake_id(first)})
                if len(runs) <= 2 and name == first:
                    both.wait()

        with lab.hub() as (_, db):
            db.transaction(work)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(branches, "a", "b"), threads.submit(branches, "b", "a")]:
            done.result()
    assert len(runs) == 3
    assert lab.sql("SELECT count(*) FROM musehub_branch")[0][0] == 2


def test_r11_pushes_with_the_same_rows_at_once_all_succeed(lab: Laboratory) -> None:
    webs = [lab.web(), lab.web()]
    shared = {f"{number}.txt": f"shared {number}".encode() for number in range(40)}
    repos = []
    for number in range(6):
        repo = f"alice/songs-{number}"
        lab.create_repo(repo)
        history = History()
        base = history.commit(dict(sorted(shared.items(), reverse=number % 2 == 0)))
        repos.append((repo, history, history.commit({"own.txt": repo.encode()}, [base])))
    with ThreadPoolExecutor(6) as threads:
        answers = [
            threads.submit(webs[number % 2].muse.push, repo, history.pack(), head)
            for number, (repo, history, head) in enumerate(repos)
        ]
        assert [answer.result().status for answer in answers] == [200] * 6
    lab.index()
    for repo, history, head in repos:
        webs[0].muse.assert_fetchable(repo, history, {"main": head})


def test_r12_a_push_that_waited_for_one_that_failed_owns_the_rows(lab: Laboratory) -> None:
    lab.create_repo("alice/first")
    lab.create_repo("alice/second")
    history, head = several_blobs("shared")
    web = lab.web()
    web.muse.upload("alice/first", history.pack())
    web.muse.upload("alice/second", history.pack())
    rule = lab.control.at("unpack.written", "hold")
    lab.control.at("unpack.written", "cut")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(web.muse.unpack, "alice/first", history.pack(), head)
        rule.wait()
        second = threads.submit(web.muse.unpack, "alice/second", history.pack(), head)
        lab.wait(lab.is_somebody_waiting, "the second push")
        rule.release()
        first.result().assert_try_again("database-unavailable")
        assert second.result().status == 200
    assert web.muse.refs("alice/first") == {}
    lab.index()
    web.muse.assert_fetchable("alice/second", history, {"main": head})


def test_r12_a_push_waits_for_another_one_s_lock_only_so_long(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("shared")
    web = lab.web(LAB_PATIENCE="200ms")
    web.muse.upload(REPO, history.pack())
    rule = lab.control.at("unpack.written", "hold")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(web.muse.unpack, REPO, history.pack(), head)
        rule.wait()
        web.muse.unpack(REPO, history.pack(), head).assert_try_again("database-unavailable")
        rule.release()
        assert first.result().status == 200


@pytest.mark.parametrize("step", ["unpack.begun", "unpack.branch-moved", "unpack.written"])
def test_r13_a_connection_that_is_cut_before_the_commit_costs_the_push_a_second_try(lab: Laboratory, step: str) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    lab.control.at(step, "cut")
    web.muse.push(REPO, history.pack(), head).assert_try_again("database-unavailable")
    assert web.muse.refs(REPO) == {}
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.worker(burst=True).join()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r13_a_connection_that_is_cut_while_the_commit_is_answered_loses_nothing(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    lab.control.at("unpack.written", "commit-and-cut")
    web.muse.push(REPO, history.pack(), head).assert_try_again("database-unavailable")
    assert web.muse.refs(REPO) == {"main": head}
    again = web.muse.push(REPO, history.pack(), head)
    assert (again.status, again.body["blob_count"]) == (200, 6)
    # The job was never put on the queue; its row was committed with the push.
    lab.worker(burst=True).join()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r13_a_connection_that_is_cut_after_the_commit_does_not_spoil_the_answer(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    lab.control.at("unpack.committed", "cut")
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.worker(burst=True).join()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r13_a_worker_whose_connection_is_cut_leaves_a_job_that_gets_done(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    rules = [lab.control.at(step, "cut", role="worker") for step in ("index.batch-written", "index.settled")]
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.worker()
    web.muse.assert_fetchable(REPO, history, {"main": head})
    assert rules[0].has_fired


def test_r14_a_web_process_outlives_a_restart_of_the_database(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.servers.postgres.stop()
    try:
        web.muse.fetch(REPO, [head]).assert_try_again("database-unavailable")
        web.muse.push(REPO, history.pack(), head).assert_try_again("database-unavailable")
    finally:
        lab.servers.postgres.start()
    assert web.muse.refs(REPO) == {"main": head}
    lab.index()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r14_a_standby_that_only_reads_is_503_until_it_is_promoted(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    name = lab.sql("SELECT current_database()")[0][0]
    # And waits until they have ended: one that has not yet would still write.
    others = (
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE datname = :name AND pid <> pg_backend_pid()"
    )
    lab.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    lab.sql(others, name=name)
    web.muse.push(REPO, history.pack(), head).assert_try_again("database-unavailable")
    assert web.muse.refs(REPO) == {}
    promote = f"ALTER DATABASE {name} RESET default_transaction_read_only"
    lab.sql(f"BEGIN; SET TRANSACTION READ WRITE; {promote}; COMMIT")
    lab.sql(others, name=name)
    # No more than one request pays for the connection that it finds cut.
    lab.wait(lambda: web.muse.push(REPO, history.pack(), head).status == 200, "the push after the promotion")
    lab.index()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r14_requests_that_find_no_free_connection_are_503_and_the_pool_recovers(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web(SQLALCHEMY_ENGINE_OPTIONS=ONE_CONNECTION)
    rule = lab.control.at("unpack.branch-moved", "hold")
    with ThreadPoolExecutor(1) as threads:
        push = threads.submit(web.muse.push, REPO, history.pack(), head)
        rule.wait()
        web.muse.fetch(REPO, [head]).assert_try_again("database-unavailable")
        rule.release()
        assert push.result().status == 200
    lab.index()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r14_a_fetch_needs_no_second_connection_of_a_pool_of_one(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web(SQLALCHEMY_ENGINE_OPTIONS=ONE_CONNECTION)
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.index()
    for _ in range(2):
        web.muse.assert_complete(web.muse.fetch(REPO, [head]), history, [head])


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the plugin's tables; copied, never used itself."""
    path = tmp_path_factory.mktemp("faults") / "migrated.db"
    migrate.upgrade(create_engine(f"sqlite:///{path}", poolclass=NullPool))
    return path


def test_r26_writers_of_sqlite_wait_in_line(lab: Laboratory, migrated_file: Path, tmp_path: Path) -> None:
    shutil.copy(migrated_file, tmp_path / "hub.db")
    lab.config.update(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/hub.db",
        MUSEHUB_STORAGE=(tmp_path / "objects").as_uri(),
        MUSEHUB_REDIS_URL="",
        LAB_OWN_DATABASE=True,
    )
    webs = [lab.web(), lab.web()]

    def push_five(number: int) -> list[int]:
        muse = webs[number % 2].muse
        history = History()
        head = None
        statuses = []
        for version in range(5):
            head = history.commit({"a.txt": f"{number} {version}".encode()}, [head] if head else [])
            statuses.append(muse.push(f"alice/songs-{number}", history.pack(), head).status)
        muse.assert_fetchable(f"alice/songs-{number}", history, {"main": head or ""})
        return statuses

    for number in range(8):
        lab.create_repo(f"alice/songs-{number}")
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(push_five, range(8))) == [[200] * 5] * 8
    assert "locked" not in lab.logs()


@pytest.mark.parametrize("hours", [1, -1])
def test_r28_clocks_that_are_wrong_by_an_hour_change_no_lease(lab: Laboratory, hours: int) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    web.muse.upload(REPO, history.pack())
    elsewhere = lab.web(LAB_CLOCK_AHEAD=hours * 3600)
    assert elsewhere.muse.unpack(REPO, history.pack(), head).status == 200
    assert lab.sql("SELECT abs(extract(epoch FROM not_before - now())) < 60 FROM musehub_job")[0][0]
    rule = lab.control.at("index.claimed", "hold", role="worker")
    worker = lab.worker(burst=True, MUSEHUB_JOB_LEASE=600, LAB_CLOCK_AHEAD=hours * 3600)
    rule.wait()
    # Nobody else takes what is being worked on, however late it seems to be.
    assert lab.sweep() == 0
    assert web.muse.lab(f"index/{ids.blob_id(history.pack())}").body == {"blobs": 0}
    assert elsewhere.muse.lab("sweep").body == {"due": 0}
    rule.release()
    worker.join()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r28_a_push_is_due_at_once_whatever_the_web_host_s_clock_says(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = one_blob("songs")
    web = lab.web()
    web.muse.upload(REPO, history.pack())
    lab.control.at("unpack.committed", "kill")
    assert lab.web(LAB_CLOCK_AHEAD=3600).muse.unpack(REPO, history.pack(), head).status == 0
    assert lab.sweep() == 1


def database_findings(lab: Laboratory, config: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what `flask musehub doctor` says of the database: verdicts and sentences."""
    app = create_app({**lab.config, **config})
    try:
        with app.app_context():
            return [(found.verdict, found.says) for found in examine(hub_of(app)) if found.what == "database"]
    finally:
        close_app(app)


def test_r14_doctor_warns_of_a_pool_that_hands_out_dead_connections(lab: Laboratory) -> None:
    findings = database_findings(lab, {})
    assert [verdict for verdict, _ in findings] == ["ok", "warning"]
    assert "pool_pre_ping" in findings[1][1]
    options = {"SQLALCHEMY_ENGINE_OPTIONS": {"pool_pre_ping": True}}
    assert [verdict for verdict, _ in database_findings(lab, options)] == ["ok"]


def test_r14_doctor_says_that_a_database_only_reads(lab: Laboratory) -> None:
    options = {"pool_pre_ping": True, "connect_args": {"options": "-c default_transaction_read_only=on"}}
    findings = database_findings(lab, {"SQLALCHEMY_ENGINE_OPTIONS": options})
    assert [verdict for verdict, _ in findings] == ["ok", "wrong"]
    assert findings[1][1].startswith("only reads")


def test_doctor_says_that_an_engine_is_in_autocommit(lab: Laboratory) -> None:
    options = {"pool_pre_ping": True, "isolation_level": "AUTOCOMMIT"}
    findings = database_findings(lab, {"SQLALCHEMY_ENGINE_OPTIONS": options})
    assert [verdict for verdict, _ in findings] == ["ok", "wrong"]
    assert "autocommit" in findings[1][1]


def test_r26_doctor_warns_of_a_sqlite_whose_readers_wait(lab: Laboratory, migrated_file: Path, tmp_path: Path) -> None:
    shutil.copy(migrated_file, tmp_path / "hub.db")
    config = {"SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/hub.db"}
    assert [verdict for verdict, _ in database_findings(lab, config)] == ["ok", "warning"]
    # The plugin's own takes care of itself.
    assert [verdict for verdict, _ in database_findings(lab, {**config, "LAB_OWN_DATABASE": True})] == ["ok"]
