"""Random histories pushed in random pieces: every answer is exactly the delta, ready-made or not (S14, S15)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from musehub_plugin import ids
from musehub_plugin.gc import collect
from musehub_plugin.mpack import build_wire_mpack
from musehub_plugin.repack import repack
from musehub_plugin.store import manifests
from musehub_plugin.testing.apps import hub_of
from tests.dags import History, random_dag
from tests.environment import HubEnvironment
from tests.integration.ready.receiving import ALL_CAPABILITIES, Received, Receiver

REPO = "alice/songs"
PATHS = tuple(f"{folder}/{number}.txt" for folder in ("a", "b/c") for number in range(4))


class Exchange:
    """A repo, what was pushed to it, and clients.

    Args:
        hub: the hub.
        seed: of everything that is drawn.
    """

    def __init__(self, hub: HubEnvironment, seed: int) -> None:
        self.hub = hub
        self.chance = random.Random(seed)
        self.repo_id = hub.create_repo(REPO)
        self.caller = hub.caller("alice")
        self.contents: dict[str, bytes] = {}
        self.history = self.drawn_history(seed)
        self.pushed: set[str] = set()
        self.pushed_packs: set[str] = set()
        self.heads: dict[str, str] = {}

    def drawn_history(self, seed: int) -> History:
        """Return a history with merges, reverts, shared snapshots and files that change a little."""
        history = History()
        for number, parents in enumerate(random_dag(self.chance, 30, f"{seed} ").parents):
            parent_ids = [history.order[parent] for parent in parents]
            kind = self.chance.random()
            if history.manifests and kind < 0.15:
                manifest = dict(self.chance.choice(list(history.manifests.values())))
            else:
                manifest = dict(history.manifests[history.records[parent_ids[0]]["snapshot_id"]]) if parent_ids else {}
                for path in self.chance.sample(PATHS, self.chance.randint(0, 3)):
                    if path in manifest and self.chance.random() < 0.2:
                        del manifest[path]
                    else:
                        manifest[path] = self.content()
            history.commit(parent_ids, manifest, f"{seed} {number}")
        return history

    def content(self) -> str:
        """Return a blob that resembles others, or is one of them."""
        lines = [f"line {line} of what is much the same\n" for line in range(30)]
        lines[self.chance.randrange(30)] = f"{self.chance.randrange(12)}\n"
        content = "".join(lines).encode()
        self.contents[ids.blob_id(content)] = content
        return ids.blob_id(content)

    def push(self, head: str, branch: str, *, all_of: bool = False) -> None:
        """Push a commit with what the hub lacks of it, snapshots in any order; with `all_of`, with all of it."""
        held = set() if all_of else self.pushed
        new = self.history.reach([head]) - held
        commits = [commit_id for commit_id in self.history.order if commit_id in new]
        held_snapshots = {self.history.records[commit_id]["snapshot_id"] for commit_id in held}
        needed = {self.history.records[commit_id]["snapshot_id"] for commit_id in commits} - held_snapshots
        snapshots = sorted(needed)
        self.chance.shuffle(snapshots)
        blobs = {item for each in snapshots for item in self.history.manifests[each].values()}
        pack = build_wire_mpack(
            commits=[self.history.records[commit_id] for commit_id in commits],
            snapshots=[{"snapshot_id": each, "manifest": self.history.manifests[each]} for each in snapshots],
            blobs=[
                {"object_id": each, "content": self.contents[each]} for each in sorted(blobs - self.history.blobs(held))
            ],
        )
        response = self.caller.push(REPO, pack, head, branch=branch, force=True)
        assert response.status_code == 200, response.get_data(as_text=True)
        self.hub.run_jobs()
        self.pushed |= self.history.reach([head])
        self.pushed_packs.add(ids.blob_id(pack))
        self.heads[branch] = head

    def push_all(self) -> None:
        """Push the history in random pieces to a few branches, some of them forced elsewhere."""
        order = self.history.order
        for head in sorted(self.chance.sample(order, min(len(order), 5)), key=order.index):
            branch = self.chance.choice(("main", "main", "side"))
            self.push(head, branch, all_of=self.chance.random() < 0.2)
        self.push(order[-1], "main")

    def repack(self) -> None:
        """Repack the repo."""
        with self.hub.app.app_context():
            repack(hub_of(self.hub.app), hub_of(self.hub.app).database(), self.repo_id)

    def collect(self) -> None:
        """Collect garbage at once; what no branch reaches is gone then."""
        for _ in range(2):
            with self.hub.app.app_context():
                collect(hub_of(self.hub.app), hub_of(self.hub.app).database(), grace=-1)
        self.pushed = self.history.reach(self.heads.values())

    def some(self, at_least: int) -> list[str]:
        """Return a few commits that the hub holds."""
        return self.chance.choices(sorted(self.pushed), k=self.chance.randint(at_least, 3))

    def questions(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield wants and haves: a clone, a few behind, anything."""
        heads = sorted(set(self.heads.values()))
        yield heads, []
        yield [self.heads["main"]], []
        yield [self.heads["main"]], self.some(1)
        yield self.some(1), self.some(0)
        yield self.some(1), [*self.some(1), ids.fake_id("nobody")]

    def receiver(self, have: Iterable[str]) -> Receiver:
        """Return a client that holds commits and all that they reach."""
        found = Receiver(self.caller, REPO)
        for commit_id in self.history.reach(have):
            snapshot_id = self.history.records[commit_id]["snapshot_id"]
            found.manifests[snapshot_id] = self.history.manifests[snapshot_id]
            found.blobs.update((each, self.contents[each]) for each in self.history.manifests[snapshot_id].values())
        return found

    def ask_all(self) -> list[Received]:
        """Ask everything with all capabilities, twice; assert that every answer is exactly the delta."""
        found = []
        for want, have in self.questions():
            expected = self.history.delta(want, have)
            for capabilities in ALL_CAPABILITIES:
                for _ in range(2):
                    received = self.receiver(have).fetch(want, have, capabilities)
                    assert received.entities == expected, (want, have, capabilities)
                    found.append(received)
        return found


