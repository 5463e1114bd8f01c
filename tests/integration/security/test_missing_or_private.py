"""Attacks on whether a repo exists: S22 to S33, through HTTP.

To who may not read it, a private repo is the same as none: in the answer, in its headers, and in the SQL and storage
calls that it takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from io import BytesIO

import pytest
from sqlalchemy import update
from werkzeug.test import TestResponse

from musehub_plugin import ids
from musehub_plugin.models import MusehubRepo
from musehub_plugin.testing import History, make_commit
from musehub_plugin.testing.apps import BAD_TOKEN
from tests.environment import HubEnvironment, Observed, assert_same
from tests.exchange import JSON, MSGPACK, Caller

PRIVATE = "alice/secret-songs"
MISSING = "alice/nothing-here"
R = ids.fake_id("nobody has this")

ROUTES: dict[str, Callable[[Caller, str], TestResponse]] = {
    "refs": lambda caller, repo: caller.refs(repo),
    "fetch": lambda caller, repo: caller.fetch(repo, [R]),
    "negotiate": lambda caller, repo: caller.negotiate(repo, [R], [R]),
    "push/presign": lambda caller, repo: caller.presign(repo, b"pack"),
    "push/unpack-mpack": lambda caller, repo: caller.unpack(repo, R, R),
}
POSTS = [route for route in ROUTES if route != "refs"]
READS = ("refs", "fetch", "negotiate")


def private_repo(hub: HubEnvironment) -> tuple[str, str]:
    """Make the private repo with a branch; return its id and its tip."""
    repo_id = hub.create_repo(PRIVATE, visibility="private")
    history = History()
    tip = history.commit({"a": b"1"})
    assert hub.caller("alice").push(PRIVATE, history.pack(), tip).status_code == 200
    return repo_id, tip


def told_apart(hub: HubEnvironment, ask: Callable[[str], TestResponse]) -> Observed:
    """Assert that `ask` sees no difference, and return what it saw."""
    closed = hub.observe(lambda: ask(PRIVATE))
    assert_same(closed, hub.observe(lambda: ask(MISSING)))
    return closed


@pytest.mark.parametrize("route", ROUTES)
def test_s22_an_anonymous_caller_cannot_tell_private_from_missing(hub: HubEnvironment, route: str) -> None:
    private_repo(hub)
    seen = told_apart(hub, functools.partial(ROUTES[route], hub.caller()))
    assert seen.response.status_code == (404 if route in READS else 401)


@pytest.mark.parametrize("route", ROUTES)
def test_s23_a_caller_without_access_cannot_tell_private_from_missing(hub: HubEnvironment, route: str) -> None:
    private_repo(hub)
    seen = told_apart(hub, functools.partial(ROUTES[route], hub.caller("bob")))
    assert seen.response.status_code == 404


@pytest.mark.parametrize("user", [None, "bob"], ids=["anonymous", "without access"])
@pytest.mark.parametrize("route", POSTS)
def test_s24_no_body_makes_a_difference_to_who_has_no_access(hub: HubEnvironment, route: str, user: str | None) -> None:
    _, tip = private_repo(hub)
    caller = hub.caller(user)
    want = b'{"want": ["%s"]}' % tip.encode()
    bodies: dict[str, tuple[bytes, str]] = {
        "empty": (b"", MSGPACK),
        "garbage": (b"\xc1\xc1\xc1", MSGPACK),
        "json": (want, JSON),
        "broken json": (b'{"want": [', JSON),
        "oversized": (bytes(hub.settings.max_body + 1), MSGPACK),
        "content type": (want, "text/plain"),
        "no content type": (want, ""),
        "empty want": (b'{"want": []}', JSON),
        "duplicate keys": (b"\x82\xa4want\x90\xa4want\x90", MSGPACK),
        "too many wants": (b"\x81\xa4want\xdd\x00\x01\x00\x00", MSGPACK),
    }

    def post(data: bytes, content_type: str, repo: str) -> TestResponse:
        return caller.post_bytes(f"/{repo}/{route}", data, content_type)

    answers = [told_apart(hub, functools.partial(post, *body)) for body in bodies.values()]
    expected = 404 if user is not None or route in READS else 401
    for seen in answers:
        assert seen.response.status_code == expected
        assert seen.visible == answers[0].visible


@pytest.mark.parametrize("encoding", ["gzip", "nonsense"])
def test_s24_a_content_encoding_makes_no_difference(hub: HubEnvironment, encoding: str) -> None:
    private_repo(hub)
    bob = hub.caller("bob")
    seen = told_apart(
        hub, lambda repo: bob.post_bytes(f"/{repo}/fetch", b"\x1f\x8b", MSGPACK, **{"Content-Encoding": encoding})
    )
    assert seen.response.status_code == 404


def test_s24_a_chunked_body_past_the_limit_makes_no_difference(hub: HubEnvironment) -> None:
    private_repo(hub)
    seen = told_apart(hub, functools.partial(chunked_fetch, hub.caller("bob"), hub.settings.max_body + 1))
    assert seen.response.status_code == 404


def chunked_fetch(caller: Caller, size: int, repo: str) -> TestResponse:
    """POST a body of `size` zeros as a server passes on one that came in chunks."""
    return caller.http.post(
        f"/{repo}/fetch",
        content_type=MSGPACK,
        headers={"Accept": JSON, "Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input": BytesIO(bytes(size)), "wsgi.input_terminated": True},
    )


@pytest.mark.parametrize("size", [8 * 1024 * 1024 + 1, 9 * 1024 * 1024])
def test_s47_a_chunked_body_past_the_limit_is_413(hub: HubEnvironment, size: int) -> None:
    private_repo(hub)
    answer = chunked_fetch(hub.caller("alice"), size, PRIVATE)
    assert answer.status_code == 413
    assert answer.get_json()["limit"] == hub.settings.max_body


def test_s25_no_method_tells_private_from_missing(hub: HubEnvironment) -> None:
    private_repo(hub)
    caller = hub.caller("bob")
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST", "BREW"):
        for route in (*ROUTES, "", "push", "objects/" + R, "settings"):

            def ask(repo: str, method: str = method, route: str = route) -> TestResponse:
                return caller.http.open(f"/{repo}/{route}", method=method)

            assert told_apart(hub, ask).response.status_code in {200, 404, 405}, (method, route)


def test_s26_untidy_paths_are_no_redirect(hub: HubEnvironment) -> None:
    private_repo(hub)
    caller = hub.caller("bob")
    for path in ("/{repo}/fetch/", "//{repo}/fetch", "/{repo}//fetch", "/{owner}//{slug}/fetch"):

        def ask(repo: str, path: str = path) -> TestResponse:
            owner, slug = repo.split("/")
            target = path.format(repo=repo, owner=owner, slug=slug)
            return caller.http.post(target, json={"want": [R]}, headers={"Host": "evil.example"})

        seen = told_apart(hub, ask)
        assert seen.response.status_code == 404, path
        assert "Location" not in seen.response.headers


SPELLINGS = [
    "Alice/secret-songs",
    "alice/Secret-Songs",
    "alice/secret-songs ",
    " alice/secret-songs",
    "\uff41lice/secret-songs",
    "alice/secret\u2010songs",
    "alice/secret-songs\u200b",
    "alice/\u017fecret-songs",
]


def test_s27_another_spelling_of_a_name_is_another_repo(hub: HubEnvironment) -> None:
    private_repo(hub)
    for caller in (hub.caller("bob"), hub.caller("alice")):
        missing = hub.observe(functools.partial(caller.fetch, MISSING, [R]))
        for spelled in SPELLINGS:
            seen = hub.observe(functools.partial(caller.fetch, spelled, [R]))
            assert seen.visible == missing.visible, spelled


def test_s28_the_old_name_of_a_private_repo_leads_nowhere(hub: HubEnvironment) -> None:
    repo_id, tip = private_repo(hub)
    with hub.session() as session:
        session.execute(update(MusehubRepo).where(MusehubRepo.repo_id == repo_id).values(slug="renamed"))
        session.commit()
    seen = told_apart(hub, functools.partial(ROUTES["fetch"], hub.caller("bob")))
    assert seen.response.status_code == 404
    assert hub.caller("alice").fetch("alice/renamed", [tip]).status_code == 200


IMPOSSIBLE_NAMES = ["%00", "a%00b", "%0a", "a%0a", "%20", "%20a", "a%20", ".", "..", "%2e%2e", "%2F", "a%2Fb", "%ff"]


@pytest.mark.parametrize("place", ["/{}/secret-songs/", "/alice/{}/"], ids=["owner", "slug"])
def test_s29_a_name_that_no_repo_has_is_404(hub: HubEnvironment, place: str) -> None:
    private_repo(hub)
    alice = hub.caller("alice")
    for name in (*IMPOSSIBLE_NAMES, "a" * 10_000):
        path = place.format(name)
        for answer in (alice.get(path + "refs"), alice.post(path + "fetch", {"want": [R]})):
            assert answer.status_code == 404, name
        assert alice.post(path + "push/presign", {"mpack_id": R, "size_bytes": 1}).status_code == 404, name


@pytest.mark.parametrize("route", ROUTES)
def test_s30_bad_credentials_are_401_before_any_lookup(hub: HubEnvironment, route: str) -> None:
    private_repo(hub)
    hub.create_repo("alice/public")
    caller = hub.caller(BAD_TOKEN)
    seen = told_apart(hub, functools.partial(ROUTES[route], caller))
    assert seen.response.status_code == 401
    assert seen.statements == ()
    assert_same(seen, hub.observe(lambda: ROUTES[route](caller, "alice/public")))


@pytest.mark.parametrize("route", ["push/presign", "push/unpack-mpack"])
def test_s30_an_anonymous_write_is_401_before_any_lookup(hub: HubEnvironment, route: str) -> None:
    private_repo(hub)
    hub.create_repo("alice/public")
    caller = hub.caller()
    seen = told_apart(hub, functools.partial(ROUTES[route], caller))
    assert seen.response.status_code == 401
    assert seen.statements == ()
    assert_same(seen, hub.observe(lambda: ROUTES[route](caller, "alice/public")))


@pytest.mark.parametrize("user", [None, "bob"])
def test_s31_no_header_tells_private_from_missing(hub: HubEnvironment, user: str | None) -> None:
    private_repo(hub)
    caller = hub.caller(user)

    def ask(repo: str) -> TestResponse:
        headers = {"Origin": "https://evil.example", "Cookie": "session=nonsense", "Accept": JSON}
        return caller.http.post(f"/{repo}/fetch", json={"want": [R]}, headers=headers)

    headers = told_apart(hub, ask).response.headers
    assert "WWW-Authenticate" not in headers
    assert "Set-Cookie" not in headers
    assert not [name for name in headers if name[0].lower().startswith("access-control-")]


def test_s32_the_404_is_one_constant_that_names_nothing(hub: HubEnvironment) -> None:
    private_repo(hub)
    caller = hub.caller("bob")
    bodies = {
        ROUTES[route](caller, repo).data
        for route in ROUTES
        for repo in (PRIVATE, MISSING, "no-such-owner/at-all", "alice/<script>")
    }
    assert len(bodies) == 1
    (body,) = bodies
    for name in (b"alice", b"secret-songs", b"nothing-here", b"no-such-owner", b"script"):
        assert name not in body


def test_s33_who_has_no_access_sees_no_state_of_a_repo(hub: HubEnvironment) -> None:
    repo_id, tip = private_repo(hub)
    with hub.session() as session:
        unindexed = make_commit(session, repo_id, {"gone": ids.blob_id(b"nowhere")})
    alice, bob = hub.caller("alice"), hub.caller("bob")
    assert alice.fetch(PRIVATE, [unindexed]).status_code == 503
    assert told_apart(hub, lambda repo: bob.fetch(repo, [unindexed])).response.status_code == 404
    # A stale head is 409 to who may write; the mpack is the one that the repo holds.
    history = History()
    assert history.commit({"a": b"1"}) == tip
    mpack_id = ids.blob_id(history.pack())

    def stale(caller: Caller, repo: str) -> TestResponse:
        return caller.unpack(repo, mpack_id, unindexed, expected_head=R)

    assert stale(alice, PRIVATE).status_code == 409
    assert told_apart(hub, functools.partial(stale, bob)).response.status_code == 404
