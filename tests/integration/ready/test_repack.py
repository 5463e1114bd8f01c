"""Repack: few packs of many pushes, at the cost of sorting them; what they replace goes after the grace period."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from sqlalchemy import delete, select

from musehub_plugin.gc import collect
from musehub_plugin.ids import to_hex
from musehub_plugin.models import MusehubBranch, MusehubRepo, MusehubSnapshot
from musehub_plugin.repack import Repacked, repack
from musehub_plugin.scrub import scrub
from musehub_plugin.store.models import MusehubClonePack, MusehubMPackIndex, MusehubMPackRef
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.integration.ready.receiving import Receiver

REPO = "alice/songs"
FORK = "alice/fork"


class Growing:
    """A repo that is pushed to, commit by commit."""

    def __init__(self, hub: HubEnvironment, repo: str = REPO) -> None:
        self.hub = hub
        self.repo = repo
        self.repo_id = hub.create_repo(repo)
        self.caller = hub.caller("alice")
        self.history = History()
        self.made: list[str] = []

    def push(self, count: int = 1, *, on: str | None = None, branch: str = "main", force: bool = False) -> str:
        """Push new commits one by one, each of two new blobs; return the last."""
        tip = on or (self.made[-1] if self.made else None)
        for _ in range(count):
            number = len(self.history.commits)
            files = {"a.txt": f"{self.repo} a {number}".encode(), "b.txt": f"{self.repo} b {number}".encode()}
            parents = [] if tip is None else [tip]
            head = self.history.commit(files, parents)
            pack = self.history.pack(want=[head], have=parents)
            response = self.caller.push(self.repo, pack, head, branch=branch, force=force)
            assert response.status_code == 200, response.get_data(as_text=True)
            tip = head
            self.made.append(head)
        self.hub.run_jobs()
        assert tip is not None
        return tip

    def repack(self, *, whole: bool = False) -> Repacked:
        """Repack the repo."""
        with self.hub.app.app_context():
            return repack(hub_of(self.hub.app), hub_of(self.hub.app).database(), self.repo_id, whole=whole)

    def chain(self) -> list[MusehubClonePack]:
        """Return the rows of the clone packs, in order."""
        with self.hub.session() as session:
            rows = select(MusehubClonePack).where(MusehubClonePack.repo_id == self.repo_id)
            return list(session.execute(rows.order_by(MusehubClonePack.position)).scalars())

    def assert_cloned(self, *heads: str) -> None:
        """Assert that a clone is exactly what the heads reach, as one pack and as several."""
        commits = self.history.reachable(heads)
        for capabilities in ((), ("mpacks",)):
            receiver = Receiver(self.caller, self.repo)
            assert receiver.fetch(list(heads), [], capabilities).commits == commits
            snapshots = {self.history.commits[commit_id]["snapshot_id"] for commit_id in commits}
            assert receiver.manifests == {each: self.history.snapshots[each] for each in snapshots}


def collected(hub: HubEnvironment, *, grace: int) -> None:
    for _ in range(2):
        with hub.app.app_context():
            collect(hub_of(hub.app), hub_of(hub.app).database(), grace=grace)


def problems(hub: HubEnvironment) -> list[object]:
    with hub.app.app_context():
        return list(scrub(hub_of(hub.app), hub_of(hub.app).database()).problems)


@pytest.fixture
def growing(hub: HubEnvironment) -> Growing:
    return Growing(hub)


@pytest.mark.parametrize("hub", ["sqlite+files"], indirect=True)
def test_there_are_few_packs_and_each_blob_is_written_a_few_times_over_many_pushes(growing: Growing) -> None:
    pushes = 64
    seen: set[str] = set()
    written = 0
    for _ in range(pushes):
        growing.push()
        growing.repack()
        chain = growing.chain()
        assert len(chain) <= 7
        written += sum(each.blob_count for each in chain if each.mpack_id not in seen)
        seen.update(each.mpack_id for each in chain)
    # Two blobs a push, each copied no more often than the logarithm of their number.
    assert written <= 2 * pushes * 7
    growing.assert_cloned(growing.made[-1])


def test_a_pack_of_the_chain_is_twice_as_large_as_the_next(growing: Growing) -> None:
    for count in (9, 3, 2, 1):
        growing.push(count)
        growing.repack()
        weights = [each.commit_count + each.blob_count for each in growing.chain()]
        assert all(2 * later <= earlier for earlier, later in pairwise(weights)), weights


def test_a_second_repack_makes_nothing(growing: Growing) -> None:
    growing.push(5)
    growing.repack()
    before = growing.hub.stored_keys()
    assert growing.repack().made == 0
    assert growing.hub.stored_keys() == before


def test_a_whole_repack_makes_one_pack_of_a_chain(growing: Growing) -> None:
    growing.push(9)
    growing.repack()
    growing.push(2)
    growing.repack()
    assert len(growing.chain()) == 2
    assert growing.repack(whole=True).clone_packs == 1
    growing.assert_cloned(growing.made[-1])


def test_a_clone_of_two_packs_and_what_came_since_is_three_that_share_nothing(growing: Growing) -> None:
    for count in (9, 2):
        growing.push(count)
        growing.repack()
    head = growing.push()
    received = Receiver(growing.caller, REPO).fetch([head], [], ["mpacks"])
    assert len(received.packs) == 3
    assert received.answer["commit_count"] == len(growing.made)
    growing.assert_cloned(head)


def test_pushed_packs_stay_for_the_grace_period_and_go_after_it(growing: Growing) -> None:
    growing.push(4)
    pushed = {key for key in growing.hub.stored_keys() if "mpacks/" in key}
    growing.repack()
    collected(growing.hub, grace=3600)
    assert pushed <= growing.hub.stored_keys()
    collected(growing.hub, grace=-1)
    (chain,) = growing.chain()
    (left,) = (key for key in growing.hub.stored_keys() if "mpacks/" in key)
    assert left.replace("/", "").endswith(to_hex(chain.mpack_id))
    growing.assert_cloned(growing.made[-1])


def test_index_rows_point_at_the_new_pack_alone(growing: Growing) -> None:
    growing.push(4)
    growing.repack()
    (chain,) = growing.chain()
    with growing.hub.session() as session:
        assert set(session.execute(select(MusehubMPackIndex.mpack_id)).scalars()) == {chain.mpack_id}
        assert session.execute(select(MusehubMPackRef.mpack_id)).scalars().all() == [chain.mpack_id]


def test_repacks_and_collections_in_turn_leave_nothing_that_a_scrub_complains_of(growing: Growing) -> None:
    for _ in range(3):
        growing.push(3)
        growing.repack()
        collected(growing.hub, grace=-1)
        growing.push()
        collected(growing.hub, grace=-1)
        growing.repack()
    assert problems(growing.hub) == []
    growing.assert_cloned(growing.made[-1])


def test_a_fork_still_clones_when_the_other_repo_is_repacked_deleted_and_collected(hub: HubEnvironment) -> None:
    origin = Growing(hub)
    origin.push(5)
    fork = Growing(hub, FORK)
    fork.history, fork.made = origin.history, list(origin.made)
    response = hub.caller("alice").push(FORK, origin.history.pack(), origin.made[-1])
    assert response.status_code == 200
    hub.run_jobs()
    fork.repack()
    origin.repack()
    with hub.session() as session:
        row = session.get_one(MusehubRepo, origin.repo_id)
        row.deleted_at = row.created_at.replace(year=2020)
        session.commit()
    collected(hub, grace=-1)
    fork.assert_cloned(fork.made[-1])
    assert problems(hub) == []


def test_a_chain_whose_head_was_forced_away_is_not_what_a_clone_begins_with(growing: Growing) -> None:
    growing.push(6)
    growing.repack()
    instead = growing.push(on=growing.made[2], force=True)
    growing.assert_cloned(instead)
    growing.repack()
    growing.assert_cloned(instead)
    collected(growing.hub, grace=-1)
    growing.repack()
    growing.assert_cloned(instead)
    assert problems(growing.hub) == []


def test_what_only_other_branches_reach_is_in_few_packs_and_can_be_fetched(growing: Growing) -> None:
    base = growing.push(3)
    side = growing.push(8, on=base, branch="side")
    growing.repack()
    collected(growing.hub, grace=-1)
    assert len([key for key in growing.hub.stored_keys() if "mpacks/" in key]) == 2
    growing.assert_cloned(base, side)
    growing.assert_cloned(side)


def test_a_branch_that_is_gone_is_collected_and_the_rest_still_clones(growing: Growing) -> None:
    base = growing.push(3)
    growing.push(6, on=base, branch="side")
    growing.repack()
    with growing.hub.session() as session:
        session.delete(session.get_one(MusehubBranch, (growing.repo_id, "side")))
        session.commit()
    collected(growing.hub, grace=-1)
    growing.assert_cloned(base)
    growing.repack()
    collected(growing.hub, grace=-1)
    growing.assert_cloned(base)
    assert problems(growing.hub) == []


def test_the_command_says_what_it_did(growing: Growing) -> None:
    growing.push(3)
    done = growing.hub.app.test_cli_runner().invoke(args=["musehub", "repack", REPO])
    assert done.exit_code == 0, done.output
    assert f"{REPO}: 1 packs made; a clone is 1 packs" in done.output


def test_the_command_gives_one_json_object_a_repo(growing: Growing) -> None:
    growing.push(3)
    Growing(growing.hub, FORK).push(2)
    done = growing.hub.app.test_cli_runner().invoke(args=["musehub", "repack", "--all", "--json"])
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [each["made"] for each in found] == [1, 1]
    assert all({"repo", "clone_packs", "size_bytes", "retired", "seconds"} <= each.keys() for each in found)


def test_the_command_fails_for_a_repo_that_is_not_there(growing: Growing) -> None:
    done = growing.hub.app.test_cli_runner().invoke(args=["musehub", "repack", "alice/none"])
    assert done.exit_code == 1
    assert "alice/none" in done.output


@pytest.mark.parametrize("arguments", [[], [REPO, "--all"]], ids=["neither", "both"])
def test_the_command_wants_names_or_all(growing: Growing, arguments: list[str]) -> None:
    done = growing.hub.app.test_cli_runner().invoke(args=["musehub", "repack", *arguments])
    assert done.exit_code == 2


def test_the_command_goes_on_after_a_repo_that_fails_and_exits_with_one(growing: Growing) -> None:
    other = Growing(growing.hub, FORK)
    other.push(2)
    head = growing.history.commit({"a.txt": b"not indexed"})
    response = growing.caller.push(REPO, growing.history.pack(), head)
    assert response.status_code == 200
    growing.hub.run_jobs()
    with growing.hub.session() as session:
        session.execute(delete(MusehubSnapshot).where(MusehubSnapshot.snapshot_id.in_(growing.history.snapshots)))
        session.commit()
    done = growing.hub.app.test_cli_runner().invoke(args=["musehub", "repack", REPO, FORK])
    assert done.exit_code == 1
    assert f"{FORK}: 1 packs made" in done.output
