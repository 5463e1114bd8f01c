"""`flask musehub verify`, interrupted: what it has found is said, and the next run misses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import BinaryIO

import pytest
from flask import Flask

from musehub_plugin import ids
from musehub_plugin.storage import MemoryStorage
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History, create_repo
from tests.exchange import Caller


class InterruptedStorage(MemoryStorage):
    """Somebody presses Ctrl-C when an mpack is opened."""

    at: str | None = None

    def open_mpack(self, mpack_id: str) -> BinaryIO | None:
        """Return an mpack, unless it is the one."""
        if mpack_id == self.at:
            raise KeyboardInterrupt
        return super().open_mpack(mpack_id)


@pytest.fixture
def storage() -> InterruptedStorage:
    """Storage that nobody interrupts yet."""
    return InterruptedStorage()


@pytest.fixture
def app(musehub_make_app: Callable[..., Flask], storage: InterruptedStorage) -> Flask:
    """A hub with the empty repo `alice/songs`."""
    app = musehub_make_app(MUSEHUB_STORAGE=storage)
    with app.app_context():
        create_repo(hub_of(app).sqlalchemy.session)
    return app


@pytest.fixture
def mpack_ids(app: Flask, storage: InterruptedStorage) -> list[str]:
    """Three pushed mpacks in the order in which they are looked at; the first and the second are damaged."""
    found = []
    for number in range(3):
        history = History()
        head = history.commit({"a.txt": bytes([number])})
        pack = history.pack()
        assert Caller(app, "alice").push("alice/songs", pack, head, branch=f"b{number}").status_code == 200
        found.append(ids.blob_id(pack))
    for mpack_id in sorted(found)[:2]:
        storage.delete_mpack(mpack_id)
        storage.put_mpack(mpack_id, b"rubbish")
    return sorted(found)


def test_what_was_found_before_the_interruption_is_said(
    app: Flask, storage: InterruptedStorage, mpack_ids: list[str]
) -> None:
    storage.at = mpack_ids[1]
    done = app.test_cli_runner().invoke(args=["musehub", "verify", "--json"])
    assert [found["subject"] for found in json.loads(done.stdout)["problems"]] == mpack_ids[:1]


def test_the_run_that_goes_on_begins_with_the_mpack_that_was_not_done(
    app: Flask, storage: InterruptedStorage, mpack_ids: list[str]
) -> None:
    storage.at = mpack_ids[1]
    interrupted = app.test_cli_runner().invoke(args=["musehub", "verify"])
    storage.at = None
    after = interrupted.stderr.split()[-2:]
    resumed = app.test_cli_runner().invoke(args=["musehub", "verify", "--json", *after])
    found = [problem["subject"] for problem in json.loads(resumed.stdout)["problems"]]
    assert found[:1] == mpack_ids[1:2]


def test_an_interruption_before_the_first_mpack_was_done_says_to_begin_again(
    app: Flask, storage: InterruptedStorage, mpack_ids: list[str]
) -> None:
    storage.at = mpack_ids[0]
    done = app.test_cli_runner().invoke(args=["musehub", "verify"])
    assert (done.exit_code, done.stderr) == (1, "Error: interrupted; begin again\n")


def test_an_after_that_is_no_id_is_wrong_usage(app: Flask) -> None:
    done = app.test_cli_runner().invoke(args=["musehub", "verify", "--after", "sha256:12"])
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        2,
        "Error: --after 'sha256:12' is no mpack's id, sha256: and 64 hex digits.",
    )
