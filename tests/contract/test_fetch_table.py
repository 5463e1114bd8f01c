"""The contract's section 2: the table of a fetch, row by row, on both pairs of real parts."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import Any

from musehub_plugin import ids
from musehub_plugin.models import MusehubMPackIndex
from musehub_plugin.mpack import build_wire_mpack
from musehub_plugin.testing import History, make_commit, store_object
from musehub_plugin.testing.apps import run_jobs
from tests.environment import HubEnvironment, assert_same
from tests.exchange import FETCH_MEMBERS, Caller

REPO = "alice/songs"
UNKNOWN = ids.fake_id("a commit that nobody has")


def two_commits() -> tuple[History, str, str]:
    history = History()
    first = history.commit({"a.txt": b"one", "kept.txt": b"kept"})
    second = history.commit({"a.txt": b"two", "kept.txt": b"kept", "b.txt": b"three"}, [first])
    return history, first, second


def pushed(hub: HubEnvironment) -> tuple[History, str, str]:
    hub.create_repo(REPO)
    history, first, second = two_commits()
    assert hub.caller("alice").push(REPO, history.pack(), second).status_code == 200
    return history, first, second


def test_f01_a_first_fetch_gets_everything(hub: HubEnvironment) -> None:
    history, _, second = pushed(hub)
    pulled = hub.caller().pull(REPO, [second])
    assert pulled.commits == history.commits
    assert pulled.snapshots == history.snapshots
    assert pulled.blobs == history.blobs


def test_f01_the_answer_counts_what_the_mpack_holds(hub: HubEnvironment) -> None:
    _, _, second = pushed(hub)
    answer = hub.caller().fetch(REPO, [second]).get_json()
    assert answer["mpack_url"]
    assert answer["mpack_id"].startswith("sha256:")
    assert (answer["commit_count"], answer["snapshot_count"], answer["blob_count"]) == (2, 2, 4)


def test_f02_a_caller_that_has_the_tip_gets_nothing(hub: HubEnvironment) -> None:
    _, _, second = pushed(hub)
    answer = hub.caller().fetch(REPO, [second], [second])
    assert answer.status_code == 200
    body = answer.get_json()
    counts = ("commit_count", "snapshot_count", "blob_count", "object_count", "size_bytes")
    assert {name: body[name] for name in counts} == dict.fromkeys(counts, 0)
    assert body["mpack_url"] is None
    assert body["mpack_id"] is None


def test_f03_a_caller_with_the_first_commit_gets_the_second_alone(hub: HubEnvironment) -> None:
    history, first, second = pushed(hub)
    pulled = hub.caller().pull(REPO, [second], [first])
    assert set(pulled.commits) == {second}
    assert set(pulled.snapshots) == {history.commits[second]["snapshot_id"]}
    assert set(pulled.blobs) == {ids.blob_id(b"two"), ids.blob_id(b"three")}
    assert (pulled.answer["commit_count"], pulled.answer["blob_count"]) == (1, 2)


def test_f04_a_missing_repo_is_404(hub: HubEnvironment) -> None:
    answer = hub.caller("alice").fetch("alice/nothing", [UNKNOWN])
    assert answer.status_code == 404
    assert answer.get_json()["code"] == "repo-not-found"


def test_f05_an_empty_or_absent_want_is_422(hub: HubEnvironment) -> None:
    pushed(hub)
    bodies: list[dict[str, Any]] = [{"want": []}, {}, {"have": []}, {"want": [], "have": [UNKNOWN]}]
    for body in bodies:
        answer = hub.caller().post(f"/{REPO}/fetch", body)
        assert answer.status_code == 422, body
        assert "want" in answer.get_json()["detail"]


NO_IDS = [
    "main",
    "",
    "0" * 64,
    "sha256:" + "0" * 63,
    "sha256:" + "0" * 65,
    "sha256:" + "A" * 64,
    "sha256:" + "0" * 64 + "\n",
    " sha256:" + "0" * 64,
    "SHA256:" + "0" * 64,
    "sha1:" + "0" * 64,
    "sha256:" + "\N{ARABIC-INDIC DIGIT ZERO}" * 64,
    1,
    None,
    ["sha256:" + "0" * 64],
]


def test_f06_a_want_that_is_no_id_is_422(hub: HubEnvironment) -> None:
    _, _, second = pushed(hub)
    for want in NO_IDS:
        answer = hub.caller().post(f"/{REPO}/fetch", {"want": [second, want]})
        assert answer.status_code == 422, want
        assert "want[1]" in answer.get_json()["detail"]


def test_f07_a_want_that_the_repo_lacks_is_404(hub: HubEnvironment) -> None:
    _, _, second = pushed(hub)
    answer = hub.caller().fetch(REPO, [second, UNKNOWN])
    assert answer.status_code == 404
    assert answer.get_json()["code"] == "want-not-found"


def test_f07_a_want_that_is_a_snapshot_or_a_blob_is_404(hub: HubEnvironment) -> None:
    history, _, _ = pushed(hub)
    for identifier in (*history.snapshots, *history.blobs):
        assert hub.caller().fetch(REPO, [identifier]).status_code == 404


def assert_not_indexed(hub: HubEnvironment, caller: Caller, want: str) -> None:
    before = hub.stored_keys()
    answer = caller.fetch(REPO, [want])
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.get_json()["code"] == "not-indexed"
    assert "mpack_url" not in answer.get_json()
    assert hub.stored_keys() == before


def test_f08_a_blob_that_is_in_no_mpack_yet_is_503(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    with hub.session() as session:
        present = store_object(session, repo_id, b"present")
        absent = store_object(session, repo_id, b"absent", in_row=False)
        commit = make_commit(session, repo_id, {"here": present, "gone": absent})
    assert_not_indexed(hub, hub.caller(), commit)


def test_f08_a_blob_of_the_manifest_that_the_repo_does_not_hold_is_503(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    with hub.session() as session:
        commit = make_commit(session, repo_id, {"here": b"present", "gone": ids.blob_id(b"never stored")})
    assert_not_indexed(hub, hub.caller(), commit)


def test_f08_the_blob_is_served_once_the_index_names_its_mpack(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    with hub.session() as session:
        object_id = store_object(session, repo_id, b"late", in_row=False)
        commit = make_commit(session, repo_id, {"late.txt": object_id})
    assert_not_indexed(hub, hub.caller(), commit)
    mpack = build_wire_mpack(commits=[], snapshots=[], blobs=[{"object_id": object_id, "content": b"late"}])
    hub.storage.put_mpack(ids.blob_id(mpack), mpack)
    hub.add(MusehubMPackIndex(entity_id=object_id, mpack_id=ids.blob_id(mpack), entity_type="object"))
    assert hub.caller().pull(REPO, [commit]).blobs == {object_id: b"late"}


def test_f08_a_push_is_503_until_its_index_job_has_run(hub: HubEnvironment, musehub_redis_url: str) -> None:
    hub.create_repo(REPO)
    app = hub.make_app(MUSEHUB_REDIS_URL=musehub_redis_url)
    history, _, second = two_commits()
    alice = Caller(app, "alice")
    assert alice.push(REPO, history.pack(), second).status_code == 200
    assert_not_indexed(hub, alice, second)
    assert run_jobs(app) == 1
    assert alice.pull(REPO, [second]).blobs == history.blobs


def test_f08_what_was_indexed_before_is_served_meanwhile(hub: HubEnvironment, musehub_redis_url: str) -> None:
    history, first, _ = pushed(hub)
    third = history.commit({"c.txt": b"new"}, [first])
    alice = Caller(hub.make_app(MUSEHUB_REDIS_URL=musehub_redis_url), "alice")
    pack = history.pack(want=[third], have=[first])
    assert alice.push(REPO, pack, third, branch="other").status_code == 200
    assert set(alice.pull(REPO, [first]).commits) == {first}
    assert_not_indexed(hub, alice, third)


def test_f09_a_private_repo_is_as_good_as_missing(hub: HubEnvironment) -> None:
    hub.create_repo(REPO, visibility="private")
    history, _, second = two_commits()
    hub.caller("alice").push(REPO, history.pack(), second)
    for caller in (hub.caller(), hub.caller("bob")):
        private = hub.observe(functools.partial(caller.fetch, REPO, [second]))
        missing = hub.observe(functools.partial(caller.fetch, "alice/nothing", [second]))
        assert private.response.status_code == 404
        assert_same(private, missing)


def test_f09_the_owner_of_a_private_repo_fetches(hub: HubEnvironment) -> None:
    hub.create_repo(REPO, visibility="private")
    history, _, second = two_commits()
    alice = hub.caller("alice")
    alice.push(REPO, history.pack(), second)
    assert alice.pull(REPO, [second]).commits == history.commits


def test_f10_the_mpack_id_is_the_hash_of_the_bytes_in_storage(hub: HubEnvironment) -> None:
    _, first, second = pushed(hub)
    for have in ([], [first]):
        answer = hub.caller().fetch(REPO, [second], have).get_json()
        stored = hub.storage.get_mpack(answer["mpack_id"])
        assert stored is not None
        assert ids.blob_id(stored) == answer["mpack_id"]
        assert len(stored) == answer["size_bytes"]
        assert hub.caller().download(answer["mpack_url"]) == stored


def test_the_answer_has_these_fields(hub: HubEnvironment) -> None:
    _, _, second = pushed(hub)
    before = datetime.now(UTC)
    answer = hub.caller().fetch(REPO, [second]).get_json()
    assert set(answer) >= FETCH_MEMBERS
    assert answer["object_count"] == answer["blob_count"]
    expires_at = datetime.fromisoformat(answer["expires_at"])
    assert expires_at.utcoffset() == timedelta(0)
    assert before < expires_at <= datetime.now(UTC) + timedelta(seconds=hub.settings.presign_ttl)


def test_a_request_with_unknown_fields_and_capabilities_gets_the_same(hub: HubEnvironment) -> None:
    _, first, second = pushed(hub)
    caller = hub.caller()
    plain = caller.fetch(REPO, [second], [first]).get_json()
    body = {"want": [second], "have": [first], "capabilities": ["from-the-future"], "depth": {"of": ["anything"]}}
    answer = caller.post(f"/{REPO}/fetch", body)
    assert answer.status_code == 200
    assert answer.get_json()["mpack_id"] == plain["mpack_id"]


def test_the_mpack_does_not_come_through_the_web_worker(hub: HubEnvironment) -> None:
    _, _, second = pushed(hub)
    url = hub.caller().fetch(REPO, [second]).get_json()["mpack_url"]
    served_by_plugin = "/-/musehub/storage/mpack/" in url
    assert served_by_plugin == (hub.name == "sqlite+files")
