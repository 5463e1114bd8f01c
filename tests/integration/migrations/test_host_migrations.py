"""A host with migrations of its own: neither history touches the other's tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import inspect

from musehub_plugin import MuseHub
from musehub_plugin.models import Base
from musehub_plugin.store import migrate

HOST = """
import sys
from pathlib import Path
from flask import Flask
from flask_migrate import Migrate, init, migrate, upgrade
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import inspect, text
from musehub_plugin import MuseHub
from musehub_plugin.store import migrate as plugin_migrate

folder, order, own_filter = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "own"
app = Flask("host", instance_path=str(folder))
app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder / 'host.db'}"
db = SQLAlchemy(app)

class Account(db.Model):
    id = db.Column(db.Integer, primary_key=True)

given = {"include_name": lambda name, kind, parents: name != "legacy"} if own_filter else {}
if order == "plugin last":
    Migrate(app, db, **given)
    MuseHub(app, db)
elif order == "plugin first":
    MuseHub(app, db)
    Migrate(app, db, **given)
else:
    MuseHub(app, db)
    Migrate().init_app(app, db, **given)

with app.app_context():
    with db.engine.begin() as connection:
        connection.execute(text("CREATE TABLE legacy (id INTEGER)"))
    plugin_migrate.upgrade(db.engine)
    init(directory=str(folder / "migrations"))
    migrate(directory=str(folder / "migrations"), message="accounts")
    upgrade(directory=str(folder / "migrations"))
    print(*inspect(db.engine).get_table_names(), file=open(folder / "tables", "w"))
"""


def autogenerate(folder: Path, order: str, filters: str) -> tuple[str, set[str]]:
    """Run a host's `flask db migrate` and `upgrade`; return its first revision, and the tables that are there then."""
    command = [sys.executable, "-c", HOST, str(folder), order, filters]
    # In a process of its own: Flask-Migrate sets up logging for the whole process.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (revision,) = (folder / "migrations" / "versions").glob("*.py")
    return revision.read_text(), set((folder / "tables").read_text().split())


@pytest.mark.parametrize("order", ["plugin first", "plugin last", "factory"])
def test_a_host_s_autogenerate_leaves_the_plugin_s_tables_alone(tmp_path: Path, order: str) -> None:
    revision, tables = autogenerate(tmp_path, order, "none")
    assert "create_table('account'" in revision
    assert "musehub_" not in revision
    assert Base.metadata.tables.keys() <= tables


@pytest.mark.parametrize("order", ["plugin first", "plugin last"])
def test_a_host_s_own_filter_is_kept(tmp_path: Path, order: str) -> None:
    revision, tables = autogenerate(tmp_path, order, "own")
    assert "musehub_" not in revision
    assert "legacy" not in revision
    assert Base.metadata.tables.keys() | {"legacy", "account"} <= tables


def test_without_a_filter_of_its_own_a_host_still_sees_its_own_strays(tmp_path: Path) -> None:
    revision, _ = autogenerate(tmp_path, "plugin last", "none")
    assert "drop_table('legacy')" in revision


@pytest.fixture
def host(tmp_path: Path) -> tuple[Flask, SQLAlchemy]:
    app = Flask("host", instance_path=str(tmp_path))
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'host.db'}"
    db = SQLAlchemy(app)
    MuseHub(app, db)
    return app, db


def test_a_host_s_create_all_makes_none_of_the_plugin_s_tables(host: tuple[Flask, SQLAlchemy]) -> None:
    app, db = host
    with app.app_context():
        db.create_all()
        assert inspect(db.engine).get_table_names() == []
        db.engine.dispose()


def test_a_host_s_drop_all_keeps_the_plugin_s_tables(host: tuple[Flask, SQLAlchemy]) -> None:
    app, db = host
    with app.app_context():
        migrate.upgrade(db.engine)
        db.drop_all()
        assert migrate.differences(db.engine) == []
        db.engine.dispose()
