"""Attacks by what is in a push, and on what became of it: S77 to S82, S84, and S37, through HTTP."""

from __future__ import annotations

import itertools
import time
from io import BytesIO
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, text, update

from musehub_plugin import ids, incoming
from musehub_plugin.models import MusehubCommitGraph, MusehubMPackIndex, MusehubSnapshot
from musehub_plugin.mpack import BaseBlob, Limits, MPackWriter, build_wire_mpack, parse_wire_mpack
from musehub_plugin.testing import History
from tests.effort import effort
from tests.environment import HubEnvironment
from tests.exchange import JSON, MSGPACK, Caller

REPO = "alice/songs"
STATUSES = {200, 400, 404, 413, 415, 422, 503}


def assert_nothing_written(hub: HubEnvironment, before: tuple[object, object]) -> None:
    assert state(hub) == before


def state(hub: HubEnvironment) -> tuple[object, object]:
    """Return how many rows each table has, and what object storage keeps. Tickets and uploads expire by themselves."""
    kept = {key for key in hub.stored_keys() if not key.startswith("uploads/")}
    return hub.row_counts(besides=("musehub_upload",)), kept


def assert_refused(hub: HubEnvironment, pack: bytes, tip: str, *named: str) -> dict[str, Any]:
    """Push what must be refused with 422, by an error that names `named`, and change nothing."""
    before = state(hub)
    answer = hub.caller("alice").push(REPO, pack, tip)
    assert answer.status_code == 422, answer.text
    body: dict[str, Any] = answer.get_json()
    for name in named:
        assert name in body["detail"]
    assert_nothing_written(hub, before)
    return body


def parts_of(history: History) -> dict[str, list[dict[str, Any]]]:
    return parse_wire_mpack(history.pack())


# S77


