"""Garbage is collected beside pushes and fetches, is killed in the middle, and finds what a backup has lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from musehub_plugin import ids
from musehub_plugin.config import make_settings
from musehub_plugin.errors import ConfigError
from musehub_plugin.gc import Collected
from musehub_plugin.testing import History
from tests.faults.histories import several_blobs, steps
from tests.faults.laboratory import Laboratory
from tests.faults.muse import Answer, Muse

pytestmark = pytest.mark.faults

REPO = "alice/songs"


class Dropped:
    """A repo from whose branch a commit was dropped two days ago, so that it is garbage now.

    Args:
        lab: the laboratory.
        repo: the repo's name.

    Attributes:
        history: all that was ever pushed.
        kept: the branch's head.
        dropped: the commit that no branch reaches.
        pack: the mpack that brought it.
    """

    def __init__(self, lab: Laboratory, muse: Muse, repo: str = REPO) -> None:
        self.lab = lab
        self.repo = repo
        lab.create_repo(repo)
        self.history = History()
        self.kept = self.history.commit({"a.txt": repo.encode()})
        assert muse.push(repo, self.history.pack(), self.kept).status == 200
        self.dropped = self.history.commit({"b.txt": f"dropped from {repo}".encode()}, [self.kept])
        self.pack = self.history.pack(have=[self.kept])
        assert muse.push(repo, self.pack, self.dropped).status == 200
        lab.index()
        kept_pack = self.history.pack(want=[self.kept])
        assert muse.push(repo, kept_pack, self.kept, force=True).status == 200
        lab.collect()
        lab.age("musehub_commit_ref", "unreachable_since")

    def is_there(self) -> bool:
        """Whether the repo still holds the commit."""
        return self.lab.count("musehub_commit_ref") == 2


def push_until_settled(muse: Muse, repo: str, pack: bytes, head: str) -> Answer:
    """Push as a client does, which begins anew where the hub no longer holds what it said it held."""
    answer = muse.push(repo, pack, head, force=True)
    return muse.push(repo, pack, head, force=True) if answer.code == "upload-not-found" else answer


@pytest.mark.parametrize("step", ["gc.planned", "gc.locked", "gc.removed", "gc.committed"])
@pytest.mark.parametrize("brings", ["the same mpack", "a commit on it", "its blob alone"])
def test_r30_what_is_pushed_again_while_it_is_collected_stays(lab: Laboratory, step: str, brings: str) -> None:
    web = lab.web()
    garbage = Dropped(lab, web.muse)
    history, head, pack = garbage.history, garbage.dropped, garbage.pack
    if brings == "a commit on it":
        head = history.commit({"c.txt": b"on it"}, [garbage.dropped])
        pack = history.pack(have=[garbage.dropped])
    elif brings == "its blob alone":
        # Without its bytes: the repo holds them until a moment from now.
        head = history.commit({"again.txt": f"dropped from {REPO}".encode()}, [garbage.kept])
        pack = history.pack(want=[head], have=[garbage.dropped])
    rule = lab.control.at(step, "hold")
    with ThreadPoolExecutor(2) as threads:
        collection = threads.submit(web.muse.lab, "gc")
        rule.wait()
        push = threads.submit(push_until_settled, web.muse, REPO, pack, head)
        lab.wait(lambda: push.done() or lab.is_somebody_waiting(), "the push")
        rule.release()
        assert collection.result().status == 200
        answer = push.result()
    if answer.status == 422:
        # It came too late to rely on what was collected, and is told what to send.
        assert brings != "the same mpack"
        assert answer.code in {"missing-commit", "missing-blob"}
        assert web.muse.push(REPO, history.pack(want=[head]), head, force=True).status == 200
    else:
        assert answer.status == 200
    lab.index()
    web.muse.assert_fetchable(REPO, history, {"main": head})
    assert lab.verify().problems == []


def test_r31_a_url_that_was_handed_out_outlives_collections(lab: Laboratory) -> None:
    web = lab.web()
    garbage = Dropped(lab, web.muse)
    # Of a commit that is garbage itself.
    answer = web.muse.fetch(REPO, [garbage.dropped])
    assert lab.collect().commits == 1
    web.muse.assert_complete(answer, garbage.history, [garbage.dropped])
    gone = web.muse.fetch(REPO, [garbage.dropped])
    assert (gone.status, gone.code) == (404, "want-not-found")


def test_r31_a_pushed_mpack_that_is_also_a_fetch_s_answer_stays_while_its_url_holds(lab: Laboratory) -> None:
    web = lab.web()
    repo_id = lab.create_repo(REPO)
    history, head = several_blobs("songs")
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.index()
    made = web.muse.fetch(REPO, [head])
    # The pushed one has another order of bytes or the same; it is pushed where it is the same.
    pack = lab.stored_mpack(made.body["mpack_id"])
    lab.create_repo("alice/other")
    assert web.muse.push("alice/other", pack, head).status == 200
    lab.index()
    assert web.muse.lab(f"delete/{repo_id}").status == 200
    lab.sql("UPDATE musehub_repo SET deleted_at = now() WHERE slug = 'other'")
    lab.age("musehub_repo", "deleted_at")
    lab.age("musehub_mpack", "created_at")
    assert lab.collect().repos == 2
    web.muse.assert_complete(made, history, [head])
    lab.age("musehub_fetch_pack", "used_at")
    lab.collect()
    assert lab.stored_keys() == set()


def test_r31_a_fetch_that_meets_the_collection_of_its_very_file_hands_out_a_url_that_holds(lab: Laboratory) -> None:
    web = lab.web()
    garbage = Dropped(lab, web.muse)
    made = web.muse.fetch(REPO, [garbage.kept])
    lab.age("musehub_fetch_pack", "used_at")
    rule = lab.control.at("gc.removed", "hold")
    with ThreadPoolExecutor(2) as threads:
        collection = threads.submit(web.muse.lab, "gc")
        rule.wait()
        fetch = threads.submit(web.muse.fetch, REPO, [garbage.kept])
        lab.wait(lambda: fetch.done() or lab.is_somebody_waiting(), "the fetch")
        rule.release()
        assert collection.result().body["fetch_packs"] == 1
        answer = fetch.result()
    assert answer.body["mpack_id"] == made.body["mpack_id"]
    web.muse.assert_complete(answer, garbage.history, [garbage.kept])


def test_r31_a_pack_that_is_used_again_after_a_collection_has_found_it_stale_stays(lab: Laboratory) -> None:
    web = lab.web()
    garbage = Dropped(lab, web.muse)
    for head in (garbage.kept, garbage.dropped):
        web.muse.fetch(REPO, [head])
    lab.age("musehub_fetch_pack", "used_at")
    rule = lab.control.at("gc.committed", "hold")
    with ThreadPoolExecutor(1) as threads:
        collection = threads.submit(web.muse.lab, "gc")
        # The stalest is gone; the other one is on the same list.
        rule.wait()
        answer = web.muse.fetch(REPO, [garbage.dropped])
        rule.release()
        assert collection.result().body["fetch_packs"] == 1
    web.muse.assert_complete(answer, garbage.history, [garbage.dropped])


def test_r32_a_pack_that_is_used_again_stays_as_long_again(lab: Laboratory) -> None:
    web = lab.web()
    garbage = Dropped(lab, web.muse)
    web.muse.fetch(REPO, [garbage.kept])
    lab.age("musehub_fetch_pack", "used_at")
    again = web.muse.fetch(REPO, [garbage.kept])
    assert lab.collect().fetch_packs == 0
    web.muse.assert_complete(again, garbage.history, [garbage.kept])


@pytest.mark.parametrize("longest", ["PRESIGN_TTL", "UPLOAD_TTL", "JOB_LEASE"])
def test_r32_a_grace_period_that_something_outlives_is_refused(longest: str) -> None:
    lives = {"MUSEHUB_PRESIGN_TTL": 1, "MUSEHUB_UPLOAD_TTL": 1, "MUSEHUB_JOB_LEASE": 1, f"MUSEHUB_{longest}": 500}
    make_settings({**lives, "MUSEHUB_GC_GRACE": 501}, default_storage="memory://")
    with pytest.raises(ConfigError, match="MUSEHUB_GC_GRACE"):
        make_settings({**lives, "MUSEHUB_GC_GRACE": 500}, default_storage="memory://")


def make_all_kinds_of_garbage(lab: Laboratory, muse: Muse) -> Dropped:
    """Leave a dropped commit, an unused upload, a stale fetch pack and a deleted repo behind."""
    garbage = Dropped(lab, muse)
    muse.upload(REPO, several_blobs("never unpacked")[0].pack())
    muse.fetch(REPO, [garbage.kept])
    repo_id = lab.create_repo("alice/gone")
    history, head = several_blobs("gone")
    assert muse.push("alice/gone", history.pack(), head).status == 200
    lab.index()
    assert muse.lab(f"delete/{repo_id}").status == 200
    for table, column in (
        ("musehub_fetch_pack", "used_at"),
        ("musehub_upload", "expires_at"),
        ("musehub_repo", "deleted_at"),
        ("musehub_mpack", "created_at"),
    ):
        lab.age(table, column)
    return garbage


NOTHING = Collected()


def test_r33_a_dry_run_says_what_a_collection_does_and_a_second_one_finds_nothing(lab: Laboratory) -> None:
    web = lab.web()
    make_all_kinds_of_garbage(lab, web.muse)
    before = lab.stored_keys()
    said = lab.collect(dry_run=True)
    assert lab.stored_keys() == before
    done = lab.collect()
    # Which pushed mpacks nobody needs is known once the repos have let go of them.
    assert replace(said, dry_run=False, mpacks=done.mpacks) == done
    assert (done.commits, done.repos, done.uploads, done.fetch_packs, done.mpacks) == (3, 1, 1, 1, 2)
    assert lab.collect() == NOTHING
    assert lab.verify().problems == []


@pytest.mark.parametrize("step", steps("gc"))
def test_r33_a_collection_that_is_killed_is_finished_by_the_next(lab: Laboratory, step: str) -> None:
    web = lab.web()
    garbage = make_all_kinds_of_garbage(lab, web.muse)
    killed = 0
    while True:
        victim = lab.web()
        # Each time at its first such step, so that each collection gets a little further.
        rule = lab.control.at(step, "kill")
        if victim.muse.lab("gc").status == 200:
            break
        victim.wait_for_death()
        assert rule.has_fired
        killed += 1
        if step != "gc.committed":
            # Nothing was committed: it would be killed there for ever.
            break
    assert killed >= 1
    lab.control.forget()
    # Collections pass by what pushes hold, and PostgreSQL notices a death a moment later.
    lab.wait(lambda: not lab.is_history_held(), "the locks of who was killed to go")
    lab.collect()
    assert lab.collect() == NOTHING
    assert lab.count("musehub_commit_ref") == 1
    assert len(lab.stored_keys()) == 1
    assert lab.verify().problems == []
    web.muse.assert_complete(web.muse.fetch(REPO, [garbage.kept]), garbage.history, [garbage.kept])


def test_r33_no_answer_names_a_file_that_a_killed_collection_has_removed(lab: Laboratory) -> None:
    web = lab.web()
    garbage = Dropped(lab, web.muse)
    made = web.muse.fetch(REPO, [garbage.dropped])
    lab.age("musehub_fetch_pack", "used_at")
    victim = lab.web()
    lab.control.at("gc.removed", "kill")
    victim.muse.lab("gc")
    victim.wait_for_death()
    assert f"mpacks/{made.body['mpack_id'][7:9]}/{made.body['mpack_id'][9:]}" not in lab.stored_keys()
    lab.control.forget()
    lab.wait(lambda: not lab.is_history_held(), "the locks of who was killed to go")
    web.muse.assert_complete(web.muse.fetch(REPO, [garbage.dropped]), garbage.history, [garbage.dropped])


def test_r34_a_bucket_older_than_the_database_is_reported_and_heals_with_the_bytes(lab: Laboratory) -> None:
    web = lab.web()
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    pack = history.pack()
    assert web.muse.push(REPO, pack, head).status == 200
    lab.index()
    lab.replace_mpack(ids.blob_id(pack), None)
    found = lab.verify()
    assert [(problem.kind, problem.subject) for problem in found.problems] == [("mpack-missing", ids.blob_id(pack))]
    assert found.unrepaired == 1
    answer = web.muse.fetch(REPO, [head])
    answer.assert_try_again("blob-damaged")
    assert int(answer.headers["Retry-After"]) >= 30
    assert "integrity: mpack-missing" in lab.logs()
    lab.replace_mpack(ids.blob_id(pack), pack)
    web.muse.assert_complete(web.muse.fetch(REPO, [head]), history, [head])
    assert lab.verify().problems == []


def test_r34_bytes_that_a_repair_cannot_find_are_asked_for_when_they_are_pushed_again(lab: Laboratory) -> None:
    web = lab.web()
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    pack = history.pack()
    assert web.muse.push(REPO, pack, head).status == 200
    lab.index()
    assert web.muse.presign(REPO, pack).body["uploaded"]
    lab.replace_mpack(ids.blob_id(pack), b"rubbish")
    assert lab.verify(repair=True).unrepaired == 1
    assert not web.muse.presign(REPO, pack).body["uploaded"]
    assert web.muse.push(REPO, pack, head).status == 200
    lab.index()
    web.muse.assert_complete(web.muse.fetch(REPO, [head]), history, [head])
    assert lab.verify().problems == []


def test_r34_a_database_older_than_the_bucket_gets_its_index_back(lab: Laboratory) -> None:
    web = lab.web()
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.index()
    lab.sql("DELETE FROM musehub_mpack_index")
    web.muse.fetch(REPO, [head]).assert_try_again("not-indexed")
    found = lab.verify(repair=True)
    assert [problem.kind for problem in found.problems] == ["index-wrong"]
    assert found.unrepaired == 0
    web.muse.assert_complete(web.muse.fetch(REPO, [head]), history, [head])
    assert lab.verify().problems == []


def test_r34_a_push_that_a_restored_database_has_forgotten_can_be_pushed_again(lab: Laboratory) -> None:
    web = lab.web()
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    assert web.muse.push(REPO, history.pack(), head).status == 200
    for table in ("commit", "commit_ref", "snapshot", "snapshot_ref", "object", "object_ref", "mpack", "mpack_ref"):
        lab.empty(f"musehub_{table}")
    for table in ("branch", "job", "commit_graph"):
        lab.empty(f"musehub_{table}")
    assert lab.verify().problems == []
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.index()
    web.muse.assert_fetchable(REPO, history, {"main": head})
