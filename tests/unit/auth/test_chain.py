"""Several identity loaders in a row."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from musehub_plugin.access import Identity, InvalidCredentials
from musehub_plugin.auth.chain import first_of

ALICE, BOB = Identity("1"), Identity("2")
REQUEST = Request(EnvironBuilder().get_environ())


def refuse(request: Request) -> Identity | None:
    raise InvalidCredentials


def test_the_first_identity_counts() -> None:
    assert first_of(lambda request: None, lambda request: ALICE, lambda request: BOB)(REQUEST) is ALICE


def test_a_chain_in_which_nobody_knows_the_caller_is_anonymous() -> None:
    assert first_of(lambda request: None)(REQUEST) is None


def test_bad_credentials_are_not_made_good_by_the_next_loader() -> None:
    with pytest.raises(InvalidCredentials):
        first_of(refuse, lambda request: ALICE)(REQUEST)


def test_a_chain_needs_a_loader() -> None:
    with pytest.raises(ValueError, match="at least one"):
        first_of()
