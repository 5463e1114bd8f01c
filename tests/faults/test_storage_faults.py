"""Object storage is down, slow, full or lies: nothing is claimed that is not so, and nothing false is handed out."""

from __future__ import annotations

import io
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from musehub_plugin import ids
from musehub_plugin.mpack import MPackError, MPackReader
from musehub_plugin.storage import s3
from musehub_plugin.testing import History
from tests.faults.histories import one_blob, several_blobs, steps
from tests.faults.laboratory import Laboratory
from tests.faults.proxy import Mode

pytestmark = pytest.mark.faults

REPO = "alice/songs"
TABLES = (
    "musehub_commit",
    "musehub_commit_ref",
    "musehub_snapshot",
    "musehub_object",
    "musehub_object_ref",
    "musehub_mpack",
    "musehub_mpack_ref",
    "musehub_mpack_index",
    "musehub_job",
    "musehub_branch",
)


def row_counts(lab: Laboratory) -> list[int]:
    """Return how many rows the tables have that a push writes."""
    return [lab.count(table) for table in TABLES]


def test_r15_while_storage_is_down_tickets_are_given_and_all_else_is_503(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    base, base_head = one_blob("base")
    web = lab.web()
    assert web.muse.push(REPO, base.pack(), base_head).status == 200
    lab.index()
    history = History()
    head = history.commit({"b.txt": b"more"}, [base_head])
    web.muse.upload(REPO, history.pack())
    before = row_counts(lab), lab.stored_keys()
    lab.proxy.mode = "down"
    # Signing needs no network.
    assert web.muse.presign(REPO, several_blobs("other")[0].pack()).status == 200
    web.muse.unpack(REPO, history.pack(), head).assert_try_again("storage-unavailable")
    web.muse.fetch(REPO, [base_head]).assert_try_again("storage-unavailable")
    assert (row_counts(lab), lab.stored_keys()) == before
    lab.proxy.mode = "pass"
    assert web.muse.unpack(REPO, history.pack(), head).status == 200
    lab.index()
    web.muse.assert_complete(web.muse.fetch(REPO, [base_head]), base, [base_head])
    assert len(web.muse.download(web.muse.fetch(REPO, [head]))["commits"]) == 2


def test_r15_storage_that_goes_down_before_the_pack_is_stored_leaves_no_rows(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    web.muse.upload(REPO, history.pack())
    before = row_counts(lab), lab.stored_keys()
    rule = lab.control.at("unpack.branch-moved", "hold")
    with ThreadPoolExecutor(1) as threads:
        push = threads.submit(web.muse.unpack, REPO, history.pack(), head)
        rule.wait()
        lab.proxy.mode = "down"
        rule.release()
        push.result().assert_try_again("storage-unavailable")
    assert (row_counts(lab), lab.stored_keys()) == before
    lab.proxy.mode = "pass"
    assert web.muse.unpack(REPO, history.pack(), head).status == 200


def test_r15_index_jobs_outlast_any_number_of_outages(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.proxy.mode = "down"
    for _ in range(4):
        lab.sql("UPDATE musehub_job SET not_before = now()")
        lab.worker(burst=True, MUSEHUB_JOB_ATTEMPTS=2).join()
    row = lab.sql("SELECT state, attempts, error FROM musehub_job")[0]
    assert (row.state, row.attempts) == ("pending", 0)
    assert "storage is away" in row.error
    web.muse.fetch(REPO, [head]).assert_try_again()
    lab.proxy.mode = "pass"
    lab.sql("UPDATE musehub_job SET not_before = now()")
    lab.worker(burst=True).join()
    web.muse.assert_fetchable(REPO, history, {"main": head})


def test_r16_storage_that_hangs_is_given_up_soon(lab: Laboratory) -> None:
    assert s3.CONNECT_SECONDS <= 2
    assert s3.READ_SECONDS <= 10
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web(LAB_READ_SECONDS=1)
    web.muse.upload(REPO, history.pack())
    lab.proxy.mode = "hang"
    answer = web.muse.unpack(REPO, history.pack(), head)
    answer.assert_try_again("storage-unavailable")
    # Two tries, what lies between them, and a machine with other things to do.
    assert answer.seconds < 10
    lab.proxy.mode = "pass"
    # A second may be too short for a busy store.
    lab.wait(lambda: web.muse.unpack(REPO, history.pack(), head).status == 200, "the push")


@pytest.mark.parametrize("mode", ["truncate", "flip"])
def test_r17_bytes_that_arrive_wrong_are_never_handed_on(lab: Laboratory, mode: Mode) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.proxy.mode = mode
    lab.worker(burst=True).join()
    web.muse.fetch(REPO, [head]).assert_try_again()
    lab.proxy.mode = "pass"
    lab.sql("UPDATE musehub_job SET not_before = now() WHERE state = 'pending'")
    lab.worker(burst=True).join()
    web.muse.assert_complete(web.muse.fetch(REPO, [head]), history, [head])
    lab.forget_answers()
    lab.proxy.mode = mode
    web.muse.fetch(REPO, [head]).assert_try_again()
    lab.proxy.mode = "pass"
    web.muse.assert_complete(web.muse.fetch(REPO, [head]), history, [head])


def test_r17_a_push_whose_upload_arrives_wrong_is_refused_whole(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    before = row_counts(lab)
    lab.proxy.mode = "flip"
    assert web.muse.push(REPO, history.pack(), head).status in {422, 503}
    assert row_counts(lab) == before
    lab.proxy.mode = "pass"
    assert web.muse.push(REPO, history.pack(), head).status == 200


def places_of_damage(pack: bytes) -> dict[str, int]:
    """Return for each way in which one wrong bit shows, the first byte where it does: opening, reading, in a blob."""
    good = MPackReader(io.BytesIO(pack))
    found: dict[str, int] = {}
    for position in range(len(pack)):
        damaged = bytearray(pack)
        damaged[position] ^= 1
        shows = set()
        try:
            reader = MPackReader(io.BytesIO(bytes(damaged)))
            for entry in good.directory():
                try:
                    if ids.blob_id(reader.read_blob(entry.frame, entry.offset, entry.size)) != entry.object_id:
                        shows.add("content")
                except MPackError:
                    shows.add("reading")
        except MPackError:
            shows.add("opening")
        for each in shows or {"nowhere"}:
            found.setdefault(each, position)
    return found


def test_r17_an_mpack_with_one_wrong_bit_is_served_right_or_not_at_all(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history = History()
    # Damage of bytes that do not compress is seen by nothing but their hash; that of others by the decompressor.
    head = history.commit({"a.bin": random.Random(1).randbytes(100), "b.txt": b"again " * 100, "c.txt": b"c" * 400})
    web = lab.web()
    pack = history.pack()
    assert web.muse.push(REPO, pack, head).status == 200
    lab.index()
    places = places_of_damage(pack)
    assert places.keys() >= {"opening", "reading", "content"}
    for shows, position in places.items():
        damaged = bytearray(pack)
        damaged[position] ^= 1
        lab.replace_mpack(ids.blob_id(pack), bytes(damaged))
        answer = web.muse.fetch(REPO, [head])
        if shows == "nowhere":
            # The byte is of a part that the rows make needless.
            web.muse.assert_complete(answer, history, [head])
        else:
            answer.assert_try_again("blob-damaged")


def test_r17_an_index_that_names_another_blob_s_place_is_not_believed(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.index()
    # Two blobs of the same size, so that all that can be seen to be wrong is the hash.
    lab.sql(
        "UPDATE musehub_mpack_index SET frame_offset = (SELECT max(frame_offset) FROM musehub_mpack_index"
        " WHERE size_bytes = 7) WHERE frame_offset = (SELECT min(frame_offset) FROM musehub_mpack_index"
        " WHERE size_bytes = 7)"
    )
    web.muse.fetch(REPO, [head]).assert_try_again("blob-damaged")
    assert lab.verify(repair=True).unrepaired == 0
    web.muse.assert_complete(web.muse.fetch(REPO, [head]), history, [head])


def test_r18_an_mpack_that_one_upload_cannot_carry_is_413_before_it_is_sent(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    body = {"mpack_id": ids.fake_id("huge"), "size_bytes": 5 * 1024**3 + 1}
    answer = lab.web().muse.request("POST", f"/{REPO}/push/presign", body)
    assert (answer.status, answer.body["limit"]) == (413, 5 * 1024**3)


def test_r19_an_unpacking_before_the_upload_is_404_and_works_after_it(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    assert web.muse.presign(REPO, history.pack()).status == 200
    early = web.muse.unpack(REPO, history.pack(), head)
    assert (early.status, early.code) == (404, "upload-not-found")
    web.muse.upload(REPO, history.pack())
    assert web.muse.unpack(REPO, history.pack(), head).status == 200


def test_r19_an_upload_that_is_never_unpacked_goes_away(lab: Laboratory) -> None:
    lab.create_repo(REPO)
    web = lab.web()
    web.muse.upload(REPO, several_blobs("songs")[0].pack())
    assert len(lab.stored_keys()) == 1
    assert lab.collect().uploads == 0
    lab.sql("UPDATE musehub_upload SET expires_at = expires_at - interval '2 days'")
    assert lab.collect().uploads == 1
    assert lab.stored_keys() == set()


@pytest.mark.parametrize("step", [name for name in steps("unpack") if name != "unpack.committed"])
def test_r20_a_second_try_beside_the_first_is_answered_the_same(lab: Laboratory, step: str) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    web.muse.upload(REPO, history.pack())
    with ThreadPoolExecutor(2) as threads:
        rule = lab.control.at(step, "hold")
        first = threads.submit(web.muse.unpack, REPO, history.pack(), head)
        rule.wait()
        second = threads.submit(web.muse.unpack, REPO, history.pack(), head)
        lab.wait(lambda: second.done() or lab.is_somebody_waiting(), "the second try")
        rule.release()
        answers = [first.result(), second.result()]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body == answers[1].body
    assert lab.job_states() == ["pending"]
    lab.index()
    web.muse.assert_fetchable(REPO, history, {"main": head})


@pytest.mark.parametrize("lost", [0, 1])
def test_r21_of_two_mpacks_with_the_same_history_either_may_be_lost(lab: Laboratory, lost: int) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    packs = [history.pack()]
    first = history.commits[head]["parent_ids"][0]
    assert web.muse.push(REPO, packs[0], head).status == 200
    more = history.commit({"more.txt": b"more"}, [first])
    packs.append(history.pack())
    assert web.muse.push(REPO, packs[1], more, branch="more").status == 200
    lab.index()
    lab.replace_mpack(ids.blob_id(packs[lost]), b"rubbish")
    assert [problem.kind for problem in lab.verify().problems] == ["mpack-damaged"]
    web.muse.assert_complete(web.muse.fetch(REPO, [head]), history, [head])


@pytest.fixture
def files(lab: Laboratory, tmp_path: Path) -> Path:
    """The folder of objects of a hub that keeps them in files."""
    lab.config["MUSEHUB_STORAGE"] = (tmp_path / "objects").as_uri()
    return tmp_path / "objects"


def stored(folder: Path) -> set[str]:
    """Return the names of all files below a folder of objects, but of uploads."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(("uploads/", "."))}


@pytest.mark.parametrize("step", ["unpack.begun", "unpack.branch-moved"])
def test_r25_a_full_disk_leaves_no_part_of_a_push(lab: Laboratory, files: Path, step: str) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    web.muse.upload(REPO, history.pack())
    before = row_counts(lab)
    lab.control.at(step, "file-limit", value=100)
    web.muse.unpack(REPO, history.pack(), head).assert_try_again("storage-unavailable")
    assert (row_counts(lab), stored(files)) == (before, set())
    roomy = lab.web().muse
    assert roomy.unpack(REPO, history.pack(), head).status == 200
    lab.index()
    roomy.assert_fetchable(REPO, history, {"main": head})


@pytest.mark.parametrize("spool", ["in memory", "on disk"])
def test_r25_a_full_disk_leaves_no_part_of_a_fetch(lab: Laboratory, files: Path, spool: str) -> None:
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web(LAB_SPOOL_BYTES=1 << 20 if spool == "in memory" else 10)
    assert web.muse.push(REPO, history.pack(), head).status == 200
    lab.index()
    before = stored(files)
    # Of the commits alone, another pack than the one that was pushed.
    want = history.commits[head]["parent_ids"]
    lab.control.at("fetch.planned", "file-limit", value=100)
    web.muse.fetch(REPO, want).assert_try_again("storage-unavailable")
    assert stored(files) == before
    roomy = lab.web().muse
    roomy.assert_complete(roomy.fetch(REPO, want), history, want)


def test_r27_processes_that_store_the_same_mpack_at_once_leave_one_good_file(lab: Laboratory, files: Path) -> None:
    webs = [lab.web(), lab.web()]
    history, head = several_blobs("songs")
    repos = [f"alice/songs-{number}" for number in range(6)]
    for number, repo in enumerate(repos):
        lab.create_repo(repo)
        webs[number % 2].muse.upload(repo, history.pack())
    with ThreadPoolExecutor(6) as threads:
        answers = [
            threads.submit(webs[number % 2].muse.unpack, repo, history.pack(), head)
            for number, repo in enumerate(repos)
        ]
        assert [answer.result().status for answer in answers] == [200] * 6
    assert len(stored(files)) == 1
    assert lab.verify().problems == []
    lab.index()
    webs[0].muse.assert_fetchable(repos[5], history, {"main": head})
