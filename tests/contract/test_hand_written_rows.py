"""The contract's section 5: rows that a host or its tests wrote by hand, with the columns it names and no others."""

from __future__ import annotations

from datetime import UTC, datetime

import msgpack
import pytest

from musehub_plugin import ids
from musehub_plugin.blobs import LARGE_BLOB
from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.models import (
    MusehubBranch,
    MusehubCommit,
    MusehubCommitGraph,
    MusehubCommitRef,
    MusehubMPackIndex,
    MusehubObject,
    MusehubObjectRef,
    MusehubRepo,
    MusehubSnapshot,
    MusehubSnapshotRef,
)
from musehub_plugin.mpack import build_wire_mpack
from musehub_plugin.storage.base import Deletes
from musehub_plugin.testing import History
from tests.environment import HubEnvironment
from tests.exchange import Caller

REPO = "alice/songs"
CONTENT = b"the bytes of a blob\n"
BLOB = ids.blob_id(CONTENT)
MANIFEST = {"dir/a.txt": BLOB}
TREE = ids.snapshot_id(MANIFEST)
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
COMMIT = ids.commit_id([], TREE, "first", NOW.isoformat())


def write_rows(hub: HubEnvironment, *, content_cache: bytes | None, storage_uri: str = "") -> None:
    """Write a repo of one commit of one blob, column by column as the contract lists them."""
    with hub.session() as session:
        repo = MusehubRepo(
            owner="alice",
            slug="songs",
            name="Songs",
            visibility="public",
            owner_user_id="alice",
            default_branch="main",
            deleted_at=None,
        )
        session.add(repo)
        session.flush()
        session.add_all(
            [
                MusehubBranch(repo_id=repo.repo_id, name="main", head_commit_id=COMMIT),
                MusehubCommit(
                    commit_id=COMMIT,
                    branch="main",
                    parent_ids=[],
                    message="first",
                    author="Alice",
                    timestamp=NOW,
                    snapshot_id=TREE,
                ),
                MusehubCommitRef(repo_id=repo.repo_id, commit_id=COMMIT),
                MusehubCommitGraph(commit_id=COMMIT, parent_ids=[], generation=1, snapshot_id=TREE),
                MusehubSnapshot(
                    snapshot_id=TREE,
                    directories=["dir"],
                    manifest_blob=msgpack.packb(MANIFEST),
                    entry_count=1,
                    created_at=NOW,
                ),
                MusehubSnapshotRef(repo_id=repo.repo_id, snapshot_id=TREE),
                MusehubObject(
                    object_id=BLOB,
                    path="dir/a.txt",
                    size_bytes=len(CONTENT),
                    storage_uri=storage_uri,
                    content_cache=content_cache,
                ),
                MusehubObjectRef(repo_id=repo.repo_id, object_id=BLOB),
            ]
        )
        session.commit()


def index_in_new_mpack(hub: HubEnvironment, content: bytes) -> None:
    """Store an mpack that claims to hold the blob, and an index row without a place in it."""
    other = {"object_id": ids.blob_id(b"before"), "content": b"before"}
    mpack = build_wire_mpack(commits=[], snapshots=[], blobs=[other, {"object_id": BLOB, "content": content}])
    hub.storage.put_mpack(ids.blob_id(mpack), mpack)
    hub.add(MusehubMPackIndex(entity_id=BLOB, mpack_id=ids.blob_id(mpack), entity_type="object"))


def assert_served(hub: HubEnvironment) -> None:
    pulled = hub.caller().pull(REPO, [COMMIT])
    assert pulled.blobs == {BLOB: CONTENT}
    assert pulled.snapshots == {TREE: MANIFEST}
    assert pulled.commits == {
        COMMIT: {
            "commit_id": COMMIT,
            "parent_ids": [],
            "snapshot_id": TREE,
            "branch": "main",
            "message": "first",
            "author": "Alice",
            "committed_at": NOW.isoformat(),
        }
    }


def test_a_blob_in_its_row_is_served(hub: HubEnvironment) -> None:
    write_rows(hub, content_cache=CONTENT)
    assert_served(hub)


def test_a_blob_in_an_indexed_mpack_without_a_place_is_served(hub: HubEnvironment) -> None:
    write_rows(hub, content_cache=None)
    index_in_new_mpack(hub, CONTENT)
    assert_served(hub)


def test_a_blob_in_storage_by_its_id_is_served(hub: HubEnvironment) -> None:
    write_rows(hub, content_cache=None, storage_uri=hub.storage.put(BLOB, CONTENT))
    assert_served(hub)


def test_a_blob_that_is_nowhere_is_503(hub: HubEnvironment) -> None:
    write_rows(hub, content_cache=None)
    assert hub.caller().fetch(REPO, [COMMIT]).status_code == 503


