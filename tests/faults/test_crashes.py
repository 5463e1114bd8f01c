"""Processes are killed at every step that has a name; whatever was acknowledged before is there afterwards."""

from __future__ import annotations

import pytest

from tests.faults.histories import several_blobs, steps
from tests.faults.laboratory import Laboratory

pytestmark = pytest.mark.faults

REPO = "alice/songs"


def test_r01_a_web_process_killed_at_any_step_of_an_unpacking_leaves_all_of_it_or_nothing(lab: Laboratory) -> None:
    for name in steps("unpack"):
        repo = f"alice/{name.replace('.', '-')}"
        lab.create_repo(repo)
        history, head = several_blobs(name)
        rule = lab.control.at(name, "kill")
        web = lab.web()
        assert web.muse.push(repo, history.pack(), head).status == 0, name
        web.wait_for_death()
        assert rule.has_fired
        survivor = lab.web().muse
        committed = name == "unpack.committed"
        assert survivor.refs(repo) == ({"main": head} if committed else {}), name
        # The client's second try, whatever became of the first.
        again = survivor.push(repo, history.pack(), head)
        assert again.status == 200, (name, again)
        assert again.body["blob_count"] == 6
        # Where the first try was committed, nobody put its job on the queue.
        lab.worker(burst=True).join()
        survivor.assert_fetchable(repo, history, {"main": head})
    assert lab.verify().problems == []


@pytest.mark.parametrize("action", ["kill", "kill-with-parent"])
def test_r05_a_worker_killed_at_any_step_of_indexing_leaves_an_index_that_gets_complete(
    lab: Laboratory, action: str
) -> None:
    web = lab.web()
    pushed = []
    rules = []
    for name in steps("index"):
        repo = f"alice/{name.replace('.', '-')}"
        lab.create_repo(repo)
        history, head = several_blobs(name)
        assert web.muse.push(repo, history.pack(), head).status == 200
        rules.append(lab.control.at(name, action, role="worker"))
        pushed.append((repo, history, head))
    worker = lab.worker()

    def is_done() -> bool:
        # What a supervisor does.
        nonlocal worker
        if not worker.is_alive():
            worker = lab.worker()
        return set(lab.job_states()) == {"done"}

    lab.wait(is_done, "the index of all pushes")
    assert all(rule.has_fired for rule in rules)
    for repo, history, head in pushed:
        web.muse.assert_fetchable(repo, history, {"main": head})
    assert lab.verify().problems == []


def test_r23_r24_a_web_process_killed_at_any_step_of_a_fetch_hinders_no_other_fetch_and_leaves_no_orphan(
    lab: Laboratory,
) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    bystander = lab.web()
    pack = history.pack()
    assert bystander.muse.push(REPO, pack, head).status == 200
    lab.index()
    for name in steps("fetch"):
        rule = lab.control.at(name, "kill")
        web = lab.web()
        assert web.muse.fetch(REPO, [head]).status == 0
        web.wait_for_death()
        assert rule.has_fired
        answer = bystander.muse.fetch(REPO, [head])
        bystander.muse.assert_complete(answer, history, [head])
        lab.forget_answers()
    orphan = history.commits[head]["parent_ids"][0]
    lab.control.at("fetch.stored", "kill")
    web = lab.web()
    assert web.muse.fetch(REPO, [orphan]).status == 0
    web.wait_for_death()
    lab.sql("UPDATE musehub_fetch_pack SET used_at = used_at - interval '2 days'")
    assert lab.collect().fetch_packs == 2
    assert len([key for key in lab.stored_keys() if key.startswith("mpacks/")]) == 1
    bystander.muse.assert_complete(bystander.muse.fetch(REPO, [orphan]), history, [orphan])
