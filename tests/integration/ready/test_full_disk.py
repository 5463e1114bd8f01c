"""A disk that has no room for what a large plan keeps in files."""

from __future__ import annotations

import resource
from pathlib import Path

from musehub_plugin.testing.apps import close_app, hub_of, make_app
from musehub_plugin.testing.factories import History, create_repo
from tests.exchange import Caller

REPO = "alice/songs"
# Past a thousand snapshots, and a megabyte of paths, what they change is in a file.
COMMITS = 1_001
FILES = 30


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
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            answer = caller.fetch(REPO, parents)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "storage-unavailable")
    close_app(app)
