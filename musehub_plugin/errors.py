"""The errors that cross rooms: each knows its HTTP form, so that the web layer has nothing to decide.

Errors that one module alone raises and its caller handles live beside the code that raises them.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any


class HubError(Exception):
    """A refusal that is part of the interface (RFC 9457 members plus `code`).

    Args:
        detail: one sentence for the caller: what was refused, where, and what to do. Never a secret, an SQL text,
            a storage key or the name of another repo.
        code: a stable slug for programs; the class has a default.
        extra: further members of the problem body, such as `limit` or `branch_heads`.
        headers: further response headers.
    """

    status: HTTPStatus = HTTPStatus.INTERNAL_SERVER_ERROR
    code: str = "internal-error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})


class BadBody(HubError):
    """The body cannot be decoded at all."""

    status = HTTPStatus.BAD_REQUEST
    code = "undecodable-body"


class Unauthenticated(HubError):
    """Credentials are present and bad, or needed and absent; the answer carries a challenge."""

    status = HTTPStatus.UNAUTHORIZED
    code = "authentication-required"


class Forbidden(HubError):
    """The caller may read the repo, but not do this."""

    status = HTTPStatus.FORBIDDEN
    code = "forbidden"


class NotFound(HubError):
    """What was named is not there, or is not there for this caller."""

    status = HTTPStatus.NOT_FOUND
    code = "not-found"


class RepoNotFound(NotFound):
    """The repo is missing, or the caller may not read it: one constant answer for both (ATTACKS S32)."""

    code = "repo-not-found"

    def __init__(self) -> None:
        super().__init__("There is no such repo, or you may not read it.")


class Conflict(HubError):
    """The state of a branch is not what the request needs; nothing was changed."""

    status = HTTPStatus.CONFLICT
    code = "conflict"


class TooLarge(HubError):
    """Something exceeds a limit; `limit` is in the body."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "too-large"

    def __init__(self, detail: str, *, limit: int, code: str | None = None) -> None:
        super().__init__(detail, code=code, extra={"limit": limit})


class UnsupportedMediaType(HubError):
    """The body's content type or encoding is none that the hub reads."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported-media-type"


class Invalid(HubError):
    """The body decodes, but what it says is wrong."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid"


class Unavailable(HubError):
    """A dependency is down or work is not finished; the caller should come back.

    Args:
        detail: a sentence for the caller.
        retry_after: seconds to wait, at least 1.
        code: the slug, where it is not the class's own.
    """

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "unavailable"

    def __init__(self, detail: str, *, retry_after: int, code: str | None = None) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(max(1, retry_after))})


class HistoryDamaged(HubError):
    """Rows of a repo contradict each other, such as a commit whose parent is nowhere.

    Args:
        internal: what the log needs to find the damage; never sent. The caller sees a constant sentence.
    """

    code = "history-damaged"

    def __init__(self, internal: str) -> None:
        super().__init__("This repo's history is damaged on the server. Give the request id to the operator.")
        self.internal = internal


def for_operators(error: Exception) -> str:
    """Return what a log or a job's row says of an error: of a damaged history what its caller is not told."""
    return error.internal if isinstance(error, HistoryDamaged) else str(error)


class ConfigError(ValueError):
    """A configuration value is wrong; the message names the key and what it should be."""


class StorageUnavailable(Exception):
    """Object storage did not answer, or answered with an error that a later try may not meet."""


def sqlstate(error: BaseException | None) -> str | None:
    """Return the five characters by which PostgreSQL calls an error, where it is one of its own.

    psycopg2 has them as `pgcode`, psycopg as `sqlstate`.
    """
    return getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)


def first_line(error: BaseException | None) -> str:
    """Return the first line of what an error says, or its class where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
