"""A disk that has no room for what a large plan keeps in files."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import delete

from musehub_plugin import commitspool
from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.repack import pack_rows
from musehub_plugin.store.models import MusehubGraphSegment
from musehub_plugin.testing.apps import close_app, hub_of, make_app
from musehub_plugin.testing.factories import History, create_repo
from tests.exchange import Caller
from tests.shortage import full_disk

REPO = "alice/songs"
# Past a thousand snapshots, and a megabyte of paths, what they change is in a file.
COMMITS = 1_001
FILES = 30


def test_r25_a_full_disk_puts_off_the_packing_of_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(tmp_path, {"SQLALCHEMY_DATABASE_URI": "sqlite://"})
    with app.app_context():
        session = hub_of(app).sqlalchemy.session
        repo_id = create_repo(session).repo_id
        history = History()
        head = history.commit({"a.txt": b"la la la"})
        assert Caller(app, "alice").push(REPO, history.pack(), head).status_code == 200
        session.execute(delete(MusehubGraphSegment))
        session.commit()
        monkeypatch.setattr(commitspool, "_HELD", 0)
        with full_disk(100), pytest.raises(StorageUnavailable, match="no room"):
            pack_rows(hub_of(app), hub_of(app).database(), repo_id)
    close_app(app)


def test_r25_a_full_disk_is_a_fetch_to_try_again_however_large_its_plan(tmp_path: Path) -> None:
    # In memory, so that the limit is on temporary files alone.
    app = make_app(tmp_path, {"SQLALCHEMY_DATABASE_URI": "sqlite://"})
    with app.app_context():
        create_repo(hub_of(app).sqlalchemy.session)
        history, parents = History(), list[str]()
        song = history.blob(b"la la la")
        for number in range(COMMITS):
            tree = {f"{number:04}/{'a' * 50}/{file}.txt": song for file in range(FILES)}
            parents = [history.commit(tree, parents)]
        caller = Caller(app, "alice")
        assert caller.push(REPO, history.pack(), parents[0]).status_code == 200
        with full_disk(100):
            answer = caller.fetch(REPO, parents)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "storage-unavailable")
    close_app(app)
