"""Attacks on what one repo holds by way of another: S01 to S20, through HTTP.

`X` is a commit that only another repo holds, `R` an id that nobody holds: the two must look the same from outside.
"""

from __future__ import annotations

import functools
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, update

from musehub_plugin import Identity, ids
from musehub_plugin.models import (
    MusehubCommitRef,
    MusehubMPackIndex,
    MusehubObject,
    MusehubObjectRef,
    MusehubRepo,
    MusehubSnapshotRef,
)
from musehub_plugin.mpack import build_wire_mpack, parse_wire_mpack
from musehub_plugin.store import contents
from musehub_plugin.store.models import MusehubUpload
from musehub_plugin.testing import History
from musehub_plugin.testing.apps import hub_of
from tests.effort import effort
from tests.environment import HubEnvironment, Observed, assert_same

OPEN = "alice/open"
SECRET = "bob/secret"
R = ids.fake_id("nobody has this")


class Stage:
    """Alice's public repo with one commit, and Bob's private one, whose tip X is a child of the same commit."""

    def __init__(self, hub: HubEnvironment, visibility: str = "private") -> None:
        self.open_id = hub.create_repo(OPEN)
        self.secret_id = hub.create_repo(SECRET, visibility=visibility)
        self.history = History()
        self.shared = self.history.commit({"shared.txt": b"shared"})
        self.x = self.history.commit({"shared.txt": b"shared", "secret.txt": b"the secret"}, [self.shared])
        self.alice, self.bob = hub.caller("alice"), hub.caller("bob")
        assert self.alice.push(OPEN, self.history.pack(want=[self.shared]), self.shared).status_code == 200
        self.secret_pack = self.history.pack()
        assert self.bob.push(SECRET, self.secret_pack, self.x).status_code == 200


def held(hub: HubEnvironment, repo_id: str) -> dict[str, int]:
    """Return how many commits, snapshots and blobs a repo holds."""
    with hub.session() as session:
        return {
            model.__tablename__: session.execute(
                select(func.count()).select_from(model).where(model.repo_id == repo_id)
            ).scalar_one()
            for model in (MusehubCommitRef, MusehubSnapshotRef, MusehubObjectRef)
        }


@pytest.mark.parametrize("user", [None, "alice", "carol"])
def test_s01_a_want_that_a_private_repo_holds_is_as_good_as_unknown(hub: HubEnvironment, user: str | None) -> None:
    stage, caller = Stage(hub), hub.caller(user)
    observed = hub.observe(lambda: caller.fetch(OPEN, [stage.x]))
    assert observed.response.status_code == 404
    assert_same(observed, hub.observe(lambda: caller.fetch(OPEN, [R])))


def test_s02_a_want_that_another_public_repo_holds_is_as_good_as_unknown(hub: HubEnvironment) -> None:
    stage, caller = Stage(hub, "public"), hub.caller()
    observed = hub.observe(lambda: caller.fetch(OPEN, [stage.x]))
    assert observed.response.status_code == 404
    assert_same(observed, hub.observe(lambda: caller.fetch(OPEN, [R])))


def test_s03_one_foreign_want_fails_the_whole_request_and_stores_nothing(hub: HubEnvironment) -> None:
    stage, caller = Stage(hub), hub.caller()
    before = hub.stored_keys(), hub.row_counts()
    for want in ([stage.shared, stage.x], [stage.x, stage.shared]):
        observed = hub.observe(functools.partial(caller.fetch, OPEN, want))
        assert observed.response.status_code == 404
        assert observed.storage_calls == ()
    assert (hub.stored_keys(), hub.row_counts()) == before