def test_the_row_goes_before_the_index_and_storage(hub: HubEnvironment) -> None:
    write_rows(hub, content_cache=CONTENT)
    index_in_new_mpack(hub, CONTENT)
    hub.storage.put(BLOB, CONTENT)
    observed = hub.observe(lambda: hub.caller().fetch(REPO, [COMMIT]))
    assert observed.response.status_code == 200
    assert not {"open_mpack", "get_mpack", "get", "open_blob"} & set(observed.storage_calls)


def test_the_index_goes_before_storage_by_id(hub: HubEnvironment) -> None:
    write_rows(hub, content_cache=None)
    index_in_new_mpack(hub, CONTENT)
    hub.storage.put(BLOB, CONTENT)
    observed = hub.observe(lambda: hub.caller().fetch(REPO, [COMMIT]))
    assert observed.response.status_code == 200
    assert "open_mpack" in observed.storage_calls
    assert not {"get", "open_blob"} & set(observed.storage_calls)


def test_a_false_row_and_a_false_mpack_do_not_hide_the_true_bytes(hub: HubEnvironment) -> None:
    write_rows(hub, content_cache=b"not the bytes")
    index_in_new_mpack(hub, b"nor these")
    hub.storage.put(BLOB, CONTENT)
    assert_served(hub)


@pytest.mark.parametrize("place", ["row", "mpack", "large in an mpack", "storage"])
def test_a_blob_of_which_only_false_bytes_are_there_is_called_damaged(hub: HubEnvironment, place: str) -> None:
    write_rows(hub, content_cache=b"not the bytes" if place == "row" else None)
    if place == "mpack":
        index_in_new_mpack(hub, b"not the bytes")
    if place == "large in an mpack":
        index_in_new_mpack(hub, bytes(LARGE_BLOB + 1))
    if place == "storage":
        hub.storage.put(BLOB, b"not the bytes")
    answer = hub.caller().fetch(REPO, [COMMIT])
    assert (answer.status_code, answer.get_json()["code"]) == (503, "blob-damaged")


