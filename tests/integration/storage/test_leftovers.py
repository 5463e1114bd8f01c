"""What writers that were killed left in a folder goes with the garbage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from musehub_plugin.gc import collect
from musehub_plugin.storage import FileStorage
from musehub_plugin.testing.apps import close_app, hub_of, make_app


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    """A hub with its storage in a folder."""
    app = make_app(tmp_path, {"MUSEHUB_STORAGE": (tmp_path / "objects").as_uri()})
    yield app
    close_app(app)


def part(app: Flask, name: str) -> Path:
    """Leave a file half written, a week ago."""
    storage = hub_of(app).storage
    assert isinstance(storage, FileStorage)
    storage.ping()
    left = storage.root / "parts" / name
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    return left


def test_a_collection_removes_what_a_killed_writer_left(app: Flask) -> None:
    left = part(app, "left.part")
    with app.app_context():
        done = collect(hub_of(app), hub_of(app).database())
    assert (done.leftovers, left.exists()) == (1, False)


def test_a_dry_run_leaves_it(app: Flask) -> None:
    left = part(app, "left.part")
    with app.app_context():
        collect(hub_of(app), hub_of(app).database(), dry_run=True)
    assert left.exists()
