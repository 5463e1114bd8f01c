"""The contract's section 4, bullet by bullet: B01 encodings, B02 problems, B03 statuses, B04 bounds, B05 order."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from musehub_plugin import MuseHub, ids
from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.storage import MemoryStorage
from musehub_plugin.testing import make_commit
from musehub_plugin.testing.apps import BAD_TOKEN, bearer_user
from tests.environment import HubEnvironment, assert_same
from tests.exchange import JSON, MSGPACK, Caller

REPO = "alice/songs"
FETCH = f"/{REPO}/fetch"
UNKNOWN = ids.fake_id("a commit that nobody has")


def with_commit(hub: HubEnvironment) -> str:
    repo_id = hub.create_repo(REPO)
    with hub.session() as session:
        return make_commit(session, repo_id, {"a": b"1"}, branch="main")


def decoded(answer: TestResponse) -> Any:
    return msgpack.unpackb(answer.data) if answer.mimetype == MSGPACK else json.loads(answer.data)


# B01: encodings


def test_b01_msgpack_and_json_bodies_are_read(hub: HubEnvironment) -> None:
    want = with_commit(hub)
    packed, text = msgpack.packb({"want": [want], "have": []}), json.dumps({"want": [want]}).encode()
    caller = hub.caller()
    msgpack_types = (MSGPACK, "application/msgpack", "application/vnd.msgpack", "Application/X-MsgPack; charset=binary")
    for content_type in msgpack_types:
        assert caller.post_bytes(FETCH, packed, content_type).status_code == 200, content_type
    for content_type in (JSON, "application/json; charset=utf-8", "APPLICATION/JSON"):
        assert caller.post_bytes(FETCH, text, content_type).status_code == 200, content_type


def test_b01_answers_are_msgpack_unless_json_is_preferred(hub: HubEnvironment) -> None:
    want = with_commit(hub)
    expected = {
        None: MSGPACK,
        "": MSGPACK,
        "*/*": MSGPACK,
        MSGPACK: MSGPACK,
        "application/x-msgpack, application/json": MSGPACK,
        "application/json;q=0.5, application/x-msgpack": MSGPACK,
        JSON: JSON,
        "application/json, text/plain, */*": JSON,
        "application/x-msgpack;q=0.5, application/json": JSON,
    }
    for accept, mimetype in expected.items():
        headers = {} if accept is None else {"Accept": accept}
        answer = hub.caller().http.post(FETCH, json={"want": [want]}, headers=headers)
        assert answer.mimetype == mimetype, accept
        assert decoded(answer)["commit_count"] == 1


# B02: problems


@pytest.mark.parametrize(("accept", "mimetype"), [(JSON, "application/problem+json"), (MSGPACK, MSGPACK)])
def test_b02_an_error_has_the_members_of_rfc_9457_and_a_code(hub: HubEnvironment, accept: str, mimetype: str) -> None:
    with_commit(hub)
    answer = hub.caller().post(FETCH, {"want": [UNKNOWN]}, accept=accept)
    assert answer.mimetype == mimetype
    body = decoded(answer)
    assert {"type", "title", "status", "detail", "code"} <= set(body)
    assert body["status"] == answer.status_code == 404
    assert body["title"] == "Not Found"
    assert body["code"] == "want-not-found"


def test_b02_a_method_that_a_path_lacks_is_405(hub: HubEnvironment) -> None:
    with_commit(hub)
    alice = hub.caller("alice").http
    for method, path in (("GET", "fetch"), ("PUT", "fetch"), ("POST", "refs"), ("DELETE", "push/presign")):
        assert alice.open(f"/{REPO}/{path}", method=method).status_code == 405, (method, path)


# B03: statuses


UNDECODABLE = [
    (MSGPACK, b"\xc1"),
    (MSGPACK, b"\x81\xa4want"),
    (MSGPACK, b"this is no msgpack"),
    (JSON, b"{"),
    (JSON, b"want=1"),
    (JSON, b"\xff\xfe"),
]
WRONG = [
    (MSGPACK, b""),
    (MSGPACK, b"\x90"),
    (MSGPACK, b"\xc0"),
    (JSON, b"[]"),
    (JSON, b'"want"'),
    (JSON, b'{"want": "main"}'),
    (JSON, b'{"want": {"a": 1}}'),
    (JSON, b'{"want": null}'),
]


def test_b03_a_body_that_cannot_be_decoded_is_400(hub: HubEnvironment) -> None:
    with_commit(hub)
    for content_type, body in UNDECODABLE:
        assert hub.caller().post_bytes(FETCH, body, content_type).status_code == 400, body


def test_b03_a_body_that_decodes_to_something_else_is_422(hub: HubEnvironment) -> None:
    with_commit(hub)
    for content_type, body in WRONG:
        assert hub.caller().post_bytes(FETCH, body, content_type).status_code == 422, body


def test_b03_another_content_type_or_encoding_is_415(hub: HubEnvironment) -> None:
    body = json.dumps({"want": [with_commit(hub)]}).encode()
    caller = hub.caller()
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert caller.post_bytes(FETCH, body, content_type).status_code == 415, content_type
    for encoding in ("gzip", "br", "zstd", "deflate"):
        answer = caller.post_bytes(FETCH, body, JSON, **{"Content-Encoding": encoding})
        assert answer.status_code == 415, encoding


def test_b03_bad_credentials_are_one_401_for_every_repo(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    hub.create_repo("alice/private", visibility="private")
    caller = hub.caller(BAD_TOKEN)
    repos = (REPO, "alice/private", "alice/nothing", "nobody/nothing")
    answers = [hub.observe(functools.partial(caller.fetch, repo, [UNKNOWN])) for repo in repos]
    for answer in answers:
        assert answer.response.status_code == 401
        assert "WWW-Authenticate" in answer.response.headers
        assert_same(answer, answers[0])


def assert_come_back(answer: TestResponse) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg2://nobody@127.0.0.1:9/nothing?connect_timeout=2",
        "sqlite:////nonexistent/folder/hub.db",
    ],
)
def test_b03_a_database_that_is_down_is_503(uri: str, tmp_path: Path) -> None:
    app = Flask("host", instance_path=str(tmp_path))
    app.config.update(SQLALCHEMY_DATABASE_URI=uri, MUSEHUB_STORAGE="memory://")
    musehub = MuseHub()
    musehub.identity_loader(bearer_user)
    musehub.init_app(app)
    caller = Caller(app, "alice")
    assert_come_back(caller.refs(REPO))
    assert_come_back(caller.fetch(REPO, [UNKNOWN]))
    assert_come_back(caller.presign(REPO, b"pack"))


class AwayStorage(MemoryStorage):
    """Object storage that does not answer."""

    def get(self, oid: str) -> bytes | None:
        raise StorageUnavailable("the store did not answer")

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        raise StorageUnavailable("the store did not answer")


def test_b03_object_storage_that_is_down_is_503(hub: HubEnvironment) -> None:
    want = with_commit(hub)
    caller = Caller(hub.make_app(MUSEHUB_STORAGE=AwayStorage()), "alice")
    assert_come_back(caller.fetch(REPO, [want]))


def test_b03_an_s3_endpoint_where_nothing_listens_is_503(hub: HubEnvironment) -> None:
    want = with_commit(hub)
    app = hub.make_app(
        MUSEHUB_STORAGE="s3://bucket",
        MUSEHUB_S3_BUCKET=None,
        MUSEHUB_S3_ENDPOINT="http://127.0.0.1:9",
        MUSEHUB_S3_ACCESS_KEY="key",
        MUSEHUB_S3_SECRET_KEY="secret",
    )
    assert_come_back(Caller(app).fetch(REPO, [want]))


# B04: bounds


@pytest.mark.parametrize(("field", "limit"), [("want", 1_000), ("have", 100_000)])
def test_b04_one_id_too_many_is_413_with_the_limit(hub: HubEnvironment, field: str, limit: int) -> None:
    want = with_commit(hub)
    body = {"want": [want], "have": []}
    body[field] = [want] * limit
    caller = hub.caller()
    assert caller.post_bytes(FETCH, msgpack.packb(body)).status_code == 200
    body[field].append(want)
    answer = caller.post_bytes(FETCH, msgpack.packb(body))
    assert answer.status_code == 413
    assert answer.get_json()["limit"] == limit


def test_b04_a_hundred_thousand_different_haves_are_answered(hub: HubEnvironment) -> None:
    want = with_commit(hub)
    have = [ids.fake_id(str(number)) for number in range(100_000)]
    answer = hub.caller().post_bytes(FETCH, msgpack.packb({"want": [want], "have": have}))
    assert answer.status_code == 200
    assert answer.get_json()["commit_count"] == 1


def test_b04_a_body_of_eight_mebibytes_is_read_and_one_byte_more_is_413(hub: HubEnvironment) -> None:
    want = with_commit(hub)
    limit = 8 * 1024 * 1024
    body = msgpack.packb({"want": [want], "ignored": b""})
    padding = limit - len(body) - 3
    body = msgpack.packb({"want": [want], "ignored": bytes(padding)})
    assert len(body) == limit
    caller = hub.caller()
    assert caller.post_bytes(FETCH, body).status_code in {200, 422}
    answer = caller.post_bytes(FETCH, body + b"\x00")
    assert answer.status_code == 413
    assert answer.get_json()["limit"] == limit


WANT = b"\x81\xa4want"
ONE_ID = b"\x91\xd9\x47" + UNKNOWN.encode()


REFUSED = {
    "bytes after the map": WANT + ONE_ID + b"\x00",
    "a key twice": b"\x82\xa4want" + ONE_ID + b"\xa4want" + ONE_ID,
    "nested arrays": b"\x91" * 100_000,
    "nested wants": WANT + b"\x91" * 2_000 + b"\x90",
    "a timestamp for an id": WANT + b"\x91\xd6\xff" + bytes(4),
    "an array of four billion": WANT + b"\xdd\xff\xff\xff\xff",
    "a map of four billion": b"\xdf\xff\xff\xff\xff",
    "a key of bytes": b"\x81\xc4\x04want" + ONE_ID,
    "a key that is a number": b"\x81\x01" + ONE_ID,
}


def test_b04_what_is_unbounded_ambiguous_or_extended_is_refused(hub: HubEnvironment) -> None:
    with_commit(hub)
    for name, body in REFUSED.items():
        assert hub.caller().post_bytes(FETCH, body).status_code in {413, 422}, name


# B05: order


def test_b05_a_bad_body_tells_a_stranger_nothing(hub: HubEnvironment) -> None:
    hub.create_repo(REPO, visibility="private")
    bob = hub.caller("bob")
    oversized = (MSGPACK, bytes(hub.settings.max_body + 1))
    for content_type, body in (*UNDECODABLE, *WRONG, ("text/plain", b"hello"), (JSON, b'{"want": []}'), oversized):
        ask = functools.partial(bob.post_bytes, data=body, content_type=content_type)
        closed = hub.observe(functools.partial(ask, FETCH))
        assert closed.response.status_code == 404
        assert_same(closed, hub.observe(functools.partial(ask, "/alice/nothing/fetch")))