def test_s77_bytes_that_are_not_the_mpack_of_the_ticket_are_422(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history, other = History(), History()
    tip = history.commit({"a": b"1"})
    other.commit({"a": b"2"})
    alice = hub.caller("alice")
    ticket = alice.presign(REPO, history.pack()).get_json()
    hub.replace_upload(ticket["upload_url"], other.pack())
    before = state(hub)
    assert alice.unpack(REPO, ids.blob_id(history.pack()), tip).status_code == 422
    assert_nothing_written(hub, before)


def test_s77_storage_itself_refuses_bytes_that_are_not_those_of_the_ticket(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history, other = History(), History()
    history.commit({"a": b"1"})
    other.commit({"a": b"2"})
    assert len(history.pack()) == len(other.pack())
    alice = hub.caller("alice")
    ticket = alice.presign(REPO, history.pack()).get_json()
    assert alice.upload(ticket, other.pack()) >= 400


@pytest.mark.parametrize("position", [0, 1, 2])
def test_s77_a_false_blob_is_422_wherever_it_is(hub: HubEnvironment, position: int) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({"a": b"1", "b": b"2", "c": b"3"})
    parts = parts_of(history)
    parts["blobs"][position]["content"] = b"X"
    assert_refused(hub, build_wire_mpack(**parts), tip, parts["blobs"][position]["object_id"])


def test_s77_a_blob_that_no_tree_names_is_hashed_as_well(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({"a": b"1"})
    parts = parts_of(history)
    parts["blobs"].append({"object_id": ids.fake_id("false"), "content": b"stray"})
    assert_refused(hub, build_wire_mpack(**parts), tip, ids.fake_id("false"))


def test_s77_a_false_snapshot_is_422(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    tree = history.snapshot({"a": b"1"})
    history.snapshots[tree] = {"a": history.blob(b"2")}
    tip = history.commit(tree)
    assert_refused(hub, history.pack(), tip, tree)


@pytest.mark.parametrize("field", ["message", "committed_at", "snapshot_id", "parent_ids"])
def test_s77_a_commit_with_a_field_that_its_id_does_not_hash_is_422(hub: HubEnvironment, field: str) -> None:
    hub.create_repo(REPO)
    history = History()
    root = history.commit({"a": b"0"})
    tip = history.commit({"a": b"1"}, [root])
    history.commits[tip][field] = {
        "message": "another message",
        "committed_at": "2001-01-01T00:00:00+00:00",
        "snapshot_id": history.commits[root]["snapshot_id"],
        "parent_ids": [],
    }[field]
    assert_refused(hub, history.pack(), tip, tip)


def test_s77_a_commit_id_out_of_the_blue_is_422(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    record = history.commits.pop(history.commit({"a": b"1"}))
    false_id = ids.fake_id("a commit")
    history.commits[false_id] = {**record, "commit_id": false_id}
    assert_refused(hub, history.pack(), false_id, false_id)


# S78


def indexed(hub: HubEnvironment) -> tuple[History, str, str, bytes]:
    """Push one blob; return the history, its tip, the blob's id and the true mpack."""
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({"a.txt": b"true bytes"})
    assert hub.caller("alice").push(REPO, history.pack(), tip).status_code == 200
    return history, tip, ids.blob_id(b"true bytes"), history.pack()


def absent_mpack(hub: HubEnvironment, blob: str) -> str:
    return ids.fake_id("no such mpack")


def mpack_without_it(hub: HubEnvironment, blob: str) -> str:
    other = {"object_id": ids.blob_id(b"other"), "content": b"other"}
    mpack = build_wire_mpack(commits=[], snapshots=[], blobs=[other])
    hub.storage.put_mpack(ids.blob_id(mpack), mpack)
    return ids.blob_id(mpack)


def mpack_with_wrong_bytes(hub: HubEnvironment, blob: str) -> str:
    mpack = build_wire_mpack(commits=[], snapshots=[], blobs=[{"object_id": blob, "content": b"wrong"}])
    hub.storage.put_mpack(ids.blob_id(mpack), mpack)
    return ids.blob_id(mpack)


def mpack_of_garbage(hub: HubEnvironment, blob: str) -> str:
    hub.storage.put_mpack(ids.fake_id("garbage"), b"this is no mpack, whatever its name says")
    return ids.fake_id("garbage")


POISONS = (absent_mpack, mpack_without_it, mpack_with_wrong_bytes, mpack_of_garbage)
poisons = pytest.mark.parametrize("poison", POISONS, ids=lambda poison: poison.__name__)


@poisons
@pytest.mark.parametrize("placed", [False, True], ids=["no place", "a place"])
def test_s78_a_poisoned_index_row_is_passed_over_for_a_true_one(hub: HubEnvironment, poison: Any, placed: bool) -> None:
    history, tip, blob, _ = indexed(hub)
    place = {"frame": 0, "frame_offset": 0, "size_bytes": 5} if placed else {}
    hub.add(MusehubMPackIndex(entity_id=blob, mpack_id=poison(hub, blob), entity_type="object", **place))
    assert hub.caller().pull(REPO, [tip]).blobs == history.blobs


@poisons
@pytest.mark.parametrize("placed", [False, True], ids=["no place", "a place"])
def test_s78_a_blob_whose_only_index_row_is_poisoned_is_503_with_an_alert(
    hub: HubEnvironment, poison: Any, placed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    _, tip, blob, _ = indexed(hub)
    place = {"frame": 0, "frame_offset": 0, "size_bytes": 5} if placed else {}
    with hub.session() as session:
        session.execute(delete(MusehubMPackIndex))
        session.commit()
    hub.add(MusehubMPackIndex(entity_id=blob, mpack_id=poison(hub, blob), entity_type="object", **place))
    before = hub.stored_keys()
    answer = hub.caller().fetch(REPO, [tip])
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert hub.stored_keys() == before
    assert any("integrity" in message and blob in message for message in caplog.messages)


@pytest.mark.parametrize("place", [(0, 1, 9), (0, 0, 9), (99, 0, 10), (0, 10**12, 10), (0, 0, 2**62), (-1, -1, -1)])
def test_s78_a_false_place_in_the_true_mpack_is_never_wrong_bytes(
    hub: HubEnvironment, place: tuple[int, int, int]
) -> None:
    history, tip, _, _ = indexed(hub)
    frame, offset, size = place
    with hub.session() as session:
        session.execute(update(MusehubMPackIndex).values(frame=frame, frame_offset=offset, size_bytes=size))
        session.commit()
    answer = hub.caller().fetch(REPO, [tip])
    if answer.status_code == 200:
        assert hub.caller().pull(REPO, [tip]).blobs == history.blobs
    else:
        assert answer.status_code == 503


@pytest.mark.parametrize("place", [(0, -1, 10), (0, 0, -1), (-1, -1, -1), (0, 1, 9), (0, 0, 2**21)])
def test_s78_a_false_place_in_a_frame_that_is_at_hand_is_passed_over_for_a_true_one(
    hub: HubEnvironment, place: tuple[int, int, int]
) -> None:
    history, tip, blob, mpack = indexed(hub)
    assert hub.caller().fetch(REPO, [tip]).status_code == 200
    frame, offset, size = place
    with hub.session() as session:
        session.execute(update(MusehubMPackIndex).values(frame=frame, frame_offset=offset, size_bytes=size))
        session.commit()
    # By its id it comes after the false one.
    hub.storage.put_mpack("sha256:" + "f" * 64, mpack)
    true = {"frame": 0, "frame_offset": 0, "size_bytes": 10}
    hub.add(MusehubMPackIndex(entity_id=blob, mpack_id="sha256:" + "f" * 64, entity_type="object", **true))
    body = {"want": [tip], "capabilities": ["inline"]}
    answer = hub.caller().post(f"/{REPO}/fetch", body, accept=MSGPACK)
    assert answer.status_code == 200, answer.data
    blobs = parse_wire_mpack(msgpack.unpackb(answer.data)["mpack"])["blobs"]
    assert {each["object_id"]: each["content"] for each in blobs} == history.blobs


def test_s78_an_mpack_whose_bytes_changed_in_storage_is_never_served_from(hub: HubEnvironment) -> None:
    history, tip, _, mpack = indexed(hub)
    hub.storage.put_mpack(ids.blob_id(mpack), mpack.replace(b"true bytes", b"lies bytes"))
    assert hub.caller().fetch(REPO, [tip]).status_code == 503
    hub.storage.put_mpack(ids.blob_id(mpack), mpack)
    assert hub.caller().pull(REPO, [tip]).blobs == history.blobs


# S79

REFUSED_PATHS = [
    "../x",
    "a/../x",
    "..",
    "/x",
    "/",
    "a//b",
    "a/",
    ".",
    "./a",
    "a/./b",
    "",
    "a\\b",
    "..\\x",
    "a\0b",
    "a\nb",
    "a\rb",
    ".muse",
    ".muse/x",
    ".MUSE/config",
    "a/.Muse/x",
    # What some file systems take for an s.
    ".mu\u017fe/x",
]
ACCEPTED_PATHS = [
    "a" * 4_096,
    "a/...",
    "a/..b",
    ".musee",
    ".muse.txt",
    ".git/config",
    "cafe\u0301.txt",
    "CON",
    "aux.txt",
    "a:b",
    "trailing. ",
    " leading",
    "tab\there",
    "\u202egnp.exe",
    "\x1b[31mred",
    "-rf",
    "~",
    "*",
]


def test_s79_a_path_that_could_leave_or_break_a_working_copy_is_422(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    for path in REFUSED_PATHS:
        history = History()
        # Not in the first snapshot: manifests travel as changes.
        first = history.commit({"fine.txt": b"1"})
        tip = history.commit({"fine.txt": b"1", path: b"2"}, [first])
        body = assert_refused(hub, history.pack(), tip, history.commits[tip]["snapshot_id"])
        assert body["path"] == path


@pytest.mark.parametrize("path", ["a" * 4_097, "\xe9" * 2_049, "d/" * 2_048 + "ab"], ids=["ascii", "utf-8", "folders"])
def test_s79_a_path_of_more_than_4096_bytes_is_422(hub: HubEnvironment, path: str) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({path: b"1"})
    out = BytesIO()
    with MPackWriter(out, limits=Limits(max_path_size=10_000)) as writer:
        write_all(writer, history)
    assert_refused(hub, out.getvalue(), tip, "path", "4096 bytes")


def write_all(writer: MPackWriter, history: History) -> None:
    for object_id, content in history.blobs.items():
        writer.add_blob(object_id, content)
    for snapshot_id, manifest in history.snapshots.items():
        writer.add_snapshot(snapshot_id, manifest)
    for record in history.commits.values():
        writer.add_commit(record)


def test_s79_a_file_that_is_a_folder_of_another_is_422(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    for paths in (("a", "a/b"), ("a/b/c", "a"), ("a.b", "a", "a/x"), ("a/b", "a/b/c/d", "z")):
        history = History()
        tip = history.commit(dict.fromkeys(paths, b"1"))
        assert_refused(hub, history.pack(), tip, "folder")


def test_s79_a_file_that_becomes_a_folder_from_one_commit_to_the_next_is_fine(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    first = history.commit({"a": b"1", "z": b"9"})
    second = history.commit({"a/b": b"1", "z": b"9"}, [first])
    third = history.commit({"a": b"2", "z": b"9"}, [second])
    assert hub.caller("alice").push(REPO, history.pack(), third).status_code == 200
    assert hub.caller().pull(REPO, [third]).snapshots == history.snapshots


def test_s79_a_path_that_only_some_systems_cannot_hold_is_kept_exactly(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit(dict.fromkeys(ACCEPTED_PATHS, b"1"))
    assert hub.caller("alice").push(REPO, history.pack(), tip).status_code == 200
    (manifest,) = hub.caller().pull(REPO, [tip]).snapshots.values()
    assert set(manifest) == set(ACCEPTED_PATHS)


def test_s79_names_that_differ_in_case_or_form_stay_apart(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({"A": b"1", "a": b"2", "caf\xe9": b"3", "cafe\u0301": b"4"})
    assert hub.caller("alice").push(REPO, history.pack(), tip).status_code == 200
    assert hub.caller().pull(REPO, [tip]).snapshots == history.snapshots


# S80


def test_s80_a_blob_of_no_bytes_and_a_tree_of_no_files_come_back(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    nothing = history.commit({})
    empty = history.commit({"empty": b"", "also empty": b""}, [nothing])
    full = history.commit({"empty": b"", "full": b"x"}, [empty])
    bare = history.commit({}, [full])
    assert hub.caller("alice").push(REPO, history.pack(), bare).status_code == 200
    caller = hub.caller()
    assert caller.pull(REPO, [nothing]).snapshots == {ids.snapshot_id({}): {}}
    assert caller.pull(REPO, [empty], [nothing]).blobs == {ids.blob_id(b""): b""}
    pulled = caller.pull(REPO, [bare])
    assert (pulled.commits, pulled.snapshots, pulled.blobs) == (history.commits, history.snapshots, history.blobs)


# S81


def test_s81_a_commit_that_is_its_own_parent_is_422(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    record = history.commits.pop(history.commit({"a": b"1"}))
    itself = ids.fake_id("itself")
    history.commits[itself] = {**record, "commit_id": itself, "parent_ids": [itself]}
    assert_refused(hub, history.pack(), itself, itself)


def test_s81_a_cycle_of_parents_is_422(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    record = history.commits.pop(history.commit({"a": b"1"}))
    ring = [ids.fake_id(f"ring {number}") for number in range(3)]
    for commit, parent in zip(ring, [*ring[1:], ring[0]], strict=True):
        history.commits[commit] = {**record, "commit_id": commit, "parent_ids": [parent]}
    assert_refused(hub, history.pack(), ring[0])


def test_s81_a_parent_named_twice_comes_back_twice(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    root = history.commit({"a": b"1"})
    tip = history.commit({"a": b"2"}, [root, root])
    assert hub.caller("alice").push(REPO, history.pack(), tip).status_code == 200
    assert hub.caller().pull(REPO, [tip]).commits == history.commits
    assert set(hub.caller().pull(REPO, [tip], [root]).commits) == {tip}


def test_s81_an_octopus_of_forty_parents_is_accepted(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    parents = [history.commit({"a": b"%d" % number}) for number in range(40)]
    tip = history.commit({"a": b"all"}, parents)
    assert hub.caller("alice").push(REPO, history.pack(), tip).status_code == 200
    assert set(hub.caller().pull(REPO, [tip], parents[:20]).commits) == {tip, *parents[20:]}


class TwofoldWriter(MPackWriter):
    """Writes every blob twice, the second time under another id: the writer refuses one that is there."""

    def add_blob(self, object_id: str | bytes, content: bytes | memoryview, *, base: BaseBlob | None = None) -> None:
        super().add_blob(object_id, content, base=base)
        super().add_blob(ids.fake_id(str(object_id)), content, base=base)


def test_s81_a_blob_twice_in_one_mpack_is_422(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({"a": b"1"})
    out = BytesIO()
    with TwofoldWriter(out) as writer:
        write_all(writer, history)
    object_id = ids.blob_id(b"1")
    once, twice = ids.to_digest(object_id), ids.to_digest(ids.fake_id(object_id))
    assert out.getvalue().count(twice) == 1
    assert_refused(hub, out.getvalue().replace(twice, once), tip)


# Far more than Python's recursion limit.
CHAIN = 5_000


def test_s81_a_long_chain_is_taken_and_sent_without_recursion(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    tree = history.snapshot({"a": b"1"})
    commits: list[str] = []
    for number in range(CHAIN):
        commits.append(history.commit(tree, commits[-1:], message=str(number)))
    assert hub.caller("alice").push(REPO, history.pack(), commits[-1]).status_code == 200
    pulled = hub.caller().pull(REPO, [commits[-1]], [commits[0]])
    assert len(pulled.commits) == CHAIN - 1
    with hub.session() as session:
        top = session.get(MusehubCommitGraph, commits[-1])
        assert top is not None
        assert top.generation == CHAIN


# S82

_NUMBERS = itertools.count()


@effort(25, shared_fixtures=True, shrinks=False)
@given(data=st.data())
def test_s82_a_damaged_mpack_is_refused_whatever_the_damage(hub: HubEnvironment, data: st.DataObject) -> None:
    repo = f"alice/damaged-{next(_NUMBERS)}"
    hub.create_repo(repo)
    history = History()
    tip = history.commit({"a": b"some bytes " * 20, "b": b"others"}, [history.commit({"a": b"some bytes " * 19})])
    pack = bytearray(history.pack())
    at = data.draw(st.integers(0, len(pack) - 1))
    pack[at] ^= data.draw(st.integers(1, 255))
    before = state(hub)
    answer = hub.caller("alice").push(repo, bytes(pack), tip)
    # A byte that no id covers (an author, a branch) may be another: then it is another push, and a true one.
    assert answer.status_code in {200, 413, 422}
    if answer.status_code != 200:
        assert_nothing_written(hub, before)


@pytest.mark.parametrize("missing", ["a", "b", "c"])
def test_s04_a_missing_blob_is_found_among_any_number_that_are_there(
    hub: HubEnvironment, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(incoming, "ID_BATCH", 1)
    hub.create_repo(REPO)
    history = History()
    root = history.commit({"a": b"1", "b": b"2", "c": b"3"})
    assert hub.caller("alice").push(REPO, history.pack(), root).status_code == 200
    tree = {name: ids.blob_id(b"%d" % number) for number, name in enumerate("abc", 1)}
    tip = history.commit({**tree, missing: b"nowhere", "further": ids.blob_id(b"2")}, [root])
    lost = ids.blob_id(b"nowhere")
    assert_refused(hub, history.pack(want=[tip], have=[root], leave_out=[lost]), tip, lost)


# S83


def limited_push(hub: HubEnvironment, setting: str, limit: int, more_commits: int) -> Any:
    """Push commits, three snapshots of up to two paths, and a largest blob of ten bytes, where `limit` holds."""
    history = History()
    root = history.commit({"a": b"0123456789"})
    tip = history.commit({"a": b"0123456789", "b": b"1"}, [root])
    for _ in range(more_commits):
        tip = history.commit({"a": b"0123456789"}, [tip])
    history.snapshot({"c": history.blob(b"1")})
    app = hub.make_app(**{f"MUSEHUB_{setting}": limit})
    return Caller(app, "alice").push(REPO, history.pack(), tip)


# What a pack is found to be does not depend on the database or the storage behind.
@pytest.mark.parametrize("hub", ["sqlite+files"], indirect=True)
@pytest.mark.parametrize(
    ("setting", "too_little", "enough", "more_commits"),
    [
        ("MAX_BLOB", 9, 10, 0),
        ("MAX_COMMITS", 2, 3, 0),
        ("MAX_COMMITS", 3, 4, 2),
        ("MAX_MANIFEST_ENTRIES", 1, 2, 0),
        ("MAX_MANIFEST_TOTAL", 3, 4, 0),
        ("MAX_PUSH_RAW", 100, 10_000, 0),
    ],
)
def test_s83_a_push_beyond_a_limit_of_the_settings_is_422(
    hub: HubEnvironment, setting: str, too_little: int, enough: int, more_commits: int
) -> None:
    hub.create_repo(REPO)
    before = state(hub)
    assert limited_push(hub, setting, too_little, more_commits).status_code == 422
    assert_nothing_written(hub, before)
    assert limited_push(hub, setting, enough, more_commits).status_code == 200


@pytest.mark.parametrize("hub", ["sqlite+files"], indirect=True)
def test_s83_no_ticket_is_given_for_more_than_the_settings_allow(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    alice = Caller(hub.make_app(MUSEHUB_MAX_PUSH=1000), "alice")
    answers = [alice.presign(REPO, bytes(size)) for size in (1000, 1001)]
    assert [answer.status_code for answer in answers] == [200, 413]
    assert answers[1].get_json()["limit"] == 1000


@pytest.mark.parametrize("hub", ["sqlite+files"], indirect=True)
def test_s83_an_upload_of_more_than_the_settings_allow_is_413_whatever_its_ticket_says(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    pack = bytes(2 << 20)
    generous = hub.caller("alice")
    assert generous.upload(generous.presign(REPO, pack).get_json(), pack) < 300
    strict = Caller(hub.make_app(MUSEHUB_MAX_PUSH=3 << 19), "alice")
    answer = strict.unpack(REPO, ids.blob_id(pack), ids.fake_id("a head"))
    assert (answer.status_code, answer.get_json()["limit"]) == (413, 3 << 19)


@pytest.mark.parametrize(("message", "status"), [("true", 200), ("a\0b", 422)])
def test_s83_nothing_stays_of_an_upload_that_was_looked_into(hub: HubEnvironment, message: str, status: int) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({"a": b"1"}, message=message)
    assert hub.caller("alice").push(REPO, history.pack(), tip).status_code == status
    uploads = {key for key in hub.stored_keys() if key.startswith("uploads/")}
    assert (uploads, hub.row_counts()["musehub_upload"]) == (set(), 0)


# S84

FORGED = "\x1b[31mred\x1b[0m \u202egnorw\u202c\r\n2026-01-01 ERROR forged\x07"


def forged(history: History) -> str:
    """Add a commit that has as much of `FORGED` everywhere as is accepted there."""
    return history.commit({FORGED.replace("\r\n", "\t"): b"1"}, message=FORGED, author=FORGED)


@pytest.mark.parametrize("field", ["message", "author", "branch"])
def test_s84_a_commit_with_a_nul_is_422(hub: HubEnvironment, field: str) -> None:
    hub.create_repo(REPO)
    history = History()
    said: dict[str, Any] = {field: "a\0b"}
    tip = history.commit({"a": b"1"}, **said)
    assert field in assert_refused(hub, history.pack(), tip, tip)["detail"]


@pytest.mark.parametrize("date", ["", "yesterday", "2026-02-30T00:00:00+00:00", "0001-01-01T00:00:00+23:59"])
def test_s84_a_commit_whose_date_is_none_is_422(hub: HubEnvironment, date: str) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({"a": b"1"}, committed_at=date)
    assert_refused(hub, history.pack(), tip, tip, "committed_at")


def test_s84_control_characters_come_back_as_they_were_pushed(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = forged(history)
    assert hub.caller("alice").push(REPO, history.pack(), tip).status_code == 200
    pulled = hub.caller().pull(REPO, [tip])
    assert (pulled.commits[tip]["message"], pulled.commits[tip]["author"]) == (FORGED, FORGED)
    assert list(next(iter(pulled.snapshots.values()))) == [FORGED.replace("\r\n", "\t")]


def test_s84_no_log_line_has_what_a_push_calls_things(hub: HubEnvironment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="musehub_plugin")
    hub.create_repo(REPO)
    history = History()
    tip = forged(history)
    alice = hub.caller("alice")
    assert alice.push(REPO, history.pack(), tip).status_code == 200
    assert alice.push(REPO, history.pack(), tip, branch=FORGED).status_code == 422
    with hub.session() as session:
        session.execute(delete(MusehubSnapshot))
        session.commit()
    # Damage is what is logged with most words.
    assert hub.caller().fetch(REPO, [tip]).status_code == 500
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("musehub_plugin")]
    assert lines
    assert not [line for line in lines if set(line) & {"\x1b", "\u202e", "\r", "\n", "\x07"}]


def test_s84_no_failing_statement_s_values_are_logged(hub: HubEnvironment, caplog: pytest.LogCaptureFixture) -> None:
    hub.create_repo(REPO)
    history = History()
    head = history.commit({"a.txt": b"a"}, message="the word that nobody else says")
    with hub.session() as session:
        # As where the tables are of another release than the code.
        session.execute(text("ALTER TABLE musehub_commit RENAME COLUMN author TO writer"))
        session.commit()
    try:
        assert hub.caller("alice").push(REPO, history.pack(), head).status_code in {500, 503}
    finally:
        with hub.session() as session:
            session.execute(text("ALTER TABLE musehub_commit RENAME COLUMN writer TO author"))
            session.commit()
    assert "author" in caplog.text
    assert "the word that" not in caplog.text


# S37


@effort(60, shared_fixtures=True, shrinks=False)
@given(body=st.binary(max_size=200), content_type=st.sampled_from([MSGPACK, JSON]))
def test_s37_no_body_makes_the_hub_fail(hub: HubEnvironment, body: bytes, content_type: str) -> None:
    if not hub.row_counts()["musehub_repo"]:
        hub.create_repo(REPO)
    alice = hub.caller("alice")
    for route in ("fetch", "negotiate", "push/presign", "push/unpack-mpack"):
        started = time.process_time()
        answer = alice.post_bytes(f"/{REPO}/{route}", body, content_type)
        assert answer.status_code in STATUSES
        assert time.process_time() - started < 1
