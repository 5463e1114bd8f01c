"""Which pushed packs a collection removes, where several have the same blobs: what is stored must not grow for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from musehub_plugin.gc import Collected, collect
from musehub_plugin.ids import blob_id, fake_id
from musehub_plugin.models import MusehubMPackIndex, MusehubRepo
from musehub_plugin.scrub import scrub
from musehub_plugin.store import garbage, jobs
from musehub_plugin.store.models import Base, MusehubFetchPack, MusehubJob, MusehubMPack, MusehubUpload
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.integration.ready.test_repack import Growing

GRACE = 3600
BLOB, PACK, OTHER = fake_id("a blob"), fake_id("a pack"), fake_id("another pack")


def collected(hub: HubEnvironment, grace: int = -1) -> Collected:
    with hub.app.app_context():
        return collect(hub_of(hub.app), hub_of(hub.app).database(), grace=grace)


def files(hub: HubEnvironment) -> int:
    return len(hub.stored_keys())


def test_a_repo_that_is_collected_and_repacked_time_and_again_keeps_no_pack_of_before(hub: HubEnvironment) -> None:
    growing = Growing(hub)
    base = head = growing.push(5)
    stored: list[int] = []
    for _ in range(4):
        head = growing.push(on=head)
        growing.push(on=base, branch="side", force=True)
        growing.repack()
        # The first finds what was forced away, the second what was replaced; its file goes after the grace period.
        for _ in range(3):
            collected(hub)
        stored.append(files(hub))
    assert stored[-1] <= stored[0] + 1
    assert hub.caller().pull(growing.repo, [head]).commits.keys() == growing.history.reachable([head])
    with hub.app.app_context():
        assert scrub(hub_of(hub.app), hub_of(hub.app).database()).problems == []


def test_the_pack_of_a_deleted_repo_goes_though_another_repo_has_one_of_its_blobs(hub: HubEnvironment) -> None:
    history = {}
    for repo in ("alice/songs", "alice/drums"):
        hub.create_repo(repo)
        history[repo] = History()
        head = history[repo].commit({"LICENSE": b"the same", "own.txt": repo.encode()})
        assert hub.caller("alice").push(repo, history[repo].pack(), head).status_code == 200
    hub.run_jobs()
    with hub.session() as session:
        long_ago = datetime.now(UTC) - timedelta(days=3)
        session.execute(update(MusehubRepo).where(MusehubRepo.slug == "drums").values(deleted_at=long_ago))
        session.commit()
    for _ in range(2):
        collected(hub)
    assert files(hub) == 1
    pulled = hub.caller().pull("alice/songs", [*history["alice/songs"].commits])
    assert pulled.blobs == history["alice/songs"].blobs


def test_nothing_is_left_of_repos_that_were_deleted(hub: HubEnvironment) -> None:
    for repo in ("alice/songs", "alice/drums"):
        growing = Growing(hub, repo)
        base = growing.push(3)
        growing.repack()
        growing.push(2, on=base, force=True)
        hub.caller().pull(repo, growing.made[-1:], growing.made[:1])
        growing.caller.upload(growing.caller.presign(repo, b"never unpacked").get_json(), b"never unpacked")
        growing.repack()
    long_ago = datetime.now(UTC) - timedelta(days=3)
    with hub.session() as session:
        session.execute(update(MusehubRepo).values(deleted_at=long_ago))
        session.execute(update(MusehubUpload).values(expires_at=long_ago))
        session.commit()
    for _ in range(2):
        collected(hub)
    assert {name: count for name, count in hub.row_counts().items() if count} == {}
    assert files(hub) == 0


def rows(**further: Base) -> list[Base]:
    """Return an old pack that no repo refers to, whose one blob is indexed in another pack too."""
    return [
        MusehubMPack(mpack_id=PACK, size_bytes=7, created_at=datetime.now(UTC) - timedelta(seconds=2 * GRACE)),
        MusehubMPackIndex(entity_id=BLOB, mpack_id=PACK),
        MusehubMPackIndex(entity_id=BLOB, mpack_id=OTHER),
        *further.values(),
    ]


def useless(hub: HubEnvironment) -> list[str]:
    with hub.app.app_context():
        return garbage.useless_mpacks(hub_of(hub.app).database(), GRACE, 10, "")


def test_a_pack_of_which_another_one_has_all_is_useless(hub: HubEnvironment) -> None:
    hub.add(*rows(other=MusehubMPack(mpack_id=OTHER, size_bytes=7)))
    assert useless(hub) == [PACK]


def test_a_pack_stays_where_nobody_knows_the_other_one(hub: HubEnvironment) -> None:
    hub.add(*rows())
    assert useless(hub) == []


def test_a_pack_stays_where_the_other_one_is_known_to_be_damaged(hub: HubEnvironment) -> None:
    job = MusehubJob(job_id=jobs.index_job_id(OTHER), kind=jobs.INDEX, subject=OTHER, state=jobs.FAILED)
    hub.add(*rows(other=MusehubMPack(mpack_id=OTHER, size_bytes=7), job=job))
    assert useless(hub) == []


def test_of_two_packs_with_the_same_blobs_one_stays(hub: HubEnvironment) -> None:
    old = datetime.now(UTC) - timedelta(seconds=2 * GRACE)
    hub.add(*rows(other=MusehubMPack(mpack_id=OTHER, size_bytes=7, created_at=old)))
    assert collected(hub, GRACE).mpacks == 1
    assert hub.row_counts()["musehub_mpack_index"] == 1


@pytest.mark.parametrize("times", [1, 2])
def test_the_file_of_a_pack_that_was_read_from_stays_a_grace_period(hub: HubEnvironment, times: int) -> None:
    content = b"the bytes of the pack"
    mpack_id = blob_id(content)
    hub.storage.put_mpack(mpack_id, content)
    hub.add(
        MusehubMPack(mpack_id=mpack_id, size_bytes=7, created_at=datetime.now(UTC) - timedelta(seconds=2 * GRACE)),
        MusehubMPack(mpack_id=OTHER, size_bytes=7),
        MusehubMPackIndex(entity_id=BLOB, mpack_id=mpack_id),
        MusehubMPackIndex(entity_id=BLOB, mpack_id=OTHER),
    )
    for _ in range(times):
        collected(hub, GRACE)
    assert hub.storage.get_mpack(mpack_id) == content
    with hub.session() as session:
        session.execute(update(MusehubFetchPack).values(used_at=datetime.now(UTC) - timedelta(seconds=2 * GRACE)))
        session.commit()
    collected(hub, GRACE)
    assert hub.storage.get_mpack(mpack_id) is None
