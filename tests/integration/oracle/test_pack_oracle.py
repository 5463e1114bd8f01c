"""What fetches deliver: whole histories, byte for byte the same whoever asks and wherever the rows lie."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, select

from musehub_plugin import ids
from musehub_plugin.models import MusehubCommitGraph
from musehub_plugin.testing.apps import close_app, hub_of, make_app
from musehub_plugin.testing.factories import History, create_repo
from tests.dags import Dag, random_dag
from tests.exchange import Caller
from tests.integration.oracle.client_store import ClientStore

REPO = "alice/songs"


@pytest.fixture
def sqlite_app(tmp_path: Path, sqlite_config: dict[str, Any]) -> Iterator[Flask]:
    app = prepared(tmp_path / "sqlite", sqlite_config)
    yield app
    close_app(app)


@pytest.fixture
def postgres_app(tmp_path: Path, postgres_config: dict[str, Any]) -> Iterator[Flask]:
    app = prepared(tmp_path / "postgres", postgres_config)
    yield app
    close_app(app)


def prepared(directory: Path, config: Mapping[str, Any]) -> Flask:
    directory.mkdir()
    app = make_app(directory, {"MUSEHUB_STORAGE": (directory / "objects").as_uri(), **config})
    with app.app_context():
        create_repo(hub_of(app).sqlalchemy.session, *REPO.split("/"))
    return app


def built(dag: Dag) -> tuple[History, list[str]]:
    """Return a history of a graph's shape, and its commits in their order."""
    history = History()
    order: list[str] = []
    for number, parents in enumerate(dag.parents):
        files = {path: f"{dag.salt} {content}".encode() for path, content in dag.trees[number]}
        order.append(history.commit(files, [order[parent] for parent in parents], message=f"{dag.salt}{number}"))
    return history, order


