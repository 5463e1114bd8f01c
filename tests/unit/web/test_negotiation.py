"""Which encoding an answer has."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin.web.negotiation import encode_response, prefers_json


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/*",
        "application/x-msgpack",
        "application/x-msgpack, application/json",
        "application/json, application/x-msgpack",
        "application/json, application/vnd.msgpack",
        "application/json;q=0.5, application/msgpack;q=0.6",
        "application/json;q=0",
        "application/json;q=0, */*",
        "application/json;q=0.1, */*",
        "application/json;q=0.5, application/msgpack;q=0.9, application/x-msgpack;q=0.1",
        "text/html",
        "nonsense;;q=,",
    ],
)
def test_msgpack_is_the_answer_unless_json_is_preferred(accept: str | None) -> None:
    assert not prefers_json(accept)


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/problem+json",
        "application/json, text/plain, */*",
        "application/json;q=0.2, application/x-msgpack;q=0.1",
        "application/*;q=0.9, application/x-msgpack;q=0.1",
        "*/*, application/x-msgpack;q=0, application/msgpack;q=0, application/vnd.msgpack;q=0",
    ],
)
def test_json_is_the_answer_where_it_is_preferred(accept: str) -> None:
    assert prefers_json(accept)


@pytest.mark.parametrize(("length", "is_read"), [(1_000, True), (1_001, False)])
def test_a_header_of_up_to_a_thousand_characters_is_read(length: int, is_read: bool) -> None:
    assert prefers_json("application/json".ljust(length)) is is_read


@given(st.text(max_size=2000))
def test_no_accept_header_raises(accept: str) -> None:
    assert prefers_json(accept) in {True, False}


def test_the_payload_is_the_same_in_both_encodings() -> None:
    payload = {"mpack_url": None, "commit_count": 3, "branch_heads": {"naïve": "x"}}
    assert msgpack.unpackb(encode_response(payload, None).data) == payload
    assert encode_response(payload, "application/json").json == payload


@pytest.mark.parametrize("accept", [None, "application/json"])
def test_s65_an_answer_is_not_stored_and_varies_by_who_asks(accept: str | None) -> None:
    headers = encode_response({}, accept).headers
    assert (headers["Cache-Control"], headers["Vary"], headers["X-Content-Type-Options"]) == (
        "no-store",
        "Accept, Authorization, Cookie",
        "nosniff",
    )


def test_caching_and_further_headers_can_be_given() -> None:
    response = encode_response({}, None, 202, headers={"X-Two": "2"}, cache_control="private, no-cache")
    assert (response.status_code, response.headers["X-Two"], response.headers["Cache-Control"]) == (
        202,
        "2",
        "private, no-cache",
    )