def refused_alike(hub: HubEnvironment, history: History, tip: str, missing: str) -> None:
    """Push to a repo what lacks `missing`: before any repo holds that, and after another one does."""
    pack = history.pack(leave_out=[missing])
    alice = hub.caller("alice")

    def push_to(slug: str) -> Observed:
        repo_id = hub.create_repo(f"alice/{slug}")
        assert alice.upload(alice.presign(f"alice/{slug}", pack).get_json(), pack) == 200
        observed = hub.observe(lambda: alice.unpack(f"alice/{slug}", ids.blob_id(pack), tip))
        assert observed.response.status_code == 422
        assert set(held(hub, repo_id).values()) == {0}
        assert alice.fetch(f"alice/{slug}", [tip]).status_code == 404
        return observed

    nowhere = push_to("before")
    hub.create_repo(SECRET, visibility="private")
    assert hub.caller("bob").push(SECRET, history.pack(), tip).status_code == 200
    assert_same(nowhere, push_to("after"))


def test_s04_a_blob_is_not_had_by_naming_its_id(hub: HubEnvironment) -> None:
    history = History()
    tip = history.commit({"mine.txt": b"mine", "stolen.txt": b"the secret"})
    refused_alike(hub, history, tip, ids.blob_id(b"the secret"))


def test_s05_a_snapshot_is_not_had_by_naming_its_id(hub: HubEnvironment) -> None:
    history = History()
    tip = history.commit({"stolen.txt": b"the secret"})
    refused_alike(hub, history, tip, history.commits[tip]["snapshot_id"])


def test_s06_a_commit_is_not_had_by_making_it_a_parent(hub: HubEnvironment) -> None:
    history = History()
    x = history.commit({"stolen.txt": b"the secret"})
    tip = history.commit({"mine.txt": b"mine"}, [x])
    refused_alike(hub, history, tip, x)


def test_s06_a_head_is_not_had_by_naming_it(hub: HubEnvironment) -> None:
    stage = Stage(hub)
    history = History()
    history.commit({"mine.txt": b"mine"})
    pack = history.pack()
    assert stage.alice.push(OPEN, pack, stage.x, branch="stolen").status_code == 422
    assert stage.alice.fetch(OPEN, [stage.x]).status_code == 404


def test_s07_true_bytes_of_a_known_blob_are_taken_as_if_they_were_new(hub: HubEnvironment) -> None:
    stage = Stage(hub)

    def push_blob(slug: str, content: bytes) -> tuple[str, Observed]:
        repo_id = hub.create_repo(f"alice/{slug}")
        history = History()
        tip = history.commit({"a.txt": content}, message="the same")
        pack = history.pack()
        assert stage.alice.upload(stage.alice.presign(f"alice/{slug}", pack).get_json(), pack) == 200
        return repo_id, hub.observe(lambda: stage.alice.unpack(f"alice/{slug}", ids.blob_id(pack), tip))

    _, fresh = push_blob("fresh", b"never seen")
    repo_id, known = push_blob("known", b"the secret")
    assert known.response.status_code == fresh.response.status_code == 200
    counts = ("commit_count", "snapshot_count", "blob_count")
    assert {name: known.response.get_json()[name] for name in counts} == dict.fromkeys(counts, 1)
    assert set(known.response.get_json()) == set(fresh.response.get_json())
    assert (known.statements, known.storage_calls) == (fresh.statements, fresh.storage_calls)
    blob = ids.blob_id(b"the secret")
    with hub.session() as session:
        assert session.execute(select(func.count()).where(MusehubObject.object_id == blob)).scalar_one() == 1
        holders = session.execute(select(MusehubObjectRef.repo_id).where(MusehubObjectRef.object_id == blob))
        assert set(holders.scalars()) == {stage.secret_id, repo_id}


def false_pack(content: bytes, claimed: bytes) -> tuple[bytes, str]:
    """Return a pack of a commit whose blob says that it is `claimed`, and is `content`."""
    history = History()
    tip = history.commit({"a.txt": claimed})
    parts = parse_wire_mpack(history.pack())
    parts["blobs"][0]["content"] = content
    return build_wire_mpack(**parts), tip


def test_s08_a_known_blob_is_not_replaced_by_other_bytes(hub: HubEnvironment) -> None:
    stage = Stage(hub)
    before = held(hub, stage.open_id)
    pack, tip = false_pack(b"other bytes", b"the secret")
    answer = stage.alice.push(OPEN, pack, tip, branch="false")
    assert answer.status_code == 422
    assert ids.blob_id(b"the secret") in answer.get_json()["detail"]
    assert held(hub, stage.open_id) == before
    assert stage.bob.pull(SECRET, [stage.x]).blobs[ids.blob_id(b"the secret")] == b"the secret"


