"""Hosts whose database connections are closed at the end of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from musehub_plugin import MuseHub
from musehub_plugin.testing.apps import bearer_user
from tests.integration.hosts.hosting import close, make_repo, make_tables, new_host

MakeHost = Callable[..., Flask]


@pytest.fixture
def closing() -> Iterator[Callable[[Flask], None]]:
    """Takes apps with the plugin, and closes their connections at the end."""
    with ExitStack() as stack:

        def at_end(app: Flask) -> None:
            stack.callback(close, app)

        yield at_end


@pytest.fixture
def make_host(tmp_path: Path, closing: Callable[[Flask], None]) -> MakeHost:
    """Makes a host with the plugin, its tables and the public repo `alice/songs`; callers are known by bearer token.

    Its keyword arguments are settings, besides `before` and `after`: what is done to the app before and after the
    plugin is put on it.
    """

    def make(
        before: Callable[[Flask], None] = lambda app: None,
        after: Callable[[Flask], None] = lambda app: None,
        **config: Any,
    ) -> Flask:
        app = new_host(tmp_path, **config)
        before(app)
        musehub = MuseHub()
        musehub.identity_loader(bearer_user)
        musehub.init_app(app, SQLAlchemy(app))
        after(app)
        closing(app)
        make_tables(app)
        make_repo(app)
        return app

    return make