SEEDS = range(2)


@pytest.mark.parametrize("seed", SEEDS)
def test_s15_every_answer_is_the_delta_before_and_after_repacks_and_collections(hub: HubEnvironment, seed: int) -> None:
    exchange = Exchange(hub, seed)
    exchange.push_all()
    exchange.ask_all()
    exchange.repack()
    exchange.ask_all()
    exchange.collect()
    exchange.ask_all()
    exchange.repack()
    exchange.ask_all()


@pytest.mark.parametrize("seed", SEEDS)
def test_s15_answers_stay_the_delta_while_pushes_and_repacks_take_turns(hub: HubEnvironment, seed: int) -> None:
    exchange = Exchange(hub, 100 + seed)
    order = exchange.history.order
    for position in range(0, len(order), 4):
        exchange.push(order[position], exchange.chance.choice(("main", "side")))
        exchange.heads.setdefault("main", order[position])
        exchange.repack()
        for want, have in exchange.questions():
            capabilities = exchange.chance.choice(ALL_CAPABILITIES)
            received = exchange.receiver(have).fetch(want, have, capabilities)
            assert received.entities == exchange.history.delta(want, have), (want, have, capabilities)


@pytest.mark.parametrize("seed", SEEDS)
def test_manifests_read_back_whatever_was_pushed_in_what_order(hub: HubEnvironment, seed: int) -> None:
    exchange = Exchange(hub, 200 + seed)
    exchange.push_all()
    exchange.collect()
    held = {exchange.history.records[commit_id]["snapshot_id"] for commit_id in exchange.pushed}
    with hub.app.app_context():
        found = dict(manifests.manifests(hub_of(hub.app).database(), exchange.repo_id, sorted(held)))
    assert found == {snapshot_id: exchange.history.manifests[snapshot_id] for snapshot_id in held}


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_push_the_packed_history_knows_every_commit(hub: HubEnvironment, seed: int) -> None:
    exchange = Exchange(hub, 300 + seed)
    exchange.push_all()
    with hub.app.app_context():
        packed = hub_of(hub.app).graphs.load(hub_of(hub.app).database(), exchange.repo_id)
    assert {packed.commit_id(commit) for commit in range(len(packed))} == exchange.pushed


def test_s14_no_answer_names_a_pushed_pack(hub: HubEnvironment) -> None:
    exchange = Exchange(hub, 14)
    exchange.push_all()
    given = []
    for _ in range(2):
        for received in exchange.ask_all():
            entries = received.answer.get("mpacks") or [received.answer]
            given += [
                (entry.get("id", entry.get("mpack_id")), entry.get("url", entry.get("mpack_url"))) for entry in entries
            ]
        exchange.repack()
    names = {ids.to_hex(mpack_id)[2:] for mpack_id in exchange.pushed_packs}
    assert not {mpack_id for mpack_id, _ in given} & exchange.pushed_packs
    assert not [url for _, url in given if url is not None and any(name in url for name in names)]
