"""A host in a file, as operators have it, and the real `flask` command."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from musehub_plugin.testing.apps import close_app

HOST = """
import os
from pathlib import Path
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from musehub_plugin import Identity, MuseHub

HERE = Path(__file__).parent

def create_app(settings={}):
    app = Flask("host", instance_path=str(HERE / "instance"))
    app.config.update(
        SECRET_KEY="the secret key of a host in tests",
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{HERE / 'host.db'}",
        MUSEHUB_STORAGE=(HERE / "objects").as_uri(),
    )
    app.config.update(settings)
    musehub = MuseHub(app, SQLAlchemy(app))
    musehub.identity_loader(lambda request: Identity("alice"))
    return app
"""


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


RunFlask = Callable[..., Done]


@pytest.fixture
def host_file(tmp_path: Path) -> Path:
    """A file with an app factory; its database, made on demand, lies beside it."""
    path = tmp_path / "host.py"
    path.write_text(HOST)
    return path


@pytest.fixture
def flask_process(host_file: Path) -> RunFlask:
    """Runs `flask <arguments>` in a process of its own, by default on the host."""

    def run(*arguments: str, app: Path | None = None, cwd: Path | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", str(app or host_file), *arguments],
            cwd=cwd or host_file.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def flask(host_file: Path) -> Iterator[RunFlask]:
    """Runs `flask <arguments>` in this process, on a new app of the host with the keyword arguments as settings."""
    create_app = runpy.run_path(str(host_file))["create_app"]
    with ExitStack() as stack:

        def run(*arguments: str, **settings: str) -> Done:
            app = create_app(settings)
            stack.callback(close_app, app)
            result = app.test_cli_runner().invoke(args=arguments)
            return Done(result.exit_code, result.stdout, result.stderr)

        yield run
