"""Where the released command's routes are, and where they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest
from flask_wtf import CSRFProtect

from musehub_plugin.errors import ConfigError
from musehub_plugin.testing import create_repo
from musehub_plugin.testing.apps import client_for, close_app, hub_of, make_app


def statuses(folder: Path, paths: list[str], **config: Any) -> list[int]:
    """Return the status of a GET of each path, of a hub with one public repo."""
    app = make_app(folder, config)
    with app.app_context():
        create_repo(hub_of(app).sqlalchemy.session)
    found = [client_for(app).get(path).status_code for path in paths]
    close_app(app)
    return found


PATHS = ["/mwp/alice/songs/refs", "/alice/songs/refs", "/hub/alice/songs/refs"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [200, 200, 404]),
        ({"MUSEHUB_MWP_PREFIX": None}, [404, 200, 404]),
        ({"MUSEHUB_MWP_PREFIX": "", "MUSEHUB_URL_PREFIX": "/hub"}, [404, 200, 200]),
        ({"MUSEHUB_MWP_PREFIX": "/hub/"}, [404, 200, 200]),
    ],
    ids=["default", "off", "at the root", "elsewhere"],
)
def test_the_commands_routes_are_where_the_setting_says(
    tmp_path: Path, config: dict[str, Any], expected: list[int]
) -> None:
    assert statuses(tmp_path, PATHS, **config) == expected


def test_at_the_root_the_answer_is_the_commands(tmp_path: Path) -> None:
    app = make_app(tmp_path, {"MUSEHUB_MWP_PREFIX": "", "MUSEHUB_URL_PREFIX": "/hub"})
    with app.app_context():
        create_repo(hub_of(app).sqlalchemy.session)
    answer = client_for(app).get("/alice/songs/refs", headers={"Accept": "application/json"})
    close_app(app)
    assert answer.get_json()["domain"] == "code"


@pytest.mark.parametrize(
    "config",
    [
        {"MUSEHUB_MWP_PREFIX": ""},
        {"MUSEHUB_URL_PREFIX": "/mwp"},
        {"MUSEHUB_MWP_PREFIX": "/same", "MUSEHUB_URL_PREFIX": "/same/"},
    ],
)
def test_two_protocols_at_one_place_are_refused_with_what_to_do(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"MUSEHUB_MWP_PREFIX: .* set MUSEHUB_URL_PREFIX to another path"):
        make_app(tmp_path, config)


def test_a_host_that_guards_its_forms_lets_the_command_push(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    CSRFProtect(app)
    with app.app_context():
        create_repo(hub_of(app).sqlalchemy.session)
    body = msgpack.packb({"object_ids": []})
    answer = client_for(app, "alice").post(
        "/mwp/alice/songs/filter-objects", data=body, content_type="application/x-msgpack"
    )
    close_app(app)
    assert answer.status_code == 200
