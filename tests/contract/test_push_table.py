"""The contract's section 3: the exchange of a push, and its table row by row (P01 to P10, in the table's order)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, update
from werkzeug.test import TestResponse

from musehub_plugin import ids
from musehub_plugin.mpack import build_wire_mpack, parse_wire_mpack
from musehub_plugin.store.models import MusehubJob
from musehub_plugin.testing import History
from musehub_plugin.testing.apps import BAD_TOKEN, run_jobs
from tests.environment import HubEnvironment, Observed, assert_same
from tests.exchange import Caller

REPO = "alice/songs"
# A ticket is a row, and asking for one is not what these tests ask about.
TICKETS = ("musehub_upload",)


def base_of(hub: HubEnvironment) -> tuple[History, str]:
    """Make the repo with one commit on main."""
    hub.create_repo(REPO)
    history = History()
    base = history.commit({"a.txt": b"base"})
    assert hub.caller("alice").push(REPO, history.pack(), base).status_code == 200
    return history, base


class Unchanged:
    """Asserts that what happens within changes no row but tickets, and nothing that object storage keeps."""

    def __init__(self, hub: HubEnvironment) -> None:
        self._hub = hub

    def _state(self) -> tuple[object, object]:
        rows = {name: rows for name, rows in self._hub.rows().items() if name not in TICKETS}
        return rows, {key for key in self._hub.stored_keys() if not key.startswith("uploads/")}

    def __enter__(self) -> None:
        self._before = self._state()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            assert self._state() == self._before


# The exchange


def test_presign_says_where_how_and_until_when_to_upload(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    body = hub.caller("alice").presign(REPO, b"a pack to be").get_json()
    assert body["uploaded"] is False
    assert body["upload_url"].startswith(("http://", "https://"))
    assert body["method"] == "PUT"
    assert isinstance(body["headers"], dict)
    assert datetime.fromisoformat(body["expires_at"]) > datetime.now(UTC)


def test_presign_says_uploaded_where_the_repo_holds_the_mpack(hub: HubEnvironment) -> None:
    history, _ = base_of(hub)
    assert hub.caller("alice").presign(REPO, history.pack()).get_json() == {"uploaded": True}


@pytest.mark.parametrize(
    ("state", "uploaded"),
    [("pending", True), ("running", True), ("done", True), ("failed", False), ("forgotten", True)],
)
def test_presign_asks_again_for_a_mpack_that_could_not_be_indexed_and_for_no_other(
    hub: HubEnvironment, state: str, *, uploaded: bool
) -> None:
    history, _ = base_of(hub)
    with hub.session() as session:
        session.execute(delete(MusehubJob) if state == "forgotten" else update(MusehubJob).values(state=state))
        session.commit()
    assert hub.caller("alice").presign(REPO, history.pack()).get_json()["uploaded"] is uploaded


def test_presign_asks_for_the_upload_where_only_another_repo_holds_the_mpack(hub: HubEnvironment) -> None:
    history, _ = base_of(hub)
    hub.create_repo("bob/tunes")
    assert hub.caller("bob").presign("bob/tunes", history.pack()).get_json()["uploaded"] is False


def test_unpacking_answers_with_heads_counts_and_the_job(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    tip = history.commit({"a.txt": b"tip", "b.txt": b"more"}, [base])
    answer = hub.caller("alice").push(REPO, history.pack(have=[base]), tip, branch="dev")
    assert answer.status_code == 200
    body = answer.get_json()
    assert isinstance(body["index_job"], str)
    assert body["branch_heads"] == {"dev": tip, "main": base}
    assert (body["commit_count"], body["snapshot_count"], body["blob_count"]) == (1, 1, 2)


def test_a_mpack_that_was_never_uploaded_cannot_be_unpacked(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({"a": b"1"})
    pack = history.pack()
    alice = hub.caller("alice")
    alice.presign(REPO, pack)
    with Unchanged(hub):
        assert alice.unpack(REPO, ids.blob_id(pack), tip).status_code == 404


def test_further_fields_of_a_commit_survive_push_and_fetch_unchanged(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit(
        {"a": b"1"},
        signature="ed25519:AAAA",
        agent={"model": "m-1", "nested": {"list": [1, 2.5, None, True, "x", b"\x00\xff"]}},
        structured_delta={"ops": [{"op": "insert", "at": -(2**63)}, {"op": "delete", "at": 2**64 - 1}]},
        breaking_changes=[],
        empty={},
    )
    assert hub.caller("alice").push(REPO, history.pack(), tip).status_code == 200
    assert hub.caller().pull(REPO, [tip]).commits == history.commits


def test_a_commit_whose_id_hashes_the_author_is_accepted(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({"a": b"1"}, author="Bob", hashed="author")
    assert hub.caller("alice").push(REPO, history.pack(), tip).status_code == 200
    assert hub.caller().pull(REPO, [tip]).commits == history.commits


def test_dates_come_back_as_the_text_that_was_hashed(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    dates = ["2026-01-02T03:04:05Z", "2026-01-02 03:04:05+05:30", "2026-01-02", "20260102T030405.120-0800"]
    tips = [history.commit({"a": b"1"}, committed_at=date) for date in dates]
    alice = hub.caller("alice")
    assert alice.push(REPO, history.pack(), tips[-1]).status_code == 200
    assert alice.pull(REPO, tips).commits == history.commits


def test_build_and_parse_are_inverse() -> None:
    history = History()
    history.commit({"a": b"1", "b": b""}, [history.commit({})], signature="x")
    pack = history.pack()
    assert build_wire_mpack(**parse_wire_mpack(pack)) == pack


# P01


def forked(history: History, base: str) -> tuple[str, str, bytes]:
    """Add two children of `base`; return both, and a pack of the second alone."""
    one, two = history.commit({"a.txt": b"one"}, [base]), history.commit({"a.txt": b"two"}, [base])
    return one, two, history.pack(want=[two], have=[base])


def assert_refused(answer: TestResponse, heads: dict[str, str]) -> None:
    assert answer.status_code == 409
    assert answer.get_json()["branch_heads"] == heads


def test_p01_a_push_that_is_no_fast_forward_is_409_and_changes_nothing(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    one, two, pack = forked(history, base)
    alice = hub.caller("alice")
    assert alice.push(REPO, history.pack(want=[one], have=[base]), one).status_code == 200
    with Unchanged(hub):
        assert_refused(alice.push(REPO, pack, two), {"main": one})
        assert_refused(alice.push(REPO, pack, two, expected_head=one), {"main": one})
    assert alice.fetch(REPO, [two]).status_code == 404


def test_p01_a_stale_expected_head_is_409_and_changes_nothing(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    one, _, _ = forked(history, base)
    top = history.commit({"a.txt": b"top"}, [one])
    alice = hub.caller("alice")
    alice.push(REPO, history.pack(want=[one], have=[base]), one)
    with Unchanged(hub):
        answer = alice.push(REPO, history.pack(want=[top], have=[one]), top, expected_head=base)
        assert_refused(answer, {"main": one})


def test_p01_an_expected_head_of_a_branch_that_is_not_there_is_409(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    top = history.commit({"a.txt": b"top"}, [base])
    with Unchanged(hub):
        answer = hub.caller("alice").push(REPO, history.pack(have=[base]), top, branch="new", expected_head=base)
        assert_refused(answer, {"main": base})


def test_p01_force_moves_a_branch_to_another_line(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    one, two, pack = forked(history, base)
    alice = hub.caller("alice")
    alice.push(REPO, history.pack(want=[one], have=[base]), one)
    answer = alice.push(REPO, pack, two, expected_head=one, force=True)
    assert answer.status_code == 200
    assert answer.get_json()["branch_heads"] == {"main": two}


def test_p01_force_does_not_excuse_a_stale_expected_head(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    one, two, pack = forked(history, base)
    alice = hub.caller("alice")
    alice.push(REPO, history.pack(want=[one], have=[base]), one)
    with Unchanged(hub):
        assert_refused(alice.push(REPO, pack, two, expected_head=base, force=True), {"main": one})


def test_p01_a_merge_of_the_head_is_a_fast_forward(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    one, two, _ = forked(history, base)
    merge = history.commit({"a.txt": b"both"}, [two, one])
    alice = hub.caller("alice")
    alice.push(REPO, history.pack(want=[one], have=[base]), one)
    assert alice.push(REPO, history.pack(want=[merge], have=[one]), merge).status_code == 200


# P02


def test_p02_uploaded_bytes_that_do_not_hash_to_the_mpack_id_are_422(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    tip, other = history.commit({"a.txt": b"tip"}, [base]), history.commit({"a.txt": b"not it"}, [base])
    pack, wrong = history.pack(want=[tip], have=[base]), history.pack(want=[other], have=[base])
    alice = hub.caller("alice")
    ticket = alice.presign(REPO, pack).get_json()
    hub.replace_upload(ticket["upload_url"], wrong)
    with Unchanged(hub):
        answer = alice.unpack(REPO, ids.blob_id(pack), tip)
        assert answer.status_code == 422
        assert ids.blob_id(pack) in answer.get_json()["detail"]


def test_p02_bytes_that_are_no_mpack_are_422(hub: HubEnvironment) -> None:
    _, base = base_of(hub)
    for pack in (b"", b"no mpack at all", b"\x8dMPK1\r\n\x1a" + bytes(100)):
        with Unchanged(hub):
            assert hub.caller("alice").push(REPO, pack, base, branch="x").status_code == 422


@pytest.mark.parametrize("kind", ["commit", "snapshot", "blob"])
def test_p02_an_entity_that_does_not_hash_to_its_id_is_422_and_named(hub: HubEnvironment, kind: str) -> None:
    history, base = base_of(hub)
    tip = history.commit({"a.txt": b"tip"}, [base])
    parts = parse_wire_mpack(history.pack(want=[tip], have=[base]))
    false_id = ids.fake_id("a lie")
    if kind == "commit":
        parts["commits"][0]["commit_id"] = tip = false_id
    elif kind == "snapshot":
        parts["snapshots"][0]["snapshot_id"] = parts["commits"][0]["snapshot_id"] = false_id
    else:
        false_id = ids.blob_id(b"tip")
        parts["blobs"][0]["content"] = b"something else"
    with Unchanged(hub):
        answer = hub.caller("alice").push(REPO, build_wire_mpack(**parts), tip)
        assert answer.status_code == 422
        assert false_id in answer.get_json()["detail"]


# P03


@pytest.mark.parametrize("kind", ["commit", "snapshot", "blob"])
def test_p03_a_reference_to_what_the_repo_lacks_is_422_and_the_same_wherever_it_is(
    hub: HubEnvironment, kind: str
) -> None:
    history = History()
    parent = history.commit({"a.txt": b"elsewhere"})
    parent_tree = history.commits[parent]["snapshot_id"]
    missing = {"commit": parent, "snapshot": parent_tree, "blob": ids.blob_id(b"elsewhere")}[kind]
    tip = history.commit(parent_tree, [parent])
    pack = history.pack(leave_out=[missing])
    hub.create_repo(REPO)
    hub.create_repo("alice/other")
    hub.create_repo("bob/private", visibility="private")
    alice = hub.caller("alice")

    def refused(repo: str) -> Observed:
        ticket = alice.presign(repo, pack).get_json()
        assert alice.upload(ticket, pack) == 200
        with Unchanged(hub):
            observed = hub.observe(functools.partial(alice.unpack, repo, ids.blob_id(pack), tip))
        assert observed.response.status_code == 422
        assert missing in observed.response.get_json()["detail"]
        return observed

    nowhere = refused(REPO)
    assert hub.caller("bob").push("bob/private", history.pack(), tip).status_code == 200
    elsewhere = refused("alice/other")
    assert_same(nowhere, elsewhere)


def test_p03_a_reference_to_what_the_repo_holds_is_accepted(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    tip = history.commit({"renamed.txt": ids.blob_id(b"base")}, [base])
    again = history.commit(history.commits[base]["snapshot_id"], [tip])
    pack = history.pack(want=[again], have=[base])
    assert parse_wire_mpack(pack)["blobs"] == []
    assert hub.caller("alice").push(REPO, pack, again).status_code == 200
    assert hub.caller().pull(REPO, [again]).commits == history.commits


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("branch", ["main", "new"])
def test_p03_a_head_that_is_nowhere_is_422_although_the_repo_holds_the_mpack(
    hub: HubEnvironment, branch: str, *, force: bool
) -> None:
    history, _ = base_of(hub)
    pack_id = ids.blob_id(history.pack())
    with Unchanged(hub):
        answer = hub.caller("alice").unpack(REPO, pack_id, ids.fake_id("nowhere"), branch=branch, force=force)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "missing-commit")


def test_p03_a_head_that_is_nowhere_is_422(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    history.commit({"a.txt": b"tip"}, [base])
    unknown = ids.fake_id("nobody's head")
    with Unchanged(hub):
        answer = hub.caller("alice").push(REPO, history.pack(have=[base]), unknown)
        assert answer.status_code == 422
        assert unknown in answer.get_json()["detail"]


# P04 to P06


def ask_presign(caller: Caller, repo: str) -> TestResponse:
    return caller.presign(repo, b"a pack to be")


def ask_unpack(caller: Caller, repo: str) -> TestResponse:
    return caller.unpack(repo, ids.fake_id("a pack"), ids.fake_id("a head"))


writes = pytest.mark.parametrize("write", [ask_presign, ask_unpack])
Write = Callable[[Caller, str], TestResponse]


@writes
@pytest.mark.parametrize("user", [None, BAD_TOKEN], ids=["anonymous", "bad credentials"])
def test_p04_who_has_no_credentials_gets_one_401_with_a_challenge_for_every_repo(
    hub: HubEnvironment, write: Write, user: str | None
) -> None:
    hub.create_repo("alice/public")
    hub.create_repo("alice/private", visibility="private")
    caller = hub.caller(user)
    repos = ("alice/public", "alice/private", "alice/nothing", "nobody/nothing")
    answers = [hub.observe(functools.partial(write, caller, repo)) for repo in repos]
    for answer in answers:
        assert answer.response.status_code == 401
        assert answer.response.headers["WWW-Authenticate"].startswith("Bearer")
        assert_same(answer, answers[0])


@writes
def test_p05_who_may_read_but_not_write_gets_403(hub: HubEnvironment, write: Write) -> None:
    hub.create_repo(REPO)
    with Unchanged(hub):
        assert write(hub.caller("bob"), REPO).status_code == 403


@writes
def test_p06_who_may_not_read_gets_the_404_of_a_missing_repo(hub: HubEnvironment, write: Write) -> None:
    hub.create_repo(REPO, visibility="private")
    bob = hub.caller("bob")
    private = hub.observe(lambda: write(bob, REPO))
    assert private.response.status_code == 404
    assert_same(private, hub.observe(lambda: write(bob, "alice/nothing")))


# P07 and P08


BAD_BRANCHES = [
    "",
    "-x",
    "HEAD",
    "a..b",
    "a b",
    "a~b",
    "a^b",
    "a:b",
    "a?b",
    "a*b",
    "a[b",
    "a\\b",
    "a\x00b",
    "a\nb",
    "a\x1fb",
    "a\x7fb",
    "/a",
    "a/",
    "a//b",
    ".a",
    "a/.b",
    "a.",
    "a.lock",
    "a.lock/b",
    "a@{b",
    "a" * 256,
    "\xe9" * 128,
]


def test_p07_a_bad_branch_name_is_422(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    alice, mpack_id = hub.caller("alice"), ids.blob_id(history.pack())
    with Unchanged(hub):
        for branch in BAD_BRANCHES:
            answer = alice.unpack(REPO, mpack_id, base, branch=branch)
            assert answer.status_code == 422, branch
            assert "branch" in answer.get_json()["detail"]


def test_p07_a_good_branch_name_is_accepted(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    for branch in ("feature/x", "a" * 255, "\xe9" * 127, "a@b", "@", "x-"):
        assert hub.caller("alice").push(REPO, history.pack(), base, branch=branch).status_code == 200, branch
        assert hub.caller().refs(REPO).get_json()["branch_heads"][branch] == base


def test_p08_a_path_that_no_client_could_restore_safely_is_422_and_named(hub: HubEnvironment) -> None:
    _, base = base_of(hub)
    history = History()
    tip = history.commit({"fine.txt": b"1", "../escapes.txt": b"2"}, [base])
    with Unchanged(hub):
        answer = hub.caller("alice").push(REPO, history.pack(), tip)
        assert answer.status_code == 422
        assert answer.get_json()["path"] == "../escapes.txt"
        assert "'../escapes.txt'" in answer.get_json()["detail"]


# P09 and P10


def test_p09_the_same_push_twice_is_200_twice_and_a_no_op_the_second_time(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    tip = history.commit({"a.txt": b"tip"}, [base])
    pack = history.pack(want=[tip], have=[base])
    alice = hub.caller("alice")
    first = alice.push(REPO, pack, tip, expected_head=base)
    assert first.status_code == 200
    with Unchanged(hub):
        second = alice.push(REPO, pack, tip, expected_head=base)
    assert second.status_code == 200
    fields = ("branch_heads", "commit_count", "snapshot_count", "blob_count", "index_job")
    assert {name: second.get_json()[name] for name in fields} == {name: first.get_json()[name] for name in fields}


def test_p09_the_same_entities_in_another_mpack_are_a_no_op_for_history(hub: HubEnvironment) -> None:
    history, base = base_of(hub)
    tip = history.commit({"a.txt": b"tip"}, [base])
    alice = hub.caller("alice")
    assert alice.push(REPO, history.pack(want=[tip], have=[base]), tip).status_code == 200
    assert alice.push(REPO, history.pack(), tip).status_code == 200
    assert alice.pull(REPO, [tip]).commits == history.commits


def test_p10_a_push_stands_while_the_queue_is_down_and_is_indexed_later(
    hub: HubEnvironment, musehub_redis_url: str
) -> None:
    hub.create_repo(REPO)
    history = History()
    tip = history.commit({"a.txt": b"tip"})
    # Nothing listens on the discard port.
    down = Caller(hub.make_app(MUSEHUB_REDIS_URL="redis://127.0.0.1:9/0"), "alice")
    assert down.push(REPO, history.pack(), tip).status_code == 200
    assert down.refs(REPO).get_json()["branch_heads"] == {"main": tip}
    assert down.fetch(REPO, [tip]).status_code == 503
    up = hub.make_app(MUSEHUB_REDIS_URL=musehub_redis_url)
    assert run_jobs(up) == 1
    assert Caller(up).pull(REPO, [tip]).blobs == history.blobs


def test_a_push_that_brings_what_is_there_as_well_is_a_fast_forward(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    first = history.commit({"a.txt": b"one"})
    alice = hub.caller("alice")
    assert alice.push(REPO, history.pack(), first).status_code == 200
    second = history.commit({"a.txt": b"two"}, [first])
    assert alice.push(REPO, history.pack(), second, expected_head=first).status_code == 200