def test_s09_a_blob_that_is_yet_to_come_is_not_poisoned(hub: HubEnvironment) -> None:
    hub.create_repo(OPEN)
    hub.create_repo(SECRET)
    pack, tip = false_pack(b"poison", b"the future")
    assert hub.caller("alice").push(OPEN, pack, tip).status_code == 422
    history = History()
    victim = history.commit({"a.txt": b"the future"})
    assert hub.caller("bob").push(SECRET, history.pack(), victim).status_code == 200
    assert hub.caller("bob").pull(SECRET, [victim]).blobs == {ids.blob_id(b"the future"): b"the future"}


def assert_each_reads_its_own(hub: HubEnvironment, one: History, two: History, tip: str) -> None:
    alice, bob = hub.caller("alice"), hub.caller("bob")
    hub.create_repo(OPEN)
    hub.create_repo(SECRET, visibility="private")
    assert alice.push(OPEN, one.pack(), tip).status_code == 200
    assert bob.push(SECRET, two.pack(), tip).status_code == 200
    assert one.commits != two.commits
    assert alice.pull(OPEN, [tip]).commits == one.commits
    assert bob.pull(SECRET, [tip]).commits == two.commits


def test_s10_what_an_id_does_not_cover_stays_with_the_repo_that_said_it(hub: HubEnvironment) -> None:
    one, two = History(), History()
    tip = one.commit({"a": b"1"}, author="Alice", branch="main", signature="by alice", metadata={"plan": "public"})
    same = two.commit({"a": b"1"}, author="Mallory", branch="evil", signature="forged", agent_id="m")
    assert tip == same
    assert_each_reads_its_own(hub, one, two, tip)


def test_s10_a_date_that_the_id_does_not_cover_stays_with_its_repo(hub: HubEnvironment) -> None:
    one, two = History(), History()
    tip = one.commit({"a": b"1"}, author="Tree", committed_at="2026-01-01T00:00:00+00:00", hashed="author")
    assert tip == two.commit({"a": b"1"}, author="Tree", committed_at="1999-01-01T00:00:00+00:00", hashed="author")
    assert_each_reads_its_own(hub, one, two, tip)


def test_s10_a_hash_of_the_date_and_a_hash_of_the_author_do_not_mix(hub: HubEnvironment) -> None:
    one, two = History(), History()
    date = "2026-01-01T00:00:00+00:00"
    tip = one.commit({"a": b"1"}, author="Alice", committed_at=date)
    assert tip == two.commit({"a": b"1"}, author=date, committed_at="1999-01-01", hashed="author")
    assert_each_reads_its_own(hub, one, two, tip)


def test_s10_the_order_of_parents_stays_with_its_repo(hub: HubEnvironment) -> None:
    one, two = History(), History()
    parents = [[history.commit({"a": b"1"}), history.commit({"a": b"2"})] for history in (one, two)]
    tip = one.commit({"a": b"3"}, parents[0])
    assert tip == two.commit({"a": b"3"}, parents[1][::-1])
    assert_each_reads_its_own(hub, one, two, tip)


@pytest.mark.parametrize("field", ["message", "author", "branch", "committed_at", "path"])
def test_s11_a_nul_is_422_and_changes_nothing(hub: HubEnvironment, field: str) -> None:
    hub.create_repo(OPEN)
    history = History()
    if field == "path":
        tip = history.commit({"a\0b": b"1"})
    else:
        fields: dict[str, Any] = {field: "2026-01-01T00:00:00+00:00\0" if field == "committed_at" else "a\0b"}
        tip = history.commit({"a": b"1"}, **fields)
    before = hub.rows()
    answer = hub.caller("alice").push(OPEN, history.pack(), tip)
    assert answer.status_code == 422
    assert {**hub.rows(), "musehub_upload": []} == {**before, "musehub_upload": []}


