"""Opaque bearer tokens."""

from __future__ import annotations

import hashlib

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from musehub_plugin.access import Identity, InvalidCredentials
from musehub_plugin.auth.bearer import token_identity

ALICE = Identity("1", "alice")
LOAD = token_identity({hashlib.sha256(b"t0k3n").hexdigest(): ALICE}.get)


def request(authorization: str | None = None, path: str = "/") -> Request:
    headers = [] if authorization is None else [("Authorization", authorization)]
    return Request(EnvironBuilder(path=path, headers=headers).get_environ())


def test_s89_a_token_is_looked_up_by_its_hash() -> None:
    assert LOAD(request("Bearer t0k3n")) == ALICE


def test_s89_an_unknown_token_is_refused_without_being_named() -> None:
    with pytest.raises(InvalidCredentials) as caught:
        LOAD(request("Bearer wr0ng"))
    assert "wr0ng" not in str(caught.value)


def test_s89_a_token_in_the_query_string_is_not_looked_at() -> None:
    assert LOAD(request(path="/?token=t0k3n&access_token=t0k3n")) is None


def test_a_request_without_credentials_is_anonymous() -> None:
    assert LOAD(request()) is None


def test_a_bearer_header_without_a_token_is_refused() -> None:
    with pytest.raises(InvalidCredentials):
        LOAD(request("Bearer"))
