"""Which encoding an answer has, and the headers that every answer has.

The hub speaks msgpack unless `Accept` prefers JSON. "Prefers" means a higher quality value or, at equal
quality, a more specific match: `application/json, text/plain, */*`, which browser libraries send, gets JSON;
`*/*`, no header, and `application/x-msgpack, application/json`, which muse clients send, get msgpack. Nothing
is ever refused for its `Accept`: a client that reads neither still gets its status.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgpack
from flask import Response
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from musehub_plugin.web.body import JSON_TYPE, MSGPACK_TYPES

MSGPACK_TYPE: Final = "application/x-msgpack"
PROBLEM_TYPE: Final = "application/problem+json"

NO_STORE: Final = "no-store"
VARY: Final = "Accept, Authorization, Cookie"
"""Who asks decides the answer, and a host may know them by a token or by a session. It is the same on every
answer, so that it cannot tell one repo from another."""

_MAX_ACCEPT: Final = 1000
"""Characters of an `Accept` header that are worth parsing."""


def prefers_json(accept: str | None) -> bool:
    """Say whether an `Accept` header prefers JSON over msgpack.

    Args:
        accept: the header's value; None or an empty one prefers nothing.
    """
    if not accept or len(accept) > _MAX_ACCEPT:
        return False
    return _prefers_json(accept)


# A client sends the same header each time.
@lru_cache(maxsize=64)
def _prefers_json(accept: str) -> bool:
    given = parse_accept_header(accept, MIMEAccept)
    ranges = [(name.partition(";")[0].strip().lower(), quality) for name, quality in given]
    return _rank(ranges, {JSON_TYPE, PROBLEM_TYPE}) > _rank(ranges, MSGPACK_TYPES)


def encode_response(
    payload: Mapping[str, Any],
    accept: str | None,
    status: int = 200,
    *,
    headers: Mapping[str, str] | None = None,
    cache_control: str = NO_STORE,
    json_type: str = JSON_TYPE,
) -> Response:
    """Return `payload` in the encoding that the caller prefers.

    Args:
        payload: a map of what both encodings can hold, and of bytes, which are base64 text in JSON.
        accept: the request's `Accept` header.
        status: the HTTP status.
        headers: further headers.
        cache_control: what caches may do; an answer names private things and signed URLs unless the caller of
            this function knows better.
        json_type: the content type of the JSON form.
    """
    given = answer_headers(cache_control)
    body: str | bytes
    if prefers_json(accept):
        body, given["Content-Type"] = json.dumps(payload, separators=(",", ":"), default=_base64), json_type
    else:
        body, given["Content-Type"] = msgpack.packb(payload), MSGPACK_TYPE
    if headers:
        given.update(headers)
    return Response(body, status=status, headers=given)


def _base64(value: object) -> str:
    """Return bytes as JSON has them."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def answer_headers(cache_control: str = NO_STORE) -> dict[str, str]:
    """Return the headers that every answer has."""
    return {"Cache-Control": cache_control, "Vary": VARY, "X-Content-Type-Options": "nosniff"}


def _rank(ranges: list[tuple[str, float]], types: frozenset[str] | set[str]) -> tuple[float, int]:
    """Return the quality and the specificity (2: the type itself, 1: `application/*`, 0) of the best
    range."""
    specificity = {"*/*": 0, "application/*": 1, **dict.fromkeys(types, 2)}
    matches = [(specificity[name], quality) for name, quality in ranges if name in specificity]
    # RFC 9110, section 12.5.1: the most specific range that matches gives the quality, not the highest one.
    most = max((specific for specific, _ in matches), default=0)
    quality = max((quality for specific, quality in matches if specific == most), default=0.0)
    return (quality, most) if quality > 0 else (0.0, 0)