@pytest.mark.parametrize("presigned", [False, True], ids=["without a ticket", "with a ticket and no upload"])
def test_s12_the_id_of_a_foreign_mpack_opens_nothing(hub: HubEnvironment, presigned: bool) -> None:
    stage = Stage(hub)
    attempts = []
    for mpack in (stage.secret_pack, b"an mpack that was never uploaded"):
        if presigned:
            assert stage.alice.presign(OPEN, mpack).get_json()["uploaded"] is False
        before = held(hub, stage.open_id)
        ask = functools.partial(stage.alice.unpack, OPEN, ids.blob_id(mpack), stage.x, branch="stolen")
        attempts.append(hub.observe(ask))
        assert held(hub, stage.open_id) == before
    assert attempts[0].response.status_code == 404
    assert_same(attempts[0], attempts[1])
    assert stage.alice.fetch(OPEN, [stage.x]).status_code == 404


def test_s13_a_ticket_of_one_repo_is_of_no_use_to_another(hub: HubEnvironment) -> None:
    first, second = hub.create_repo("alice/one"), hub.create_repo("alice/two")
    history = History()
    tip = history.commit({"a": b"1"})
    pack = history.pack()
    alice = hub.caller("alice")
    assert alice.upload(alice.presign("alice/one", pack).get_json(), pack) == 200
    assert alice.unpack("alice/two", ids.blob_id(pack), tip).status_code == 404
    assert set(held(hub, second).values()) == {0}
    assert alice.unpack("alice/one", ids.blob_id(pack), tip).status_code == 200
    assert set(held(hub, first).values()) == {1}


