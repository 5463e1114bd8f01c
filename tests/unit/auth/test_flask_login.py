"""Flask-Login's session as the identity, in a real app."""

from __future__ import annotations

import importlib
import sys

import pytest
from flask import Flask, request
from flask_login import LoginManager, UserMixin, login_user

from musehub_plugin.auth.flask_login import flask_login_identity
from musehub_plugin.errors import ConfigError


class User(UserMixin):  # type: ignore[misc] # Flask-Login has no type hints
    id = 7
    username = "alice"
    account = "acc-7"
    boss = True


def make_app(**options: str) -> Flask:
    app = Flask(__name__)
    app.secret_key = "k"
    manager = LoginManager(app)
    manager.user_loader(lambda user_id: User() if user_id == "7" else None)
    load = flask_login_identity(**options)

    @app.post("/login")
    def login() -> str:
        login_user(User())
        return ""

    @app.get("/me")
    def me() -> str:
        return repr(load(request))

    return app


def test_somebody_without_a_session_is_anonymous() -> None:
    assert make_app().test_client().get("/me").text == "None"


def test_a_logged_in_user_is_the_identity() -> None:
    client = make_app().test_client()
    client.post("/login")
    assert client.get("/me").text == "Identity(user_id='7', handle='alice', is_admin=False)"


def test_the_attributes_can_be_chosen() -> None:
    client = make_app(id_attr="account", handle_attr="no_such", is_admin_attr="boss").test_client()
    client.post("/login")
    assert client.get("/me").text == "Identity(user_id='acc-7', handle='', is_admin=True)"


def test_without_flask_login_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask_login", None)
    module = importlib.import_module("musehub_plugin.auth.flask_login")
    with pytest.raises(ConfigError, match=r"musehub-plugin\[login\]"):
        module.flask_login_identity()