def put_away(hub: HubEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have storage not answer where an mpack is to be read."""

    def away(mpack_id: str) -> None:
        raise StorageUnavailable("it is away")

    monkeypatch.setattr(hub.storage, "open_mpack", away)


def test_a_blob_in_storage_by_its_id_is_served_where_its_mpack_is_away(
    hub: HubEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(hub, content_cache=None)
    index_in_new_mpack(hub, CONTENT)
    hub.storage.put(BLOB, CONTENT)
    with monkeypatch.context() as patch:
        put_away(hub, patch)
        answer = hub.caller().fetch(REPO, [COMMIT]).get_json()
    assert answer["blob_count"] == 1


def test_a_blob_in_an_mpack_that_is_away_is_not_called_damaged(
    hub: HubEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(hub, content_cache=None)
    index_in_new_mpack(hub, CONTENT)
    put_away(hub, monkeypatch)
    answer = hub.caller().fetch(REPO, [COMMIT])
    assert (answer.status_code, answer.get_json()["code"]) == (503, "storage-unavailable")


def test_bytes_in_the_row_serve_where_a_pushed_pack_is_lost(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    head = history.commit({"a.txt": CONTENT})
    pack = history.pack()
    assert hub.caller("alice").push(REPO, pack, head).status_code == 200
    hub.run_jobs()
    assert isinstance(hub.storage, Deletes)
    hub.storage.delete_mpack(ids.blob_id(pack))
    with hub.session() as session:
        session.query(MusehubObject).update({"content_cache": CONTENT})
        session.commit()
    assert hub.caller().pull(REPO, [head]).blobs == {BLOB: CONTENT}


def test_a_repo_gets_an_id_and_a_name_where_none_are_given(hub: HubEnvironment) -> None:
    row = MusehubRepo(owner="alice", slug="songs", visibility="public", owner_user_id="alice")
    with hub.session() as session:
        session.add(row)
        session.commit()
        assert row.repo_id
        assert (row.name, row.default_branch, row.deleted_at) == ("songs", "main", None)
        repo_id = row.repo_id
    assert hub.caller().refs(REPO).get_json()["repo_id"] == repo_id


def test_a_repo_with_a_deletion_date_is_as_good_as_missing(hub: HubEnvironment) -> None:
    write_rows(hub, content_cache=CONTENT)
    with hub.session() as session:
        session.query(MusehubRepo).update({"deleted_at": NOW})
        session.commit()
    assert hub.caller("alice").fetch(REPO, [COMMIT]).status_code == 404


@pytest.mark.parametrize(
    "moment",
    [NOW, NOW.replace(microsecond=0), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)],
)
@pytest.mark.parametrize("form", ["auto", "microseconds"])
def test_the_date_of_a_row_is_sent_as_the_text_that_its_id_hashes(
    hub: HubEnvironment, moment: datetime, form: str
) -> None:
    hashed = moment.isoformat(timespec=form)
    commit = dated(hub, moment, hashed)
    record = hub.caller().pull(REPO, [commit]).commits[commit]
    assert record["committed_at"] == hashed


@pytest.mark.parametrize("hub", ["postgresql+s3"], indirect=True)
@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_the_first_and_the_last_date_are_sent_whatever_time_zone_the_database_has(
    hub: HubEnvironment, moment: datetime
) -> None:
    # There it is the year before the first, or the one after the last, that Python knows.
    options = {"connect_args": {"options": "-c timezone=Pacific/Kiritimati"}}
    commit = dated(hub, moment, moment.isoformat())
    record = Caller(hub.make_app(SQLALCHEMY_ENGINE_OPTIONS=options)).pull(REPO, [commit]).commits[commit]
    assert record["committed_at"] == moment.isoformat()


def dated(hub: HubEnvironment, moment: datetime, hashed: str) -> str:
    """Write a repo with a commit of a date whose id hashes that text, and return the id."""
    repo_id = hub.create_repo(REPO)
    commit = ids.commit_id([], TREE, "dated", hashed)
    hub.add(
        MusehubCommit(commit_id=commit, message="dated", author="A", timestamp=moment, snapshot_id=TREE),
        MusehubCommitRef(repo_id=repo_id, commit_id=commit),
        MusehubSnapshot(snapshot_id=TREE, manifest_blob=msgpack.packb(MANIFEST), entry_count=1),
        MusehubSnapshotRef(repo_id=repo_id, snapshot_id=TREE),
        MusehubObject(object_id=BLOB, size_bytes=len(CONTENT), content_cache=CONTENT),
        MusehubObjectRef(repo_id=repo_id, object_id=BLOB),
    )
    return commit


@pytest.mark.parametrize("column", ["manifest_blob", "delta_blob"])
@pytest.mark.parametrize(
    "damaged", [b"", b'{"dir/a.txt": "json"}', b"\xc1", msgpack.packb([1]), msgpack.packb({"a": 5})]
)
def test_a_manifest_that_cannot_be_read_is_damage_that_a_verification_names(
    hub: HubEnvironment, column: str, damaged: bytes
) -> None:
    write_rows(hub, content_cache=CONTENT)
    with hub.session() as session:
        session.query(MusehubSnapshot).update({"manifest_blob": None, column: damaged})
        session.commit()
    answer = hub.caller().fetch(REPO, [COMMIT])
    assert (answer.status_code, answer.get_json()["code"]) == (500, "history-damaged")
    verification = hub.app.test_cli_runner().invoke(args=["musehub", "verify"])
    assert verification.exit_code == 1
    assert f"snapshot-missing {TREE}" in verification.output


@pytest.mark.parametrize("column", ["message", "snapshot_id", "parent_ids", "timestamp"])
def test_a_commit_that_was_altered_is_damage_that_a_verification_names(hub: HubEnvironment, column: str) -> None:
    other = {
        "message": "other",
        "snapshot_id": ids.fake_id("s"),
        "parent_ids": [ids.fake_id("p")],
        "timestamp": NOW.min,
    }
    write_rows(hub, content_cache=CONTENT)
    with hub.session() as session:
        session.query(MusehubCommit).update({column: other[column]})
        session.commit()
    verification = hub.app.test_cli_runner().invoke(args=["musehub", "verify"])
    assert verification.exit_code == 1
    assert f"commit-damaged {COMMIT}" in verification.output


def test_a_sound_history_of_rows_and_pushes_verifies(hub: HubEnvironment) -> None:
    write_rows(hub, content_cache=CONTENT)
    history = History()
    by_author = history.commit({"b.txt": b"new"}, [COMMIT], hashed="author")
    tip = history.commit({"b.txt": b"newer"}, [by_author], committed_at="2026-01-02T03:04:05Z")
    assert hub.caller("alice").push(REPO, history.pack(), tip, expected_head=COMMIT).status_code == 200
    verification = hub.app.test_cli_runner().invoke(args=["musehub", "verify"])
    assert (verification.exit_code, verification.output.count("damaged")) == (0, 0), verification.output


def test_a_repo_of_hand_written_rows_takes_pushes(hub: HubEnvironment) -> None:
    write_rows(hub, content_cache=CONTENT)
    history = History()
    tip = history.commit({"dir/a.txt": BLOB, "b.txt": b"new"}, [COMMIT])
    assert hub.caller("alice").push(REPO, history.pack(), tip, expected_head=COMMIT).status_code == 200
    assert set(hub.caller().pull(REPO, [tip]).blobs) == {BLOB, ids.blob_id(b"new")}
