"""Hostile and mistaken requests on the released command's routes, and what the original did wrong with them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from musehub_plugin import ids
from musehub_plugin.models import MusehubRepo
from musehub_plugin.testing import make_commit
from musehub_plugin.testing.apps import BAD_TOKEN
from tests.effort import effort
from tests.environment import HubEnvironment, assert_same
from tests.exchange import JSON, MSGPACK, Caller
from tests.mwp.conftest import NewRemote
from tests.mwp.muse import Copy, Remote, sha256
from tests.shortage import full_disk

PRIVATE = "alice/secret"
MISSING = "alice/nothing"
R = sha256(b"nobody has this")
BODIES: dict[str, Any] = {
    "fetch": {"want": [R], "have": []},
    "negotiate": {"want": [R], "have": [R]},
    "filter-objects": {"object_ids": [R]},
    "presign": {"object_ids": [R], "direction": "put"},
    "push/objects": {"objects": []},
    "push": {"bundle": {"commits": [], "snapshots": [], "objects": []}, "branch": "main", "force": False},
}
READS = ("refs", "fetch", "negotiate")
WRITES = ("filter-objects", "presign", "push/objects", "push")
NESTED = ("push/objects", "push")


# What a body is found to be does not depend on the database or the storage behind.
ON_FILES = pytest.mark.parametrize("hub", ["sqlite+files"], indirect=True)


def ask(caller: Caller, repo: str, route: str, data: bytes | None = None, content_type: str = MSGPACK) -> TestResponse:
    """Send a request as the command does; the body is a good one unless `data` is another."""
    if route == "refs":
        return caller.get(f"/mwp/{repo}/refs")
    body = msgpack.packb(BODIES[route]) if data is None else data
    return caller.post_bytes(f"/mwp/{repo}/{route}", body, content_type)


def bundle(local: Copy, *commit_ids: str) -> dict[str, Any]:
    """Return a push of some commits with their snapshots and blobs."""
    snapshots = {local.commits[commit_id]["snapshot_id"] for commit_id in commit_ids}
    return {
        "commits": [local.commits[commit_id] for commit_id in commit_ids],
        "snapshots": [{"snapshot_id": item, "manifest": local.snapshots[item]} for item in sorted(snapshots)],
        "objects": [{"object_id": key, "content": content} for key, content in local.objects.items()],
    }


def push_body(local: Copy, *commit_ids: str, branch: Any = "main", **changes: Any) -> dict[str, Any]:
    """Return the body of a push; `changes` replace keys of its bundle."""
    return {"bundle": {**bundle(local, *commit_ids), **changes}, "branch": branch, "force": False}


@ON_FILES
def test_r25_a_full_disk_is_a_push_to_try_again(hub: HubEnvironment) -> None:
    hub.create_repo("alice/songs")
    local = Copy()
    head = local.commit({"a.txt": b"one"})
    body = msgpack.packb(push_body(local, head))
    with full_disk(10):
        answer = ask(hub.caller("alice"), "alice/songs", "push", body)
    assert (answer.status_code, answer.get_json()["code"]) == (503, "storage-unavailable")
    assert ask(hub.caller("alice"), "alice/songs", "push", body).status_code == 200


@pytest.mark.parametrize("user", [None, "bob"], ids=["anonymous", "without access"])
@pytest.mark.parametrize("route", ["refs", *BODIES])
def test_u01_a_private_repo_is_as_good_as_missing(hub: HubEnvironment, route: str, user: str | None) -> None:
    hub.create_repo(PRIVATE, visibility="private")
    caller = hub.caller(user)
    private = hub.observe(functools.partial(ask, caller, PRIVATE, route))
    assert_same(private, hub.observe(functools.partial(ask, caller, MISSING, route)))
    assert private.response.status_code == (401 if user is None and route in WRITES else 404)


@ON_FILES
@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81\xa4want", b"\xdd\xff\xff\xff\xff", bytes(100)])
@pytest.mark.parametrize("route", BODIES)
def test_s24_no_body_makes_a_difference_to_who_has_no_access(hub: HubEnvironment, route: str, data: bytes) -> None:
    hub.create_repo(PRIVATE, visibility="private")
    bob = hub.caller("bob")
    for content_type in (MSGPACK, "text/plain"):
        private = hub.observe(functools.partial(ask, bob, PRIVATE, route, data, content_type))
        assert_same(private, hub.observe(functools.partial(ask, bob, MISSING, route)))


@ON_FILES
@pytest.mark.parametrize("route", NESTED)
def test_s24_who_may_not_write_is_told_so_however_long_the_body(hub: HubEnvironment, route: str) -> None:
    hub.create_repo()
    hub.create_repo(PRIVATE, visibility="private")
    app = hub.make_app(MUSEHUB_MWP_MAX_BODY=100)
    for user, repo, status in ((None, PRIVATE, 401), ("bob", PRIVATE, 404), ("bob", "alice/songs", 403)):
        assert ask(Caller(app, user), repo, route, bytes(101)).status_code == status
    assert ask(Caller(app, "alice"), PRIVATE, route, bytes(101)).status_code == 413


@pytest.mark.parametrize("route", WRITES)
def test_u02_what_is_missing_is_told_to_who_may_write(hub: HubEnvironment, route: str) -> None:
    hub.create_repo()
    assert ask(hub.caller(), "alice/songs", route).status_code == 401
    assert ask(hub.caller("bob"), "alice/songs", route).status_code == 403
    assert ask(hub.caller(BAD_TOKEN), "alice/songs", route).status_code == 401


def test_u03_a_blob_that_does_not_hash_to_its_id_is_refused(hub: HubEnvironment, remote: Remote) -> None:
    rows, keys = hub.rows(), hub.stored_keys()
    sent = [{"object_id": sha256(b"good"), "content": b"good"}, {"object_id": R, "content": b"other bytes"}]
    answer = remote.ask("push/objects", {"objects": sent})
    assert answer.status == 422
    assert R.encode() in answer.data
    assert (hub.rows(), hub.stored_keys()) == (rows, keys)


def test_u05_empty_files_travel(remote: Remote) -> None:
    local = Copy()
    local.commit({"empty": b"", "also empty": b""})
    local.push(remote)
    assert Copy.clone(remote).files() == {"empty": b"", "also empty": b""}


def test_u06_a_fetch_above_one_parent_of_a_merge_sends_the_other_side_alone(remote: Remote) -> None:
    local = Copy()
    base = local.commit({"a": b"1", "b": b"2"})
    side = local.commit({"a": b"1", "b": b"side"}, [base], branch="side")
    ours = local.commit({"a": b"ours", "b": b"2"}, [base])
    merge = local.commit({"a": b"ours", "b": b"side"}, [ours, side])
    local.push(remote)
    answer = remote.get("fetch", {"want": [merge], "have": [ours]})
    assert {commit["commit_id"] for commit in answer["commits"]} == {side, merge}
    assert [sent["object_id"] for sent in answer["objects"]] == [sha256(b"side")]


NO_MSGPACK = {
    "empty": b"",
    "reserved": b"\xc1",
    "cut off": b"\x81\xa4want\x91",
    "a list": b"\x90",
    "text": b"want everything",
    "4 GiB of list": b"\xdd\xff\xff\xff\xff",
    "4 GiB of map": b"\xdf\xff\xff\xff\xff",
    "4 GiB of text": b"\x81\xdb\xff\xff\xff\xff",
    "4 GiB of bytes": b"\x81\xa7objects\x91\xc6\xff\xff\xff\xff",
    "deep": b"\x91" * 100_000,
    "deep objects": b"\x81\xa7objects" + b"\x91" * 2_000,
    "empty maps": b"\x81\xa7objects\xdd\x00\x01\x86\xa0" + b"\x80" * 100_000,
    "prealloc": b"\x81\xa7objects" + b"\xdc\xff\xff" * 24_000,
    "twice": b"\x82\xa7objects\x90\xa7objects\x90",
    "twice in the bundle": b"\x81\xa6bundle\x82\xa7commits\x90\xa7commits\x90",
    "bytes for a key": b"\x81\xc4\x07objects\x90",
    "number for a key": b"\x81\x01\x90",
    "more behind": b"\x81\xa7objects\x90\xc0",
    "extension": b"\x81\xa7objects\x91\xd4\x01\x00",
    "timestamp": b"\x81\xa7objects\x91\xd6\xff\x00\x00\x00\x00",
    "no UTF-8": b"\x81\xa2\xff\xfe\x90",
    "no UTF-8 in an object": b"\x81\xa7objects\x91\x81\xa9object_id\xa2\xff\xfe",
    "many keys": b"\xde\x01\x00" + b"".join(msgpack.packb(f"k{n}") + b"\xc0" for n in range(256)),
}


@ON_FILES
@pytest.mark.parametrize("name", NO_MSGPACK)
def test_u07_a_malformed_body_is_the_senders_fault(hub: HubEnvironment, name: str) -> None:
    hub.create_repo()
    rows, keys = hub.rows(), hub.stored_keys()
    alice = hub.caller("alice")
    for route in BODIES:
        answer = ask(alice, "alice/songs", route, NO_MSGPACK[name])
        assert answer.status_code in {400, 413, 422}, (route, answer.get_data(as_text=True))
        assert answer.content_type == JSON
        assert isinstance(answer.get_json()["detail"], str)
        assert len(answer.data) <= 600
    assert (hub.rows(), hub.stored_keys()) == (rows, keys)


@ON_FILES
@effort(60, shared_fixtures=True)
@given(data=st.binary(max_size=300), route=st.sampled_from(NESTED))
def test_s37_no_bytes_make_a_500(hub: HubEnvironment, data: bytes, route: str) -> None:
    if hub.row_counts()["musehub_repo"] == 0:
        hub.create_repo()
    assert ask(hub.caller("alice"), "alice/songs", route, data).status_code in {200, 400, 413, 422}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["bundle", "branch", "force", "commits", "snapshots", "objects", "manifest", "snapshot_id"])


@ON_FILES
@effort(60, shared_fixtures=True)
@given(body=st.dictionaries(KEYS, VALUES, max_size=4), inner=st.dictionaries(KEYS, VALUES, max_size=3))
def test_s37_no_values_make_a_500(hub: HubEnvironment, body: dict[str, Any], inner: dict[str, Any]) -> None:
    if hub.row_counts()["musehub_repo"] == 0:
        hub.create_repo()
    data = msgpack.packb({"bundle": {"commits": [inner], "snapshots": [inner], **body}, "branch": "main", **body})
    assert ask(hub.caller("alice"), "alice/songs", "push", data).status_code in {400, 413, 422}


def test_u08_a_client_may_name_every_commit_that_it_has(remote: Remote) -> None:
    local = Copy()
    tip = local.commit({"a": b"1"})
    local.push(remote)
    have = [sha256(b"%d" % number) for number in range(120_000)]
    answer = remote.get("fetch", {"want": [tip], "have": have})
    assert [commit["commit_id"] for commit in answer["commits"]] == [tip]


@ON_FILES
def test_s60_more_ids_than_are_read_is_413(hub: HubEnvironment) -> None:
    hub.create_repo()
    alice = Caller(hub.make_app(MUSEHUB_MWP_MAX_IDS=10), "alice")
    for route, key in (("fetch", "have"), ("filter-objects", "object_ids")):
        answer = ask(alice, "alice/songs", route, msgpack.packb({"want": [R], key: [R] * 11}))
        assert answer.status_code == 413
        assert answer.get_json()["limit"] == 10


@ON_FILES
def test_u08_as_many_ids_as_are_read_fit_whatever_the_limit_of_other_bodies(hub: HubEnvironment) -> None:
    hub.create_repo()
    alice = Caller(hub.make_app(MUSEHUB_MWP_MAX_IDS=10, MUSEHUB_MAX_BODY=100), "alice")
    assert ask(alice, "alice/songs", "filter-objects", msgpack.packb({"object_ids": [R] * 10})).status_code == 200


def test_u09_a_blob_that_is_nowhere_is_503_and_not_left_out(hub: HubEnvironment, remote: Remote) -> None:
    with hub.session() as session:
        repo_id = session.execute(select(MusehubRepo.repo_id)).scalar_one()
        tip = make_commit(session, repo_id, {"gone": ids.blob_id(b"nowhere"), "there": b"here"}, branch="main")
    answer = remote.ask("fetch", {"want": [ids.to_hex(tip)], "have": []})
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0


@ON_FILES
@pytest.mark.parametrize(
    "wrong",
    [R + "\n", " " + R, R[1:], R + "0", R.upper(), "sha256:" + R, "", "0x" + R[2:], R[:-1] + "\u0663", b"0" * 64, None],
    ids=repr,
)
def test_u10_what_is_not_exactly_an_id_is_422(hub: HubEnvironment, wrong: Any) -> None:
    hub.create_repo()
    alice = hub.caller("alice")
    local = Copy()
    tip = local.commit({"a": b"1"})
    bodies: list[tuple[str, Any]] = [
        ("fetch", {"want": [wrong]}),
        ("fetch", {"want": [R], "have": [wrong]}),
        ("negotiate", {"want": [R], "have": [wrong]}),
        ("filter-objects", {"object_ids": [wrong]}),
        ("presign", {"object_ids": [wrong]}),
        ("push/objects", {"objects": [{"object_id": wrong, "content": b""}]}),
        ("push", push_body(local, tip, commits=[{**local.commits[tip], "commit_id": wrong}])),
        ("push", push_body(local, tip, snapshots=[{"snapshot_id": wrong, "manifest": {}}])),
        ("push", push_body(local, tip, snapshots=[{"snapshot_id": R, "manifest": {"a": wrong}}])),
    ]
    for route, body in bodies:
        answer = ask(alice, "alice/songs", route, msgpack.packb(body))
        assert answer.status_code == 422, (route, answer.get_data(as_text=True))


@ON_FILES
@pytest.mark.parametrize("date", ["", "yesterday", "2026-13-01T00:00:00+00:00", "0000-00-00", "2026-03-01T12:00:00\0"])
def test_u11_a_date_that_is_none_is_422(remote: Remote, date: str) -> None:
    local = Copy()
    tip = local.commit({"a": b"1"})
    commit = {**local.commits[tip], "committed_at": date}
    joined = "\0".join(["", commit["snapshot_id"], commit["message"], date])
    commit["commit_id"] = sha256(joined.encode())
    answer = remote.ask("push", push_body(local, tip, commits=[commit]))
    assert answer.status == 422


@ON_FILES
@pytest.mark.parametrize("date", ["2026-03-01T12:00:00.100000+02:00", "2026-03-01T12:00:00", "2026-03-01"])
def test_u11_the_text_of_a_date_is_kept(remote: Remote, date: str) -> None:
    local = Copy()
    tip = local.commit({"a": b"1"})
    commit = {**local.commits[tip], "committed_at": date}
    commit["commit_id"] = sha256("\0".join(["", commit["snapshot_id"], commit["message"], date]).encode())
    remote.get("push", push_body(local, tip, commits=[commit]))
    (found,) = Copy.clone(remote).commits.values()
    assert (found["commit_id"], found["committed_at"]) == (commit["commit_id"], date)


@pytest.mark.parametrize("route", ["refs", *BODIES])
def test_u12_a_deleted_repo_is_as_good_as_missing(hub: HubEnvironment, route: str) -> None:
    repo_id = hub.create_repo()
    with hub.session() as session:
        deleted = update(MusehubRepo).where(MusehubRepo.repo_id == repo_id)
        session.execute(deleted.values(deleted_at=MusehubRepo.created_at))
        session.commit()
    alice = hub.caller("alice")
    seen = hub.observe(functools.partial(ask, alice, "alice/songs", route))
    assert_same(seen, hub.observe(functools.partial(ask, alice, MISSING, route)))
    assert seen.response.status_code == 404


def test_c16_an_empty_want_is_422(remote: Remote) -> None:
    bodies: list[dict[str, Any]] = [{"want": [], "have": []}, {"have": []}, {"want": None}, {"want": R}]
    for body in bodies:
        assert remote.ask("fetch", body).status == 422


def test_c17_an_unknown_want_is_404(hub: HubEnvironment, remote: Remote, new_remote: NewRemote) -> None:
    local = Copy()
    tip = local.commit({"a": b"1"})
    local.push(new_remote("alice/secret", new=True, visibility="private"))
    foreign = hub.observe(lambda: ask(hub.caller(), "alice/songs", "fetch", msgpack.packb({"want": [tip]})))
    assert_same(foreign, hub.observe(lambda: ask(hub.caller(), "alice/songs", "fetch")))
    assert foreign.response.status_code == 404


@ON_FILES
@pytest.mark.parametrize("route", NESTED)
def test_s50_blobs_come_in_msgpack_alone(hub: HubEnvironment, route: str) -> None:
    hub.create_repo()
    alice = hub.caller("alice")
    assert alice.post(f"/mwp/alice/songs/{route}", {"objects": []}).status_code == 415
    for content_type in ("", "text/plain", "multipart/form-data"):
        assert ask(alice, "alice/songs", route, None, content_type).status_code == 415


@ON_FILES
@pytest.mark.parametrize("route", BODIES)
def test_s49_a_compressed_body_is_415(hub: HubEnvironment, route: str) -> None:
    hub.create_repo()
    alice = hub.caller("alice")
    answer = alice.post_bytes(f"/mwp/alice/songs/{route}", b"\x1f\x8b", MSGPACK, **{"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@ON_FILES
@pytest.mark.parametrize("route", NESTED)
def test_s47_a_body_past_the_limit_is_413(hub: HubEnvironment, route: str) -> None:
    hub.create_repo()
    alice = Caller(hub.make_app(MUSEHUB_MWP_MAX_BODY=1000), "alice")
    answer = ask(alice, "alice/songs", route, bytes(1001))
    assert answer.status_code == 413
    assert answer.get_json()["limit"] == 1000


@ON_FILES
def test_more_than_the_command_reads_is_413_and_names_musehub(hub: HubEnvironment, new_remote: NewRemote) -> None:
    repo_id = hub.create_repo()
    with hub.session() as session:
        large = {"large": bytes(64 * 1024 * 1024)}
        tip = make_commit(session, repo_id, large, branch="main", storage=hub.storage, in_row=False)
    seen = hub.observe(lambda: ask(hub.caller(), "alice/songs", "fetch", msgpack.packb({"want": [ids.to_hex(tip)]})))
    assert seen.response.status_code == 413
    assert seen.storage_calls == ()
    problem = seen.response.get_json()
    assert "musehub clone https://HUB/alice/songs" in problem["detail"]
    assert (problem["code"], problem["limit"]) == ("answer-too-large", 64 * 1024 * 1024)


def change_commit(**changes: Any) -> Callable[[Copy, str], dict[str, Any]]:
    """Return what makes a push whose one commit has other fields."""
    return lambda local, tip: push_body(local, tip, commits=[{**local.commits[tip], **changes}])


WRONG_PUSHES: dict[str, Callable[[Copy, str], dict[str, Any]]] = {
    "no bundle": lambda local, tip: {"branch": "main"},
    "a list for a bundle": lambda local, tip: {"branch": "main", "bundle": []},
    "no branch": lambda local, tip: {"bundle": bundle(local, tip)},
    "a branch of bytes": lambda local, tip: push_body(local, tip, branch=b"main"),
    "C32 dots": lambda local, tip: push_body(local, tip, branch="a..b"),
    "C32 NUL": lambda local, tip: push_body(local, tip, branch="a\0b"),
    "C32 empty": lambda local, tip: push_body(local, tip, branch=""),
    "C32 slash": lambda local, tip: push_body(local, tip, branch="/a"),
    "C32 long": lambda local, tip: push_body(local, tip, branch="b" * 256),
    "force as text": lambda local, tip: {**push_body(local, tip), "force": "yes"},
    "no commits": lambda local, tip: push_body(local, tip, commits=[]),
    "a commit that is a list": lambda local, tip: push_body(local, tip, commits=[[]]),
    "a message of bytes": change_commit(message=b"A commit"),
    "another message": change_commit(message="another"),
    "another parent": change_commit(parent_commit_id=R),
    "no message": change_commit(message=None),
    "an author of bytes": change_commit(author=b"Ada"),
    "S11 NUL in an author": change_commit(author="a\0b"),
    "parents of the other protocol": change_commit(parent_ids=["sha256:" + R]),
    "another snapshot's manifest": lambda local, tip: push_body(
        local, tip, snapshots=[{"snapshot_id": local.commits[tip]["snapshot_id"], "manifest": {}}]
    ),
    "no snapshot": lambda local, tip: push_body(local, tip, snapshots=[]),
    "no blob": lambda local, tip: push_body(local, tip, objects=[]),
    "another blob": lambda local, tip: push_body(
        local, tip, objects=[{"object_id": sha256(b"1"), "content": b"other"}]
    ),
    "two tips": lambda local, tip: push_body(local, tip, local.commit({"b": b"1"}, [], branch="other")),
    "one commit twice": lambda local, tip: push_body(
        local, tip, commits=[local.commits[tip], {**local.commits[tip], "author": "Mallory"}]
    ),
}


@ON_FILES
@pytest.mark.parametrize("name", WRONG_PUSHES)
def test_a_wrong_push_is_422_and_leaves_nothing(hub: HubEnvironment, remote: Remote, name: str) -> None:
    rows, keys = hub.rows(), hub.stored_keys()
    local = Copy()
    tip = local.commit({"a": b"1"})
    answer = remote.ask("push", WRONG_PUSHES[name](local, tip))
    assert answer.status == 422, answer.data
    assert (hub.rows(), hub.stored_keys()) == (rows, keys)


UNSAFE_PATHS = ("../x", "/x", "a//b", ".", "", "a\\b", "a\0b", "a\nb", ".muse/x", "a/.MUSE", "p" * 4097)


@ON_FILES
@pytest.mark.parametrize("path", UNSAFE_PATHS, ids=lambda path: f"{path!r:.20}")
def test_s79_a_path_that_no_client_could_restore_is_422(remote: Remote, path: str) -> None:
    local = Copy()
    tip = local.commit({path: b"1"})
    answer = remote.ask("push", push_body(local, tip))
    assert answer.status == 422
    assert b"unsafe-path" in answer.data


@ON_FILES
def test_s42_more_values_than_are_held_is_413(remote: Remote) -> None:
    local = Copy()
    tips = [local.commit({"a": b"1"}, structured_delta={"ops": [0] * 90_000}) for _ in range(40)]
    answer = remote.ask("push", push_body(local, *tips))
    assert answer.status == 413


@ON_FILES
def test_s40_a_commit_that_is_nested_too_deep_is_422(remote: Remote) -> None:
    nested: Any = None
    for _ in range(40):
        nested = [nested]
    local = Copy()
    tip = local.commit({"a": b"1"}, structured_delta=nested)
    assert remote.ask("push", push_body(local, tip)).status == 422


@ON_FILES
@pytest.mark.parametrize("route", ["refs", *BODIES])
def test_c24_an_error_is_short_json_with_its_detail_first(hub: HubEnvironment, remote: Remote, route: str) -> None:
    answer = Remote(remote.url.replace("songs", "nothing"), "alice").ask(route, BODIES.get(route))
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.data.startswith(b'{"detail":"There is no such repo')
    assert len(answer.data) <= 400


@ON_FILES
def test_c31_presigning_a_download_is_refused(remote: Remote) -> None:
    assert remote.ask("presign", {"object_ids": [R], "direction": "get"}).status == 422


@ON_FILES
def test_s26_an_untidy_path_is_no_redirect(hub: HubEnvironment) -> None:
    hub.create_repo()
    for path in ("/mwp/alice//songs/refs", "/mwp//alice/songs/refs", "/mwp/alice/songs/refs/"):
        assert hub.caller("alice").get(path).status_code == 404
