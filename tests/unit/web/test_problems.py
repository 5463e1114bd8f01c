"""Errors as answers, from a real app whose host has error handlers of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn

import msgpack
import pytest
from flask import Blueprint, Flask, abort, got_request_exception
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.test import TestResponse

from musehub_plugin.errors import (
    Conflict,
    Forbidden,
    HistoryDamaged,
    HubError,
    RepoNotFound,
    StorageUnavailable,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from musehub_plugin.web import problems


def answer_to(step: Callable[[], object], **headers: str) -> TestResponse:
    """Return what a view that does `step` answers, on a host that handles errors in its own way."""
    app = Flask(__name__)
    blueprint = Blueprint("musehub", __name__)
    problems.register(blueprint, lambda: 7)

    @blueprint.get("/x")
    def view() -> str:
        step()
        return "fine"

    @app.errorhandler(Exception)
    @app.errorhandler(404)
    @app.errorhandler(500)
    def host(error: Exception) -> tuple[str, int]:
        return "the host's page", 599

    app.register_blueprint(blueprint)
    return app.test_client().get("/x", headers={"Accept": "application/json", **headers})


def raising(error: Exception) -> Callable[[], NoReturn]:
    def step() -> NoReturn:
        raise error

    return step


def aborting(*arguments: Any) -> Callable[[], NoReturn]:
    return lambda: abort(*arguments)


def test_a_refusal_has_the_members_of_rfc_9457_and_a_code() -> None:
    response = answer_to(raising(Conflict("Moved.", code="stale-head", extra={"branch_heads": {"main": "x"}})))
    assert response.content_type == "application/problem+json"
    assert (response.status_code, response.json) == (
        409,
        {
            "type": "about:blank",
            "title": "Conflict",
            "status": 409,
            "detail": "Moved.",
            "code": "stale-head",
            "branch_heads": {"main": "x"},
        },
    )


def test_a_refusal_is_msgpack_where_json_is_not_preferred() -> None:
    response = answer_to(raising(RepoNotFound()), Accept="*/*")
    assert response.content_type == "application/x-msgpack"
    assert msgpack.unpackb(response.data)["code"] == "repo-not-found"


def test_further_members_cannot_replace_the_standard_ones() -> None:
    response = answer_to(raising(HubError("x", extra={"status": 200, "detail": "y"})))
    assert response.json is not None
    assert (response.json["status"], response.json["detail"]) == (500, "x")


def test_a_limit_is_in_the_body() -> None:
    response = answer_to(raising(TooLarge("Too many.", limit=5)))
    assert response.json is not None
    assert (response.status_code, response.json["limit"]) == (413, 5)


@pytest.mark.parametrize("step", [raising(Unauthenticated("Who?")), aborting(401)])
def test_s31_every_401_has_the_same_challenge(step: Callable[[], object]) -> None:
    response = answer_to(step)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="musehub"')


@pytest.mark.parametrize("error", [RepoNotFound(), Forbidden("No."), Unauthenticated("Who?")])
def test_s32_a_refusal_is_one_constant(error: HubError) -> None:
    first, second = (answer_to(raising(error)) for _ in range(2))
    assert first.data == second.data
    del first.headers["X-Request-Id"], second.headers["X-Request-Id"]
    assert first.headers == second.headers


def test_retry_after_comes_with_503() -> None:
    response = answer_to(raising(Unavailable("Later.", retry_after=3)))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "3")


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT secret", {}, ConnectionError("gone")),
        InterfaceError("SELECT secret", {}, ConnectionError("gone")),
        ProgrammingError("SELECT secret", {}, ConnectionError("gone"), connection_invalidated=True),
        PoolTimeout("secret"),
        StorageUnavailable("secret"),
    ],
)
def test_a_dependency_that_is_down_is_503_with_retry_after(error: Exception) -> None:
    response = answer_to(raising(error))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
    what = "storage" if isinstance(error, StorageUnavailable) else "database"
    assert (response.json or {})["code"] == f"{what}-unavailable"
    assert "secret" not in response.text


@pytest.mark.parametrize(
    "error", [KeyError("secret"), RecursionError("secret"), ProgrammingError("secret", {}, KeyError())]
)
def test_s95_any_other_error_is_500_without_its_text(error: Exception) -> None:
    response = answer_to(raising(error))
    assert response.status_code == 500
    assert "secret" not in response.text


def test_a_500_can_be_found_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    response = answer_to(raising(KeyError("lost")))
    assert response.json is not None
    (record,) = caplog.records
    assert response.json["request_id"] in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


def test_a_500_is_told_to_error_trackers() -> None:
    told: list[object] = []

    def listen(sender: Flask, exception: Exception, **extra: Any) -> None:
        told.append(exception)

    error = KeyError()
    with got_request_exception.connected_to(listen):
        answer_to(raising(error))
    assert told == [error]


def test_damaged_history_is_named_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    response = answer_to(raising(HistoryDamaged("commit seventeen has no parent")))
    assert response.status_code == 500
    assert "seventeen" not in response.text
    assert "commit seventeen has no parent" in caplog.text


def test_s64_the_statement_of_a_database_error_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    answer_to(raising(OperationalError("SELECT secret", {"p": "secret"}, ConnectionError("gone"))))
    assert "gone" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422, 429, 500, 503])
def test_an_abort_within_our_views_is_a_problem_and_not_the_hosts_page(status: int) -> None:
    response = answer_to(aborting(status, "secret"))
    assert (response.status_code, response.content_type) == (status, "application/problem+json")
    assert "secret" not in response.text


def test_an_abort_has_the_code_that_the_plugin_uses_for_the_same_thing() -> None:
    codes = {status: (answer_to(aborting(status)).json or {})["code"] for status in (404, 413, 415, 418)}
    assert codes == {404: "not-found", 413: "too-large", 415: "unsupported-media-type", 418: "i-m-a-teapot"}


def test_a_limiters_retry_after_is_kept() -> None:
    from werkzeug.exceptions import TooManyRequests

    assert answer_to(raising(TooManyRequests(retry_after=9))).headers["Retry-After"] == "9"


def test_the_methods_that_are_allowed_and_the_length_of_a_file_are_kept() -> None:
    from werkzeug.exceptions import MethodNotAllowed, RequestedRangeNotSatisfiable

    assert answer_to(raising(MethodNotAllowed(["GET"]))).headers["Allow"] == "GET"
    assert answer_to(raising(RequestedRangeNotSatisfiable(9))).headers["Content-Range"] == "bytes */9"


def test_a_redirect_of_a_hosts_own_is_no_problem() -> None:
    from werkzeug.exceptions import HTTPException

    class Moved(HTTPException):
        code = 302

    answer = answer_to(raising(Moved("elsewhere")))
    assert (answer.status_code, answer.mimetype) == (302, "text/html")


def test_a_refusal_that_werkzeug_has_no_class_for_is_a_problem_too() -> None:
    from werkzeug.exceptions import HTTPException

    class PaymentRequired(HTTPException):
        code = 402

    answer = answer_to(raising(PaymentRequired()))
    assert (answer.status_code, (answer.json or {})["code"]) == (402, "payment-required")


def test_a_response_that_was_aborted_with_is_sent_as_it_is() -> None:
    from flask import Response
    from werkzeug.exceptions import TooManyRequests

    mine = Response("mine", 402, headers={"X-Request-Id": "my own"})
    for step in (aborting(mine), raising(TooManyRequests(response=mine))):
        answer = answer_to(step)
        assert (answer.status_code, answer.text) == (402, "mine")
        assert answer.headers.getlist("X-Request-Id") == ["my own"]


def test_the_hosts_own_pages_keep_the_hosts_error_pages() -> None:
    app = Flask(__name__)
    problems.register(blueprint := Blueprint("musehub", __name__))
    app.register_blueprint(blueprint)
    app.register_error_handler(404, lambda error: ("the host's page", 404))
    assert app.test_client().get("/other").text == "the host's page"


@pytest.mark.parametrize("given", ["a", "A-Z_0.9", "x" * 128])
def test_o04_a_plain_request_id_is_kept(given: str) -> None:
    assert answer_to(lambda: None, **{"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a;b", "<script>", "ä", "a\tb"])
def test_o04_any_other_request_id_is_replaced(given: str) -> None:
    assert len(answer_to(lambda: None, **{"X-Request-Id": given}).headers["X-Request-Id"]) == 32


def test_o04_the_id_in_the_body_is_the_one_in_the_header() -> None:
    response = answer_to(raising(KeyError()), **{"X-Request-Id": "abc"})
    assert response.json is not None
    assert response.headers["X-Request-Id"] == response.json["request_id"] == "abc"


def test_o04_two_requests_have_two_ids() -> None:
    ids = {answer_to(lambda: None).headers["X-Request-Id"] for _ in range(2)}
    assert len(ids) == 2


def test_o04_below_500_the_body_has_no_id() -> None:
    assert "request_id" not in (answer_to(raising(RepoNotFound())).json or {})


@pytest.fixture(autouse=True)
def _all_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="musehub_plugin")
