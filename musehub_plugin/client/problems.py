"""What a hub answers, decoded: maps in msgpack or JSON, and problems (RFC 9457 with a `code`)."""

from __future__ import annotations

import json
from typing import Any, Final

import msgpack

from musehub_plugin.client.errors import HubRefused, HubUnreachable

_MSGPACK: Final = frozenset({"application/x-msgpack", "application/msgpack", "application/vnd.msgpack"})
_JSON: Final = frozenset({"application/json", "application/problem+json"})
_TITLES: Final = {
    401: "the hub does not accept these credentials; set MUSEHUB_TOKEN or use --token-file",
    403: "you may not do this here",
    404: "there is no such repo, or you may not read it",
    407: "the proxy that the environment names asks for credentials",
    413: "the hub refuses a request of this size",
    429: "the hub asks to come back later",
    503: "the hub is not ready; come back later",
}


def decode_answer(content_type: str, content: bytes, where: str) -> dict[str, Any]:
    """Return the map that an answer holds.

    Args:
        content_type: the answer's `Content-Type`.
        content: its body.
        where: the URL that was asked, for the error.

    Raises:
        HubUnreachable: it holds no map, or comes in an encoding that no hub uses.
    """
    answer = _decode(content_type, content)
    if answer is None:
        raise HubUnreachable(f"the answer of {where} is no answer of a muse hub; is the URL right?")
    return answer


def read_problem(status: int, content_type: str, content: bytes, *, retry_after: float | None) -> HubRefused:
    """Return the error that an answer with an error status stands for, whatever its body holds."""
    members = _decode(content_type, content) or {}
    code = members.pop("code", None)
    detail = members.pop("detail", None)
    if not isinstance(detail, str) or not detail:
        detail = members.get("title") if isinstance(members.get("title"), str) else None
    return HubRefused(
        status,
        code if isinstance(code, str) and code else f"http-{status}",
        detail or _TITLES.get(status, "the hub answered with an error"),
        extra={key: value for key, value in members.items() if key not in {"type", "title", "status"}},
        retry_after=retry_after,
    )


def _decode(content_type: str, content: bytes) -> dict[str, Any] | None:
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind in _MSGPACK:
            answer = msgpack.unpackb(content)
        elif kind in _JSON:
            answer = json.loads(content)
        else:
            return None
    except (ValueError, msgpack.UnpackException, RecursionError):
        return None
    return answer if isinstance(answer, dict) and all(isinstance(key, str) for key in answer) else None