def push_in_parts(caller: Caller, history: History, order: list[str], parts: int) -> None:
    """Push a history as several packs, each by the commits that a client would still have to send."""
    sent: list[str] = []
    size = -(-len(order) // parts)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        pack = history.pack(want=part, have=sent)
        sent += part
        response = caller.push(REPO, pack, part[-1], branch=f"part-{start}", force=True)
        assert response.status_code == 200, response.get_data(as_text=True)


def test_n26_n27_both_databases_give_the_same_bytes_for_the_same_pushes(sqlite_app: Flask, postgres_app: Flask) -> None:
    chance = random.Random(27)
    history, order = built(random_dag(chance, 25, "n27 "))
    callers = [Caller(app, "alice") for app in (sqlite_app, postgres_app)]
    for caller, parts in zip(callers, (2, 3), strict=True):
        push_in_parts(caller, history, order, parts)
    for _ in range(15):
        want, have = chance.choices(order, k=2), chance.choices(order, k=chance.randint(0, 2))
        answers = [caller.fetch(REPO, want, have).get_json() for caller in callers]
        assert answers[0]["mpack_id"] == answers[1]["mpack_id"], (want, have)


HASH_SEED_PROGRAM = """
import sys
from pathlib import Path
from musehub_plugin.testing.apps import client_for, make_app
directory, database, objects, *want = sys.argv[1:]
app = make_app(Path(directory), {"SQLALCHEMY_DATABASE_URI": database, "MUSEHUB_STORAGE": objects})
client = client_for(app, "alice")
body = {"want": want, "have": []}
print(client.post("/alice/songs/fetch", json=body, headers={"Accept": "application/json"}).get_json()["mpack_id"])
"""


def test_n26_another_process_with_another_hash_seed_gives_the_same_bytes(sqlite_app: Flask, tmp_path: Path) -> None:
    history, order = built(random_dag(random.Random(26), 25, "n26 "))
    caller = Caller(sqlite_app, "alice")
    push_in_parts(caller, history, order, 2)
    want = [order[-1], *order[::5]]
    expected = caller.fetch(REPO, want).get_json()["mpack_id"]
    places = [sqlite_app.config[key] for key in ("SQLALCHEMY_DATABASE_URI", "MUSEHUB_STORAGE")]
    found = {
        subprocess.run(
            [sys.executable, "-c", HASH_SEED_PROGRAM, str(tmp_path), *places, *want],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {expected}


def test_n08_n09_every_order_of_wants_and_haves_gives_the_same_mpack(sqlite_app: Flask) -> None:
    history, order = built(random_dag(random.Random(8), 20, "n08 "))
    caller = Caller(sqlite_app, "alice")
    push_in_parts(caller, history, order, 1)
    tips = [order[-1], order[-3], order[-5]]
    haves = [order[0], order[2]]
    found = {
        caller.fetch(REPO, [*want, want[0]], list(have)).get_json()["mpack_id"]
        for want in itertools.permutations(tips)
        for have in itertools.permutations(haves)
    }
    assert len(found) == 1
    assert found != {None}


@pytest.mark.parametrize("seed", range(4))
def test_n16_n29_a_client_that_fetches_in_steps_holds_all_of_it(sqlite_app: Flask, seed: int) -> None:
    chance = random.Random(seed)
    history, order = built(random_dag(chance, 20, f"n16 {seed} "))
    caller = Caller(sqlite_app, "alice")
    push_in_parts(caller, history, order, 2)
    stepwise, at_once = ClientStore(), ClientStore()
    heads: list[str] = []
    for step in (chance.choices(order, k=2), chance.choices(order, k=1), [order[-1]]):
        stepwise.fetch(caller, REPO, step, heads)
        heads += step
    at_once.fetch(caller, REPO, heads, [])
    assert (stepwise.false_ids(), stepwise.missing()) == ([], set())
    assert vars(stepwise) == vars(at_once)


def test_n18_fetching_with_no_haves_repairs_a_client(sqlite_app: Flask) -> None:
    history, order = built(random_dag(random.Random(18), 12, "n18 "))
    caller = Caller(sqlite_app, "alice")
    push_in_parts(caller, history, order, 1)
    store = ClientStore()
    store.fetch(caller, REPO, [order[-1]], [])
    whole = dict(store.blobs)
    store.blobs.clear()
    store.fetch(caller, REPO, [order[-1]], [])
    assert store.blobs == whole


def test_n14_a_commit_that_changes_nothing_comes_without_blobs(sqlite_app: Flask) -> None:
    history = History()
    first = history.commit({"a.txt": b"one"})
    second = history.commit({"a.txt": b"one"}, [first])
    caller = Caller(sqlite_app, "alice")
    caller.push(REPO, history.pack(), second)
    answer = caller.fetch(REPO, [second], [first]).get_json()
    assert (answer["commit_count"], answer["blob_count"]) == (1, 0)
    assert answer["mpack_url"] is not None


def test_n15_s80_the_empty_blob_and_the_empty_manifest_come_through(sqlite_app: Flask) -> None:
    history = History()
    first = history.commit({})
    second = history.commit({"empty": b""}, [first])
    caller = Caller(sqlite_app, "alice")
    caller.push(REPO, history.pack(), second)
    store = ClientStore()
    store.fetch(caller, REPO, [second], [])
    assert store.blobs == {ids.blob_id(b""): b""}
    assert store.snapshots[ids.snapshot_id({})] == {}


def test_n22_a_push_numbers_generations_over_what_it_finds(postgres_app: Flask) -> None:
    history, order = built(random_dag(random.Random(22), 25, "n22 "))
    push_in_parts(Caller(postgres_app, "alice"), history, order, 4)
    expected: dict[str, int] = {}
    for commit_id in order:
        parents = history.commits[commit_id]["parent_ids"]
        expected[commit_id] = 1 + max((expected[parent] for parent in parents), default=0)
    with postgres_app.app_context():
        statement = select(MusehubCommitGraph.commit_id, MusehubCommitGraph.generation)
        rows = hub_of(postgres_app).database().execute(statement)
        assert {row.commit_id: row.generation for row in rows} == expected


def test_n23_a_push_during_a_fetch_does_not_change_its_answer(postgres_app: Flask) -> None:
    history = History()
    first = history.commit({"a.txt": b"one"})
    second = history.commit({"a.txt": b"two"}, [first])
    third = history.commit({"a.txt": b"three"}, [second])
    caller = Caller(postgres_app, "alice")
    assert caller.push(REPO, history.pack(want=[second]), second).status_code == 200
    expected = caller.fetch(REPO, [second]).get_json()["mpack_id"]
    with postgres_app.app_context():
        engine = hub_of(postgres_app).sqlalchemy.engine
    pushed: list[int] = []

    def push_in_between(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "manifest_blob" in statement and not pushed:
            pushed.append(0)
            pushed[0] = caller.push(REPO, history.pack(have=[second]), third, expected_head=second).status_code

    event.listen(engine, "before_cursor_execute", push_in_between)
    try:
        # Another question, so that the answer to the first one will not do.
        found = Caller(postgres_app).fetch(REPO, [second], capabilities=["mpacks"]).get_json()["mpack_id"]
    finally:
        event.remove(engine, "before_cursor_execute", push_in_between)
    assert (pushed, found) == ([200], expected)


def test_n25_a_head_that_was_forced_away_can_still_be_fetched(sqlite_app: Flask) -> None:
    history = History()
    first = history.commit({"a.txt": b"one"})
    gone = history.commit({"a.txt": b"two"}, [first])
    instead = history.commit({"a.txt": b"three"}, [first])
    caller = Caller(sqlite_app, "alice")
    caller.push(REPO, history.pack(want=[gone]), gone)
    assert caller.push(REPO, history.pack(want=[instead], have=[first]), instead, force=True).status_code == 200
    store = ClientStore()
    store.fetch(caller, REPO, [gone], [])
    assert store.commits.keys() == {first, gone}