def test_s13_a_ticket_of_one_user_is_of_no_use_to_another(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(OPEN)
    hub_of(hub.app).hooks.policy = lambda identity, action, repo: True
    history = History()
    tip = history.commit({"a": b"1"})
    pack = history.pack()
    alice, carol = hub.caller("alice"), hub.caller("carol")
    assert alice.upload(alice.presign(OPEN, pack).get_json(), pack) == 200
    assert carol.unpack(OPEN, ids.blob_id(pack), tip).status_code == 404
    assert set(held(hub, repo_id).values()) == {0}


def test_s13_an_expired_ticket_is_of_no_use(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(OPEN)
    history = History()
    tip = history.commit({"a": b"1"})
    pack = history.pack()
    alice = hub.caller("alice")
    assert alice.upload(alice.presign(OPEN, pack).get_json(), pack) == 200
    with hub.session() as session:
        session.execute(update(MusehubUpload).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
        session.commit()
    assert alice.unpack(OPEN, ids.blob_id(pack), tip).status_code == 404
    assert set(held(hub, repo_id).values()) == {0}


def test_s13_the_owner_may_repeat_the_call(hub: HubEnvironment) -> None:
    hub.create_repo(OPEN)
    history = History()
    tip = history.commit({"a": b"1"})
    alice = hub.caller("alice")
    assert alice.push(OPEN, history.pack(), tip).status_code == 200
    before = hub.rows()
    assert alice.unpack(OPEN, ids.blob_id(history.pack()), tip).status_code == 200
    assert hub.rows() == before


def test_s14_a_foreign_mpack_is_read_for_a_blob_and_never_handed_out(hub: HubEnvironment) -> None:
    stage = Stage(hub)
    shared, secret_mpack = ids.blob_id(b"shared"), ids.blob_id(stage.secret_pack)
    with hub.session() as session:
        # What is left says that the shared blob is in Bob's mpack alone.
        session.execute(delete(MusehubMPackIndex).where(MusehubMPackIndex.mpack_id != secret_mpack))
        session.commit()
        located = session.execute(select(MusehubMPackIndex.mpack_id).where(MusehubMPackIndex.entity_id == shared))
        assert list(located.scalars()) == [secret_mpack]
    pulled = hub.caller().pull(OPEN, [stage.shared])
    assert pulled.blobs == {shared: b"shared"}
    assert set(pulled.commits) == {stage.shared}
    assert b"the secret" not in pulled.data
    assert b"secret.txt" not in pulled.data
    assert pulled.answer["mpack_id"] != secret_mpack
    assert ids.to_hex(secret_mpack) not in pulled.answer["mpack_url"]


def test_s15_a_pushed_mpack_that_holds_more_than_the_answer_is_not_the_answer(hub: HubEnvironment) -> None:
    hub.create_repo(OPEN)
    history = History()
    first = history.commit({"a": b"1"})
    second = history.commit({"a": b"2"}, [first])
    history.blob(b"in no tree at all")
    pack = history.pack()
    assert hub.caller("alice").push(OPEN, pack, second).status_code == 200
    for want, commits in ((first, {first}), (second, {first, second})):
        pulled = hub.caller().pull(OPEN, [want])
        assert set(pulled.commits) == commits
        assert b"in no tree at all" not in pulled.blobs.values()
        assert pulled.answer["mpack_id"] != ids.blob_id(pack)


_NUMBERS = itertools.count()


@effort(8, shared_fixtures=True, shrinks=False)
@given(data=st.data())
def test_s15_whatever_was_pushed_in_whatever_pieces_the_answer_is_the_delta(
    hub: HubEnvironment, data: st.DataObject
) -> None:
    history = History()
    repo = f"alice/pieces-{next(_NUMBERS)}"
    hub.create_repo(repo)
    alice = hub.caller("alice")
    commits: list[str] = []
    pushed: list[str] = []
    for number in range(data.draw(st.integers(1, 5))):
        content = b"%d" % data.draw(st.integers(0, 2))
        commits.append(history.commit({"a": content, "b": b"%d" % number}, commits[-1:]))
        if data.draw(st.booleans()):
            pack = history.pack(want=commits[-1:], have=pushed[-1:])
            assert alice.push(repo, pack, commits[-1]).status_code == 200
            pushed.append(commits[-1])
    if not pushed:
        return
    index = data.draw(st.integers(0, len(pushed) - 1))
    have = data.draw(st.sampled_from([[], *([commit] for commit in pushed[:index])]))
    expected = parse_wire_mpack(history.pack(want=[pushed[index]], have=have))
    pulled = alice.pull(repo, [pushed[index]], have)
    assert set(pulled.commits) == {record["commit_id"] for record in expected["commits"]}
    assert set(pulled.blobs) == {item["object_id"] for item in expected["blobs"]}


def test_s16_a_have_that_only_another_repo_holds_has_no_effect_at_all(hub: HubEnvironment) -> None:
    stage, caller = Stage(hub), hub.caller()
    caller.fetch(OPEN, [stage.shared], [ids.fake_id("the first request of this kind")])
    foreign = hub.observe(lambda: caller.fetch(OPEN, [stage.shared], [stage.x]))
    unknown = hub.observe(lambda: caller.fetch(OPEN, [stage.shared], [R]))
    # A URL and its end of life name the second of the answer.
    timed = {"mpack_url", "expires_at"}
    one, other = foreign.response.get_json(), unknown.response.get_json()
    assert {key: value for key, value in one.items() if key not in timed} == {
        key: value for key, value in other.items() if key not in timed
    }
    assert one["commit_count"] == 1
    assert (foreign.statements, foreign.storage_calls) == (unknown.statements, unknown.storage_calls)


def test_s17_negotiation_acknowledges_nothing_that_only_another_repo_holds(hub: HubEnvironment) -> None:
    stage, caller = Stage(hub), hub.caller()
    # Whoever asks first has the repo's packed history read, in a unit of work that further statements go to.
    caller.negotiate(OPEN, [stage.shared], [ids.fake_id("the first request of this kind")])
    observed = hub.observe(lambda: caller.negotiate(OPEN, [stage.shared], [stage.x]))
    assert observed.response.get_json()["ack"] == []
    assert_same(observed, hub.observe(lambda: caller.negotiate(OPEN, [stage.shared], [R])))


def test_s18_a_repo_that_becomes_private_is_closed_at_once(hub: HubEnvironment) -> None:
    stage, caller = Stage(hub), hub.caller("carol")
    assert caller.fetch(OPEN, [stage.shared]).status_code == 200
    with hub.session() as session:
        session.execute(update(MusehubRepo).where(MusehubRepo.repo_id == stage.open_id).values(visibility="private"))
        session.commit()
    closed = hub.observe(lambda: caller.fetch(OPEN, [stage.shared]))
    assert closed.response.status_code == 404
    assert_same(closed, hub.observe(lambda: caller.fetch("alice/nothing", [stage.shared])))


def test_s18_a_collaborator_who_is_removed_is_out_at_once(hub: HubEnvironment) -> None:
    stage = Stage(hub)
    collaborators = {"carol"}

    def may(identity: Identity | None, action: str, repo: Any) -> bool:
        return identity is not None and identity.user_id in {repo.owner_user_id, *collaborators}

    hub_of(hub.app).hooks.policy = may
    carol = hub.caller("carol")
    assert carol.fetch(SECRET, [stage.x]).status_code == 200
    collaborators.clear()
    assert carol.fetch(SECRET, [stage.x]).status_code == 404
    assert carol.presign(SECRET, b"pack").status_code == 404


def delete_repo(hub: HubEnvironment, repo_id: str) -> None:
    with hub.session() as session:
        session.execute(update(MusehubRepo).where(MusehubRepo.repo_id == repo_id).values(deleted_at=datetime.now(UTC)))
        session.commit()


def test_s18_a_deleted_repo_is_closed_to_its_owner_as_well(hub: HubEnvironment) -> None:
    stage = Stage(hub)
    delete_repo(hub, stage.secret_id)
    closed = hub.observe(lambda: stage.bob.fetch(SECRET, [stage.x]))
    assert closed.response.status_code == 404
    assert_same(closed, hub.observe(lambda: stage.bob.fetch("bob/nothing", [stage.x])))


def test_s19_a_repo_of_a_deleted_ones_name_holds_nothing_of_it(hub: HubEnvironment) -> None:
    stage = Stage(hub)
    delete_repo(hub, stage.secret_id)
    assert hub.create_repo(SECRET, visibility="private") != stage.secret_id
    assert stage.bob.refs(SECRET).get_json()["branch_heads"] == {}
    observed = hub.observe(lambda: stage.bob.fetch(SECRET, [stage.x]))
    assert observed.response.status_code == 404
    assert_same(observed, hub.observe(lambda: stage.bob.fetch(SECRET, [R])))
    assert stage.bob.unpack(SECRET, ids.blob_id(stage.secret_pack), stage.x).status_code == 404
    assert stage.bob.push(SECRET, stage.secret_pack, stage.x).status_code == 200
    assert stage.bob.pull(SECRET, [stage.x]).commits == stage.history.commits


def test_s20_a_token_for_one_repo_does_not_show_its_owners_other_repos(hub: HubEnvironment) -> None:
    hub.create_repo("alice/one")
    hub.create_repo("alice/two", visibility="private")

    def may(identity: Identity | None, action: str, repo: Any) -> bool:
        # A host's deploy key: it speaks for the owner, in one repo.
        return identity is not None and identity.user_id == repo.owner_user_id and repo.slug == "one"

    hub_of(hub.app).hooks.policy = may
    key = hub.caller("alice")
    assert key.refs("alice/one").status_code == 200
    for ask in (key.refs, functools.partial(key.fetch, want=[R]), functools.partial(key.presign, pack=b"pack")):
        closed = hub.observe(functools.partial(ask, "alice/two"))
        assert closed.response.status_code == 404
        assert_same(closed, hub.observe(functools.partial(ask, "alice/nothing")))


def test_s04_the_size_of_what_a_repo_lacks_does_not_tell_who_else_has_it(hub: HubEnvironment) -> None:
    stage = Stage(hub)
    with hub.session():
        db = hub_of(hub.app).database()
        sizes = [
            contents.blob_bytes(db, repo_id, [ids.blob_id(b"shared"), ids.blob_id(b"the secret")])
            for repo_id in (stage.open_id, stage.secret_id)
        ]
    assert sizes == [len(b"shared"), len(b"shared") + len(b"the secret")]
