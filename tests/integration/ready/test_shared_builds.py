"""Equal plans are made once, whoever asks and however many at a time; what nobody asks for goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import combinations, pairwise

import pytest
from sqlalchemy import delete, update
from werkzeug.test import TestResponse

from musehub_plugin import fetch, plan
from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.gc import collect
from musehub_plugin.ids import fake_id
from musehub_plugin.models import MusehubBranch, MusehubCommitRef
from musehub_plugin.repack import repack
from musehub_plugin.signals import step
from musehub_plugin.store import builds as builds_store
from musehub_plugin.store.builds import builds_under_way, lease_build, take_build
from musehub_plugin.store.session import Database
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.exchange import Caller
from tests.integration.ready.receiving import ALL_CAPABILITIES, Receiver

REPO = "alice/songs"
# For what takes a moment where nothing else runs.
SECONDS = 60


class Builds:
    """Notes each mpack that is made, and holds its maker while `go` is not set."""

    def __init__(self) -> None:
        self.count = 0
        self.begun = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def note(self, _: object, name: str) -> None:
        if name == "fetch.packed":
            self.count += 1
            self.begun.set()
            assert self.go.wait(SECONDS)


@pytest.fixture
def builds() -> Iterator[Builds]:
    noted = Builds()
    with step.connected_to(noted.note):
        yield noted
        noted.go.set()


@pytest.fixture
def made(hub: HubEnvironment) -> list[str]:
    """Six commits in a line that the hub holds."""
    hub.create_repo(REPO)
    return line_of(hub, 6)


def line_of(hub: HubEnvironment, count: int) -> list[str]:
    """Push so many commits in a line, of a new blob each, and return them."""
    history = History()
    commits: list[str] = []
    for number in range(count):
        commits.append(history.commit({"a.txt": f"{number}".encode(), f"{number}.txt": b"the same"}, commits[-1:]))
    assert hub.caller("alice").push(REPO, history.pack(), commits[-1]).status_code == 200
    hub.run_jobs()
    return commits


@contextmanager
def waiting(needed: int) -> Iterator[threading.Event]:
    """Give what is set once so many requests wait for an mpack that another one makes."""
    threads: set[int] = set()
    enough = threading.Event()

    def note(_: object, name: str) -> None:
        if name == "waiting.looked":
            threads.add(threading.get_ident())
            if len(threads) >= needed:
                enough.set()

    with step.connected_to(note):
        yield enough


def fetch_pack_files(hub: HubEnvironment) -> int:
    return len([key for key in hub.stored_keys() if "mpacks/" in key])


def test_s91_identical_fetches_at_once_are_one_build_and_one_stored_object(
    hub: HubEnvironment, builds: Builds, made: list[str]
) -> None:
    count = 5
    stored = fetch_pack_files(hub)
    builds.go.clear()
    app = hub.make_app(MUSEHUB_BUILD_WAIT=2 * SECONDS)
    with waiting(count - 1) as all_wait, ThreadPoolExecutor(count) as threads:
        answers = [threads.submit(Caller(app).fetch, REPO, [made[-1]], [made[2]]) for _ in range(count)]
        assert all_wait.wait(SECONDS)
        builds.go.set()
        found = [answer.result() for answer in answers]
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.get_json()["mpack_id"] for answer in found}) == 1
    assert builds.count == 1
    assert fetch_pack_files(hub) == stored + 1


def test_s91_identical_fetches_at_once_of_what_travels_in_the_answer_are_one_build(
    hub: HubEnvironment, builds: Builds
) -> None:
    count = 5
    hub.create_repo(REPO)
    commits = line_of(hub, 60)
    builds.go.clear()
    # Of two processes: none has what the other one made.
    apps = [hub.make_app(MUSEHUB_BUILD_WAIT=2 * SECONDS) for _ in range(2)]
    with waiting(count - 1) as all_wait, ThreadPoolExecutor(count) as threads:
        answers = [threads.submit(Caller(apps[n % 2]).fetch, REPO, [commits[-1]], [], ["inline"]) for n in range(count)]
        assert all_wait.wait(SECONDS)
        builds.go.set()
        found = [answer.result().get_json() for answer in answers]
    assert {answer["mpack_url"] for answer in found} == {None}
    assert len({answer["mpack"] for answer in found}) == 1
    assert builds.count == 1


def test_equal_plans_by_different_haves_are_built_once(hub: HubEnvironment, builds: Builds, made: list[str]) -> None:
    haves = ([made[2]], [made[2], made[0]], [made[1], made[2]])
    found = {hub.caller().fetch(REPO, [made[-1]], have).get_json()["mpack_id"] for have in haves}
    assert len(found) == 1
    assert builds.count == 1


def test_equal_plans_of_what_travels_in_the_answer_are_built_once(hub: HubEnvironment, builds: Builds) -> None:
    hub.create_repo(REPO)
    made = line_of(hub, 60)
    haves = ([made[0]], [made[0], fake_id("not pushed yet")], [made[0], fake_id("nor this")])
    found = {hub.caller().fetch(REPO, [made[-1]], have, ["inline"]).get_json()["mpack"] for have in haves}
    assert len(found) == 1
    assert builds.count == 1


def test_packs_of_equally_many_commits_without_a_blob_are_each_their_own(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    made: list[str] = []
    for number in range(3):
        made.append(history.commit({"a.txt": b"the same"}, made[-1:], message=f"{number}"))
    assert hub.caller("alice").push(REPO, history.pack(), made[-1]).status_code == 200
    hub.run_jobs()
    for have, want in pairwise(made):
        assert set(hub.caller().pull(REPO, [want], [have]).commits) == {want}


def test_packs_of_the_same_commits_are_each_with_the_blobs_that_are_lacking(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    root = history.commit({"a.txt": b"one"})
    side = history.commit({"b.txt": b"two"})
    head = history.commit({"b.txt": b"two", "c.txt": b"three"}, [root])
    for branch, commit in (("side", side), ("main", head)):
        assert hub.caller("alice").push(REPO, history.pack(want=[commit]), commit, branch=branch).status_code == 200
    hub.run_jobs()
    for have, blobs in (([root, side], {b"three"}), ([root], {b"two", b"three"})):
        pulled = hub.caller().pull(REPO, [head], have)
        assert (set(pulled.commits), set(pulled.blobs.values())) == ({head}, blobs)


def test_each_way_of_asking_is_answered_in_its_own(hub: HubEnvironment, made: list[str]) -> None:
    receiver = Receiver(hub.caller(), REPO)
    receiver.fetch([made[2]])
    # Whichever way comes first: what it left is no answer to the others.
    for want, have, ways in ((1, 0, ALL_CAPABILITIES), (3, 2, ALL_CAPABILITIES[::-1])):
        for capabilities in ways:
            assert receiver.fetch([made[want]], [made[have]], capabilities).commits == {made[want]}


def taken_for_no_time(db: Database, plan_key: str, repo_id: str, holder: str, seconds: int, most: int) -> bool:
    return take_build(db, plan_key, repo_id, holder, -1, most)


def leased_for_no_time(db: Database, plan_key: str, repo_id: str, holder: str, seconds: int) -> bool:
    return lease_build(db, plan_key, repo_id, holder, -1)


def test_a_build_that_goes_on_keeps_its_lease(
    hub: HubEnvironment, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_LEASE_KEPT_EVERY", -1.0)
    # Ended as soon as it is taken, it is under way at the end since it was kept.
    monkeypatch.setattr(builds_store, "take_build", taken_for_no_time)
    monkeypatch.setattr(builds_store, "lease_build", leased_for_no_time)
    under_way: list[int] = []

    def look(_: object, name: str) -> None:
        if name == "fetch.packed":
            with hub.app.app_context():
                under_way.append(builds_under_way(hub_of(hub.app).database()))

    with step.connected_to(look):
        assert hub.caller().fetch(REPO, [made[-1]], [made[2]]).status_code == 200
    assert under_way == [1]


def test_a_small_answer_of_the_newest_commits_is_kept_for_all_processes(
    hub: HubEnvironment, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_RECENT", 2)
    for want, rows in (([made[3]], 0), ([made[-1], made[3]], 0), ([made[4]], 1), ([made[-1]], 2)):
        assert hub.caller().fetch(REPO, want, [made[0]], ["inline"]).status_code == 200
        assert hub.row_counts()["musehub_fetch_plan"] == rows


def test_an_answer_by_url_is_kept_however_old_its_commits_are(
    hub: HubEnvironment, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_RECENT", 2)
    assert hub.caller().fetch(REPO, [made[3]], [made[0]]).status_code == 200
    # One for what is lacking, whoever lacks it, and one for the question.
    assert hub.row_counts()["musehub_fetch_plan"] == 2


def test_the_same_question_in_another_order_is_answered_without_building(
    hub: HubEnvironment, builds: Builds, made: list[str]
) -> None:
    caller = hub.caller()
    first = caller.fetch(REPO, [made[-1], made[4]], [made[2], made[1]], ["inline"]).get_json()
    second = caller.fetch(REPO, [made[4], made[-1], made[4]], [made[1], made[2]], ["inline"]).get_json()
    assert (first["mpack_id"], first.get("mpack")) == (second["mpack_id"], second.get("mpack"))


def beside_a_held_build(
    builds: Builds, held: Callable[[], TestResponse], other: Callable[[], TestResponse]
) -> tuple[TestResponse, TestResponse]:
    """Send `other` while the build of `held` goes on; return both answers."""
    builds.go.clear()
    with ThreadPoolExecutor(1) as threads:
        first: Future[TestResponse] = threads.submit(held)
        assert builds.begun.wait(SECONDS)
        try:
            answer = other()
        finally:
            builds.go.set()
        return first.result(), answer


@pytest.mark.parametrize(("number", "code"), [(3, "busy"), (2, "busy")], ids=["another plan", "the same plan"])
def test_s91_past_the_cap_a_build_is_refused_until_later(
    hub: HubEnvironment, builds: Builds, made: list[str], number: int, code: str
) -> None:
    app = hub.make_app(MUSEHUB_MAX_BUILDS=1, MUSEHUB_BUILD_WAIT=0)
    held, refused = beside_a_held_build(
        builds,
        lambda: Caller(app).fetch(REPO, [made[-1]], [made[2]]),
        lambda: Caller(app).fetch(REPO, [made[-1]], [made[number]]),
    )
    assert held.status_code == 200
    assert (refused.status_code, refused.get_json()["code"]) == (503, code)
    assert int(refused.headers["Retry-After"]) >= 1


def test_s91_past_the_cap_few_blobs_are_refused_where_they_are_large(
    hub: HubEnvironment, builds: Builds, made: list[str]
) -> None:
    side = History()
    large = side.commit({"a.txt": bytes(5_000_000)})
    assert hub.caller("alice").push(REPO, side.pack(), large, branch="side").status_code == 200
    hub.run_jobs()
    app = hub.make_app(MUSEHUB_MAX_BUILDS=1, MUSEHUB_BUILD_WAIT=0)
    held, refused = beside_a_held_build(
        builds,
        lambda: Caller(app).fetch(REPO, [made[-1]], [made[2]]),
        lambda: Caller(app).fetch(REPO, [large], [], ["inline"]),
    )
    assert held.status_code == 200
    assert (refused.status_code, refused.get_json()["code"]) == (503, "busy")


def test_who_waits_too_long_for_another_s_build_is_told_so(
    hub: HubEnvironment, builds: Builds, made: list[str]
) -> None:
    app = hub.make_app(MUSEHUB_BUILD_WAIT=0)
    _, refused = beside_a_held_build(
        builds,
        lambda: Caller(app).fetch(REPO, [made[-1]], [made[2]]),
        lambda: Caller(app).fetch(REPO, [made[-1]], [made[2]]),
    )
    assert (refused.status_code, refused.get_json()["code"]) == (503, "building")
    assert int(refused.headers["Retry-After"]) >= 1


def test_past_the_cap_a_ready_answer_is_still_given(hub: HubEnvironment, builds: Builds, made: list[str]) -> None:
    app = hub.make_app(MUSEHUB_MAX_BUILDS=1, MUSEHUB_BUILD_WAIT=0)
    ready = Caller(app).fetch(REPO, [made[-1]], [made[3]])
    builds.begun.clear()
    _, answer = beside_a_held_build(
        builds,
        lambda: Caller(app).fetch(REPO, [made[-1]], [made[2]]),
        lambda: Caller(app).fetch(REPO, [made[-1]], [made[3]]),
    )
    assert answer.status_code == 200
    assert answer.get_json()["mpack_id"] == ready.get_json()["mpack_id"]


@pytest.mark.parametrize("capabilities", [(), ("inline",)], ids=["by URL", "in the answer"])
def test_after_a_build_nobody_holds_a_lease(hub: HubEnvironment, capabilities: tuple[str, ...]) -> None:
    hub.create_repo(REPO)
    made = line_of(hub, 60)
    assert hub.caller().fetch(REPO, [made[-1]], [], capabilities).status_code == 200
    assert hub.row_counts()["musehub_build"] == 0


def test_after_a_build_that_failed_nobody_holds_a_lease(hub: HubEnvironment, made: list[str]) -> None:
    def fail(_: object, name: str) -> None:
        if name == "fetch.packed":
            raise StorageUnavailable("it is away")

    with step.connected_to(fail):
        assert hub.caller().fetch(REPO, [made[-1]], [made[2]]).status_code == 503
    assert hub.row_counts()["musehub_build"] == 0


def test_s92_answers_to_many_haves_are_gone_after_a_collection(hub: HubEnvironment, made: list[str]) -> None:
    before = hub.stored_keys()
    for want in made:
        for have in made:
            for capabilities in ((), ("inline", "thin")):
                assert hub.caller().fetch(REPO, [want], [have], capabilities).status_code == 200
    assert hub.row_counts()["musehub_fetch_plan"] > 0
    with hub.app.app_context():
        collect(hub_of(hub.app), hub_of(hub.app).database(), grace=-1)
    counts = hub.row_counts()
    assert (counts["musehub_fetch_plan"], counts["musehub_fetch_pack"], counts["musehub_build"]) == (0, 0, 0)
    assert hub.stored_keys() == before


def test_s92_answers_to_many_haves_leave_few_rows(
    hub: HubEnvironment, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_KEPT_ANSWERS", 3)
    monkeypatch.setattr(fetch, "_FORGOTTEN_EVERY", 1)
    # That it has the older ones as well makes no difference.
    for older in combinations(made[:4], 2):
        assert hub.caller().fetch(REPO, [made[-1]], [made[4], *older], ["inline"]).status_code == 200
    assert hub.row_counts()["musehub_fetch_plan"] == 3


def collected(hub: HubEnvironment) -> None:
    with hub.app.app_context():
        collect(hub_of(hub.app), hub_of(hub.app).database())


def on_a_deleted_branch(hub: HubEnvironment) -> str:
    """Return a commit that nothing has reached for long, and that the next collection takes."""
    side = History()
    gone = side.commit({"a.txt": b"gone", "b.txt": b"the same"})
    assert hub.caller("alice").push(REPO, side.pack(), gone, branch="side").status_code == 200
    hub.run_jobs()
    with hub.session() as session:
        session.execute(delete(MusehubBranch).where(MusehubBranch.name == "side"))
        session.commit()
    collected(hub)
    with hub.session() as session:
        session.execute(
            update(MusehubCommitRef)
            .where(MusehubCommitRef.commit_id == gone)
            .values(unreachable_since=datetime(2020, 1, 1, tzinfo=UTC))
        )
        session.commit()
    return gone


ways = pytest.mark.parametrize("capabilities", [(), ("inline",)], ids=["by URL", "in the answer"])


@ways
def test_a_commit_that_was_collected_is_not_answered_from_what_was_ready(
    hub: HubEnvironment, made: list[str], capabilities: tuple[str, ...]
) -> None:
    gone = on_a_deleted_branch(hub)
    caller = hub.caller("alice")
    # Its answer is as fresh as can be.
    assert caller.fetch(REPO, [gone], [], capabilities).status_code == 200
    collected(hub)
    answer = caller.fetch(REPO, [gone], [], capabilities)
    assert (answer.status_code, answer.get_json()["code"]) == (404, "want-not-found")


@ways
def test_a_have_that_was_collected_counts_for_as_little_as_one_that_never_was(
    hub: HubEnvironment, made: list[str], capabilities: tuple[str, ...]
) -> None:
    gone = on_a_deleted_branch(hub)
    caller = hub.caller()
    # They have a blob in common.
    assert caller.fetch(REPO, [made[0]], [gone], capabilities).get_json()["blob_count"] == 1
    collected(hub)
    answers = [caller.fetch(REPO, [made[0]], [have], capabilities).get_json() for have in (gone, fake_id("never"))]
    assert answers[0]["mpack_id"] == answers[1]["mpack_id"]


def test_a_have_that_the_repo_does_not_hold_leaves_no_row_of_its_own(hub: HubEnvironment, made: list[str]) -> None:
    for number in range(10):
        answer = hub.caller().fetch(REPO, [made[-1]], [made[2], fake_id(str(number))])
        assert answer.status_code == 200
    assert hub.row_counts()["musehub_fetch_plan"] == 1


def test_n26_packs_of_ready_pieces_are_the_same_bytes_wherever_they_are_made(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    history = History()
    commits: list[str] = []
    for number in range(12):
        commits.append(history.commit({"a.txt": f"{number}".encode() * 50, f"{number}.txt": b"same"}, commits[-1:]))
    found = []
    for name in ("postgres_config", "sqlite_config"):
        folder = tmp_path_factory.mktemp(name)
        storage = {"MUSEHUB_STORAGE": (folder / "objects").as_uri()}
        hub = HubEnvironment(name, folder, {**request.getfixturevalue(name), **storage})
        found.append(answers_after_a_repack(hub, history, commits))
        hub.close()
    assert found[0] == found[1]


def answers_after_a_repack(hub: HubEnvironment, history: History, commits: list[str]) -> list[object]:
    """Push in two parts with a repack in between; return the ids of what clones and fetches are answered with."""
    repo_id = hub.create_repo(REPO)
    caller = hub.caller("alice")
    assert caller.push(REPO, history.pack(want=[commits[8]]), commits[8]).status_code == 200
    hub.run_jobs()
    with hub.app.app_context():
        repack(hub_of(hub.app), hub_of(hub.app).database(), repo_id)
    assert caller.push(REPO, history.pack(have=[commits[8]]), commits[-1]).status_code == 200
    hub.run_jobs()
    whole = caller.fetch(REPO, [commits[-1]]).get_json()
    several = caller.fetch(REPO, [commits[-1]], [], ["mpacks"]).get_json()
    thin = caller.fetch(REPO, [commits[-1]], [commits[5]], ["inline", "thin"]).get_json()
    return [whole["mpack_id"], [each["id"] for each in several["mpacks"]], thin["mpack_id"], thin["mpack"]]
