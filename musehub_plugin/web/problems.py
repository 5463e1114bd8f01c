"""Errors as answers: RFC 9457 problems, in the encoding that the caller prefers.

`type` is always `about:blank`, with which RFC 9457 says that `title` is the status's own phrase; programs
look at `code`. Answers below 500 are constant for a given refusal: no request id, no name, nothing of the
request. From 500 on, `request_id` is there to find the log line by, and nothing of the exception.

The handlers are registered on a blueprint alone, so that a host's own pages keep the host's own error pages.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol

from flask import Blueprint, Response, got_request_exception, request
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Response as WerkzeugResponse

from musehub_plugin.errors import (
    Forbidden,
    HistoryDamaged,
    HubError,
    Invalid,
    NotFound,
    StorageUnavailable,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    sqlstate,
)
from musehub_plugin.hub import current_app_object
from musehub_plugin.store.session import hide_values
from musehub_plugin.web.negotiation import PROBLEM_TYPE, encode_response

logger = logging.getLogger(__name__)

CHALLENGE: Final = 'Bearer realm="musehub"'
"""`WWW-Authenticate` of every 401."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ENVIRON_KEY: Final = "musehub.request_id"
_KEPT_HEADERS: Final = ("Allow", "Content-Range", "Retry-After")
# read_only_sql_transaction, which a standby answers until it is promoted, and which is no OperationalError.
_READ_ONLY: Final = "25006"
_CODES: Final = {
    int(kind.status): kind.code
    for kind in (Unauthenticated, Forbidden, NotFound, TooLarge, UnsupportedMediaType, Invalid, Unavailable)
}
"""What an exception of werkzeug's is called, where the plugin has a word for the same thing."""


def request_id() -> str:
    """Return the id of the current request: the caller's `X-Request-Id` where it is a plain word, else a new
    one.

    It lives in the WSGI environment and not on `flask.g`, which outlives a request in some test set-ups.
    """
    environ = request.environ
    known = environ.get(_ENVIRON_KEY)
    if isinstance(known, str):
        return known
    given = environ.get("HTTP_X_REQUEST_ID")
    chosen: str = given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
    environ[_ENVIRON_KEY] = chosen
    return chosen


class Respond(Protocol):
    """Makes a problem into the answer to the current request: `problem`, or what another protocol has instead."""

    def __call__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Return the answer; `problem` says what the arguments are."""
        ...


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem as the answer to the current request.

    Args:
        status: the HTTP status, 400 or more.
        code: the stable slug.
        detail: one sentence for a person.
        extra: further members; they cannot replace the standard ones.
        headers: further headers.
    """
    return encode_response(
        problem_members(status, code, detail, extra),
        request.headers.get("Accept"),
        status=int(status),
        headers=problem_headers(status, headers),
        json_type=PROBLEM_TYPE,
    )


def problem_members(status: int, code: str, detail: str, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the members of a problem; the arguments are those of `problem`."""
    members: dict[str, Any] = {
        **(extra or {}),
        "type": "about:blank",
        "title": _phrase(status),
        "status": int(status),
        "detail": detail,
        "code": code,
    }
    if status >= 500:
        members["request_id"] = request_id()
    return members


def problem_headers(status: int, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers that a problem adds; the arguments are those of `problem`."""
    sent = dict(headers or {})
    if status == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = CHALLENGE
    return sent


def register(
    blueprint: Blueprint,
    retry_after: Callable[[], int] = lambda: 2,
    *,
    abandon: Callable[[], None] = lambda: None,
    respond: Respond = problem,
) -> None:
    """Make `blueprint` answer its errors as problems and stamp `X-Request-Id` on its answers.

    Args:
        blueprint: the plugin's blueprint, before it is registered on an app.
        retry_after: gives the seconds that a caller should wait when the database or storage is away.
        abandon: lets go of the request's database connections once the database has failed: the end of the request
            would talk to it again, and an error there has no handler.
        respond: makes the answers.
    """

    def unavailable(what: str) -> Response:
        detail = f"The {what} is not available at the moment. Try again."
        return hub_error(Unavailable(detail, retry_after=retry_after(), code=f"{what}-unavailable"), respond)

    def database_error(error: DBAPIError | PoolTimeout) -> Response:
        # The driver's own words: the SQLAlchemy text would carry the statement and its parameters.
        cause = error.orig if isinstance(error, DBAPIError) else error
        logger.error("Request %s: the database failed: %s: %s", request_id(), type(cause).__name__, cause)
        abandon()
        return unavailable("database")

    def storage_error(error: StorageUnavailable) -> Response:
        logger.error("Request %s: storage failed: %s", request_id(), error)
        return unavailable("storage")

    def any_error(error: Exception) -> Response:
        if isinstance(error, DBAPIError) and (error.connection_invalidated or sqlstate(error.orig) == _READ_ONLY):
            return database_error(error)
        hide_values(error)
        logger.error("Request %s failed.", request_id(), exc_info=error)
        # Flask sends this for exceptions that nobody handles; error trackers listen to it.
        app = current_app_object()
        got_request_exception.send(app, _async_wrapper=app.ensure_sync, exception=error)
        return respond(500, HubError.code, "The server failed. Give the request id to the operator.")

    blueprint.register_error_handler(HubError, partial(hub_error, respond=respond))
    for kind in (OperationalError, InterfaceError, PoolTimeout):
        blueprint.register_error_handler(kind, database_error)
    blueprint.register_error_handler(StorageUnavailable, storage_error)
    blueprint.register_error_handler(Exception, any_error)
    # Flask asks the app's handler for the exact status before a blueprint's for HTTPException: claim each
    # status.
    refused = partial(http_exception, respond=respond)
    blueprint.register_error_handler(HTTPException, refused)
    for exception in default_exceptions.values():
        blueprint.register_error_handler(exception, refused)
    blueprint.after_request(_stamp)


def hub_error(error: HubError, respond: Respond = problem) -> Response:
    """Return the answer to a refusal that is part of the interface."""
    if isinstance(error, HistoryDamaged):
        logger.error("Request %s: damaged history: %s", request_id(), error.internal)
    elif error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.info("Request %s: %s %s: %s", request_id(), int(error.status), error.code, error.detail)
    return respond(error.status, error.code, error.detail, extra=error.extra, headers=error.headers)


def http_exception(error: HTTPException, respond: Respond = problem) -> WerkzeugResponse:
    """Return the answer to an exception of werkzeug's, or of a host's `abort()` within the plugin's views."""
    status = error.code
    if error.response is not None or status is None or status < 400:
        return error.get_response(request.environ)
    headers = {name: value for name, value in error.get_headers(request.environ) if name in _KEPT_HEADERS}
    phrase = _phrase(status)
    # The description may repeat what was sent; the phrase cannot.
    code = _CODES.get(status) or re.sub(r"[^a-z]+", "-", phrase.lower())
    return respond(status, code, f"{phrase}.", headers=headers)


def _phrase(status: int) -> str:
    # werkzeug's table: http.HTTPStatus has other words for 413, 416 and 422 from one Python to the next.
    return HTTP_STATUS_CODES.get(int(status), "Unknown Error")


def _stamp(response: Response) -> Response:
    response.headers.setdefault("X-Request-Id", request_id())
    return response
