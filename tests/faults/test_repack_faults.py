"""Repacks that are held and killed at every step, and builds whose makers die."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from musehub_plugin.testing import History
from tests.faults.histories import several_blobs, steps
from tests.faults.laboratory import Laboratory
from tests.faults.muse import Muse

pytestmark = pytest.mark.faults

REPO = "alice/songs"
# Every push is worth a repack.
REPACKING: dict[str, Any] = {"MUSEHUB_REPACK_PACKS": 1}


def child_of(history: History, head: str, name: str) -> tuple[str, bytes]:
    """Add a commit to a history; return its id and a pack of it alone."""
    made = history.commit({f"{name}.txt": name.encode()}, [head])
    return made, history.pack(want=[made], have=[head])


def test_pushes_and_fetches_go_on_while_a_repack_is_held_at_any_step(lab: Laboratory) -> None:
    web = lab.web(**REPACKING)
    lab.worker(**REPACKING)
    for name in steps("repack"):
        repo = f"alice/{name.replace('.', '-')}"
        lab.create_repo(repo)
        history, head = several_blobs(name)
        rule = lab.control.at(name, "hold", role="worker")
        assert web.muse.push(repo, history.pack(), head).status == 200
        rule.wait()
        web.muse.assert_complete(web.muse.fetch(repo, [head]), history, [head])
        further, pack = child_of(history, head, "further")
        assert web.muse.push(repo, pack, further).status == 200
        assert web.muse.refs(repo) == {"main": further}
        rule.release()
        web.muse.assert_fetchable(repo, history, {"main": further})
        # So that the next rule is not for what is still to be done here.
        lab.wait_for_jobs()
    assert lab.verify().problems == []


@pytest.mark.parametrize("action", ["kill", "kill-with-parent"])
def test_a_repack_killed_at_any_step_is_done_by_the_next_worker(lab: Laboratory, action: str) -> None:
    web = lab.web(**REPACKING)
    pushed = []
    rules = []
    for name in steps("repack"):
        repo = f"alice/{name.replace('.', '-')}"
        repo_id = lab.create_repo(repo)
        history, head = several_blobs(name)
        assert web.muse.push(repo, history.pack(), head).status == 200
        rules.append(lab.control.at(name, action, role="worker"))
        pushed.append((repo, repo_id, history, head))
    worker = lab.worker(**REPACKING)

    def is_done() -> bool:
        # What a supervisor does.
        nonlocal worker
        if not worker.is_alive():
            worker = lab.worker(**REPACKING)
        # Where the killed one had nothing left to do but to say so, nobody repacks again.
        return all(rule.has_fired for rule in rules) and set(lab.job_states()) == {"done"}

    lab.wait(is_done, "the repacks of all pushes")
    for repo, repo_id, history, head in pushed:
        chain = lab.sql(
            "SELECT commit_count, blob_count FROM musehub_clone_pack WHERE repo_id = :repo_id", repo_id=repo_id
        )
        assert [tuple(row) for row in chain] == [(2, 6)]
        web.muse.assert_fetchable(repo, history, {"main": head})
    assert lab.verify().problems == []


def test_what_repacks_replaced_or_left_half_done_is_collected_after_the_grace_period(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    web = lab.web(**REPACKING)
    history, head = several_blobs("songs")
    assert web.muse.push(REPO, history.pack(), head).status == 200
    rule = lab.control.at("repack.stored", "kill", role="worker")
    lab.worker(**REPACKING)
    lab.wait(lambda: rule.has_fired and set(lab.job_states()) == {"done"}, "the repack")
    further, pack = child_of(history, head, "further")
    assert web.muse.push(REPO, pack, further).status == 200
    lab.wait_for_jobs()
    kept = lab.collect()
    assert (kept.mpacks, kept.fetch_packs) == (0, 0)
    for table, column in (("fetch_pack", "used_at"), ("mpack", "created_at"), ("fetch_plan", "used_at")):
        lab.age(f"musehub_{table}", column)
    lab.collect()
    chain = lab.sql("SELECT mpack_id FROM musehub_clone_pack")
    assert len([key for key in lab.stored_keys() if key.startswith("mpacks/")]) == len(chain)
    web.muse.assert_fetchable(REPO, history, {"main": further})
    assert lab.verify().problems == []


def test_after_a_push_those_who_follow_are_answered_without_building(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    web = lab.web(**REPACKING)
    history, head = several_blobs("songs")
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.worker(**REPACKING)
    lab.wait_for_jobs()
    further, pack = child_of(history, head, "further")
    assert web.muse.push(REPO, pack, further).status == 200
    lab.wait_for_jobs()
    # Whoever would plan or build dies of it.
    rules = [lab.control.at(name, "kill") for name in ("fetch.planned", "fetch.packed")]
    answer = web.muse.fetch(REPO, [further], [head])
    assert answer.status == 200
    assert answer.body["commit_count"] == 1
    inline = web.muse.request(
        "POST",
        f"/{REPO}/fetch",
        {"want": [further], "have": [head], "capabilities": ["inline", "mpacks", "thin"]},
    )
    assert inline.status == 200
    assert not any(rule.has_fired for rule in rules)


def test_r24_who_waits_takes_over_when_the_maker_of_an_mpack_is_killed(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    first, second = lab.web(), lab.web()
    history, head = several_blobs("songs")
    assert second.muse.push(REPO, history.pack(), head).status == 200
    lab.index()
    rule = lab.control.at("fetch.packed", "hold")
    with ThreadPoolExecutor(2) as threads:
        maker = threads.submit(first.muse.fetch, REPO, [head])
        rule.wait()
        assert lab.count("musehub_build") == 1
        waits = lab.control.at("waiting.looked", "hold")
        waiting = threads.submit(Muse(second.origin).fetch, REPO, [head])
        # Its own rule holds the maker still, so that whoever waits for it does so before it dies.
        waits.wait()
        waits.release()
        assert first.process.pid is not None
        os.kill(first.process.pid, signal.SIGKILL)
        assert maker.result().status == 0
        answer = waiting.result()
    second.muse.assert_complete(answer, history, [head])
    assert lab.count("musehub_build") == 0
