"""Who may do what, asked of `Access` with repos and hooks that are plain objects."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest
from flask import Request, abort

from musehub_plugin.access import (
    Access,
    Action,
    Hooks,
    HostId,
    Identity,
    InvalidCredentials,
    is_possible_name,
    text_id,
)
from musehub_plugin.errors import Forbidden, HubError, RepoNotFound, Unauthenticated

ALICE = Identity("1", "alice")
BOB = Identity("2", "bob", is_admin=True)
REQUEST = cast(Request, object())


@dataclass
class FakeRepo:
    visibility: str = "public"
    owner_user_id: str = "1"
    repo_id: str = "r"
    owner: str = "alice"
    slug: str = "song"
    deleted_at: datetime | None = None


class Lookup:
    """A repo loader that knows one repo and remembers what it was asked."""

    def __init__(self, repo: FakeRepo | None) -> None:
        self.repo = repo
        self.asked: list[tuple[str, str]] = []

    def __call__(self, owner: str, slug: str) -> FakeRepo | None:
        self.asked.append((owner, slug))
        return self.repo if self.repo and (owner, slug) == (self.repo.owner, self.repo.slug) else None


def outcome(access: Access, identity: Identity | None, action: Action, slug: str = "song") -> object:
    """Return the repo, or what a caller could see of the refusal."""
    try:
        return access.require(identity, "alice", slug, action)
    except HubError as error:
        return (type(error), error.code, error.detail, error.extra, error.headers)


def test_anybody_may_read_a_public_repo() -> None:
    repo = FakeRepo()
    assert outcome(Access(Hooks(), Lookup(repo)), None, "read") is repo


def test_the_owner_may_do_everything_with_a_private_repo() -> None:
    repo = FakeRepo("private")
    actions: list[Action] = ["read", "write", "admin"]
    assert [outcome(Access(Hooks(), Lookup(repo)), ALICE, action) for action in actions] == [repo] * 3


def test_an_unknown_visibility_is_private() -> None:
    with pytest.raises(RepoNotFound):
        Access(Hooks(), Lookup(FakeRepo("internal"))).require(BOB, "alice", "song", "read")


def test_s22_s23_a_private_repo_is_refused_as_a_missing_one() -> None:
    access = Access(Hooks(), Lookup(FakeRepo("private")))
    for identity in (None, BOB):
        assert outcome(access, identity, "read") == outcome(access, identity, "read", "no-such")


def test_s23_writing_to_a_private_repo_is_refused_as_to_a_missing_one() -> None:
    access = Access(Hooks(), Lookup(FakeRepo("private")))
    assert outcome(access, BOB, "write") == outcome(access, BOB, "write", "no-such")


def test_a_deleted_repo_is_missing_for_its_owner_too() -> None:
    access = Access(Hooks(), Lookup(FakeRepo(deleted_at=datetime(2026, 1, 1, tzinfo=UTC))))
    assert outcome(access, ALICE, "read") == outcome(access, ALICE, "read", "no-such")


def test_a_reader_who_writes_is_forbidden() -> None:
    with pytest.raises(Forbidden):
        Access(Hooks(), Lookup(FakeRepo())).require(BOB, "alice", "song", "write")


def test_s30_an_anonymous_write_is_refused_before_any_lookup() -> None:
    lookup = Lookup(FakeRepo())
    access = Access(Hooks(), lookup)
    assert outcome(access, None, "write") == outcome(access, None, "write", "no-such")
    assert lookup.asked == []


def test_an_anonymous_write_is_401() -> None:
    with pytest.raises(Unauthenticated):
        Access(Hooks(), Lookup(FakeRepo())).require(None, "alice", "song", "write")


def test_bad_credentials_are_401_without_the_reason() -> None:
    def refuse(request: Request) -> Identity | None:
        raise InvalidCredentials("token t0k3n is revoked")

    with pytest.raises(Unauthenticated) as caught:
        Access(Hooks(load_identity=refuse), Lookup(None)).identify(REQUEST)
    assert "t0k3n" not in caught.value.detail
    assert "t0k3n" not in "".join(traceback.format_exception(caught.value))


def test_without_an_identity_loader_everybody_is_anonymous() -> None:
    assert Access(Hooks(), Lookup(None)).identify(REQUEST) is None


@pytest.mark.parametrize("identity", ["alice", "", 0, False, ()])
def test_an_identity_loader_that_returns_something_else_fails_closed(identity: Any) -> None:
    with pytest.raises(TypeError, match=f"{type(identity).__name__}, not an Identity"):
        Access(Hooks(load_identity=lambda request: identity), Lookup(None)).identify(REQUEST)


def test_the_identity_is_asked_for_anew_each_time() -> None:
    answers = iter([ALICE, None])
    access = Access(Hooks(load_identity=lambda request: next(answers)), Lookup(None))
    assert [access.identify(REQUEST), access.identify(REQUEST)] == [ALICE, None]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a" * 256,
        "a\0",
        "\n",
        "a\nb",
        " a",
        "a ",
        "\u3000a",
        "\x7f",
        "\x85",
        "a\x80b",
        "a\x9fb",
        "\ud800",
    ],
)
def test_s29_a_name_that_no_repo_can_have_never_reaches_the_loader(name: str) -> None:
    lookup = Lookup(None)
    access = Access(Hooks(), lookup)
    for owner, slug in ((name, "song"), ("alice", name)):
        with pytest.raises(RepoNotFound):
            access.require(ALICE, owner, slug, "read")
    assert lookup.asked == []


@pytest.mark.parametrize("name", ["a", "A" * 255, "a b", "ünïcode", "...", "日本"])
def test_a_name_that_a_repo_can_have_is_possible(name: str) -> None:
    assert is_possible_name(name)


def test_s27_names_are_looked_up_exactly_as_sent() -> None:
    lookup = Lookup(FakeRepo())
    with pytest.raises(RepoNotFound):
        Access(Hooks(), lookup).require(ALICE, "Alice", "\uff53ong", "read")
    assert lookup.asked == [("Alice", "\uff53ong")]


def test_a_hosts_loader_replaces_the_default_one() -> None:
    default, repo = Lookup(None), FakeRepo()
    access = Access(Hooks(load_repo=Lookup(repo)), default)
    assert access.require(None, "alice", "song", "read") is repo
    assert default.asked == []


def test_hooks_may_be_set_after_access_was_made() -> None:
    hooks, repo = Hooks(), FakeRepo("private")
    access = Access(hooks, Lookup(repo))
    hooks.policy = lambda identity, action, repo: True
    assert access.require(None, "alice", "song", "read") is repo


@pytest.mark.parametrize("answer", [1, "yes", None, object(), [True]])
def test_only_true_itself_allows(answer: Any) -> None:
    access = Access(Hooks(policy=lambda identity, action, repo: cast(bool, answer)), Lookup(FakeRepo()))
    with pytest.raises(RepoNotFound):
        access.require(ALICE, "alice", "song", "read")


def test_a_policy_that_raises_never_allows() -> None:
    def broken(identity: Identity | None, action: Action, repo: Any) -> bool:
        raise KeyError("teams")

    with pytest.raises(KeyError):
        Access(Hooks(policy=broken), Lookup(FakeRepo())).require(ALICE, "alice", "song", "read")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_hook_that_aborts_hides_a_private_repo_as_a_missing_one(status: int) -> None:
    def policy(identity: Identity | None, action: Action, repo: Any) -> bool:
        abort(status)

    def load(owner: str, slug: str) -> FakeRepo | None:
        return FakeRepo("private") if slug == "song" else abort(status)

    missing = outcome(Access(Hooks(), Lookup(None)), BOB, "read")
    assert outcome(Access(Hooks(policy=policy), Lookup(FakeRepo())), BOB, "read") == missing
    assert outcome(Access(Hooks(load_repo=load), Lookup(None)), BOB, "read") == missing
    assert outcome(Access(Hooks(load_repo=load), Lookup(None)), BOB, "read", "no-such") == missing


def test_a_policy_that_aborts_a_write_forbids_it() -> None:
    def policy(identity: Identity | None, action: Action, repo: Any) -> bool:
        return action == "read" or abort(403)

    with pytest.raises(Forbidden):
        Access(Hooks(policy=policy), Lookup(FakeRepo())).require(BOB, "alice", "song", "write")


def test_a_policy_that_allows_writing_but_not_reading_hides_the_repo() -> None:
    access = Access(Hooks(policy=lambda identity, action, repo: action == "write"), Lookup(FakeRepo()))
    assert outcome(access, ALICE, "write") == outcome(access, ALICE, "write", "no-such")


def test_who_may_read_and_write_alone_is_no_administrator() -> None:
    access = Access(Hooks(policy=lambda identity, action, repo: action != "admin"), Lookup(FakeRepo()))
    with pytest.raises(Forbidden):
        access.require(ALICE, "alice", "song", "admin")


def test_each_question_is_asked_once() -> None:
    asked: list[str] = []

    def policy(identity: Identity | None, action: Action, repo: Any) -> bool:
        asked.append(action)
        return True

    lookup = Lookup(FakeRepo())
    Access(Hooks(policy=policy), lookup).require(ALICE, "alice", "song", "write")
    assert (asked, len(lookup.asked)) == (["read", "write"], 1)


@pytest.mark.parametrize("user_id", [1, None, b"1"])
def test_an_identity_needs_its_id_as_text(user_id: Any) -> None:
    with pytest.raises(TypeError):
        Identity(user_id)


def test_an_identity_needs_an_id() -> None:
    with pytest.raises(ValueError, match="empty"):
        Identity("")


@pytest.mark.parametrize(
    ("given", "text"),
    [("a", "a"), ("a" * 64, "a" * 64), (7, "7"), (0, "0"), (UUID(int=1), "00000000-0000-0000-0000-000000000001")],
)
def test_an_id_of_a_host_is_known_by_its_text(given: HostId, text: str) -> None:
    assert text_id(given) == text


@pytest.mark.parametrize("given", ["", "a" * 65, 10**64])
def test_an_id_that_no_column_holds_is_refused(given: HostId) -> None:
    with pytest.raises(ValueError, match="1 to 64 characters"):
        text_id(given)


@pytest.mark.parametrize("given", [None, True, False, b"1", 1.0, ["1"]])
def test_an_id_of_another_type_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=type(given).__name__):
        text_id(given)
