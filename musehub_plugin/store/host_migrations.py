"""Keeping a host's migrations away from the plugin's tables.

`flask db migrate` of a Flask-Migrate host compares the database with the host's models, finds the plugin's tables in
the one and not in the other, and writes a migration that drops them (measured with Flask-Migrate 4.1, Alembic 1.20).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import Flask, appcontext_pushed

from musehub_plugin.store.models import Base

VERSION_TABLE = "musehub_alembic_version"

# A partition as the page on scaling has operators name it: after its table, with a number.
_PARTITION = re.compile(r"_[0-9]+\Z")

IncludeName = Callable[[str | None, str, Any], bool]


def exclude_plugin_tables(name: str | None, type_: str, parent_names: Any) -> bool:
    """Say whether a host's autogenerate may look at something: an `include_name` hook of Alembic.

    For hosts that run Alembic by themselves; Flask-Migrate gets it from `MuseHub.init_app`. To Alembic a partition is a
    table like any other, which no model has: it would be dropped with its rows.

    Args:
        name: the name of what was found in the database.
        type_: what it is, such as "table".
        parent_names: what it belongs to.
    """
    if type_ != "table" or name is None:
        return True
    return name != VERSION_TABLE and _PARTITION.sub("", name) not in Base.metadata.tables


def protect_from_autogenerate(app: Flask) -> None:
    """Give Flask-Migrate the hook above, whether it is initialised before the plugin or after."""

    def add_hook(sender: Flask, **_: Any) -> None:
        migrate = sender.extensions.get("migrate")
        if migrate is None:
            return
        given: IncludeName | None = migrate.configure_args.get("include_name")
        if getattr(given, "keeps_musehub", False):
            return

        def include_name(name: str | None, type_: str, parent_names: Any) -> bool:
            if not exclude_plugin_tables(name, type_, parent_names):
                return False
            return given is None or given(name, type_, parent_names)

        include_name.keeps_musehub = True  # type: ignore[attr-defined]  # marks what this function added
        migrate.configure_args["include_name"] = include_name

    # When a context is pushed every extension is there; weak=False, since nothing else holds the function.
    appcontext_pushed.connect(add_hook, app, weak=False)
