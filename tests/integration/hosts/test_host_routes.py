"""The plugin's paths beside a host's own: routes, error pages, limits, CSRF, mounts and proxies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, redirect, request
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client
from werkzeug.wrappers import Response as WerkzeugResponse

from musehub_plugin import MuseHub
from musehub_plugin.doctor import examine
from musehub_plugin.ids import fake_id
from tests.exchange import Caller
from tests.integration.hosts.conftest import MakeHost
from tests.integration.hosts.hosting import hub_of, new_host, round_trip

PAGE_404 = "<h1>The host knows no such page</h1>"


def with_greedy_routes(app: Flask) -> None:
    """Give a host pages under `/<owner>/<slug>/`, for every method, and an error page of its own."""

    @app.route("/<owner>/<slug>/<page>", methods=["GET", "POST"])
    def repo_page(owner: str, slug: str, page: str) -> str:
        return f"host: {page}"

    @app.route("/<owner>/<slug>/<path:rest>", methods=["GET", "POST", "PUT"])
    def file_page(owner: str, slug: str, rest: str) -> str:
        return f"host: {rest}"

    @app.errorhandler(404)
    def not_found(error: Exception) -> tuple[str, int]:
        return PAGE_404, 404


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_host_s_greedy_routes_do_not_swallow_the_plugin_s(make_host: MakeHost, when: str) -> None:
    app = make_host(**{when: with_greedy_routes})
    caller = Caller(app, "alice")
    pulled = round_trip(caller)
    assert caller.refs("alice/songs").get_json()["branch_heads"] == {"main": next(iter(pulled.commits))}
    assert caller.negotiate("alice/songs", list(pulled.commits)).status_code == 200


@pytest.mark.parametrize("path", ["/alice/songs/issues", "/alice/songs/tree/main/fetch", "/alice/songs/push/other"])
def test_a_host_keeps_every_other_page_of_a_repo(make_host: MakeHost, path: str) -> None:
    app = make_host(after=with_greedy_routes)
    assert app.test_client().get(path).text.startswith("host: ")


def test_a_host_s_404_page_is_for_its_own_pages(make_host: MakeHost) -> None:
    client = make_host(after=with_greedy_routes).test_client()
    assert client.get("/nowhere").text == PAGE_404


def test_the_plugin_s_404_is_a_problem_where_a_host_has_a_page(make_host: MakeHost) -> None:
    answer = Caller(make_host(after=with_greedy_routes), "bob").refs("alice/none")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert answer.get_json()["code"] == "repo-not-found"


def test_a_host_s_own_errors_stay_its_own(make_host: MakeHost) -> None:
    def add(app: Flask) -> None:
        @app.route("/broken")
        def broken() -> str:
            raise RuntimeError("the host's own")

        @app.errorhandler(RuntimeError)
        def handle(error: RuntimeError) -> tuple[str, int]:
            return f"host: {error}", 500

    assert make_host(after=add).test_client().get("/broken").text == "host: the host's own"


def test_a_url_prefix_moves_the_plugin_and_frees_the_root(make_host: MakeHost) -> None:
    app = make_host(MUSEHUB_URL_PREFIX="/muse/")
    round_trip(Caller(app, "alice"), "muse/alice/songs")
    answer = Caller(app, "alice").refs("alice/songs")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")


def test_an_ops_prefix_moves_the_files_that_the_plugin_serves(make_host: MakeHost) -> None:
    app = make_host(MUSEHUB_OPS_PREFIX="/internal/muse")
    caller = Caller(app, "alice")
    ticket = caller.presign("alice/songs", b"x").get_json()
    assert "/internal/muse/storage/upload/" in ticket["upload_url"]
    answer = caller.http.put(ticket["upload_url"], data=b"x", headers=ticket["headers"])
    assert answer.status_code == 200


def test_a_host_s_smaller_body_limit_is_not_the_plugin_s(make_host: MakeHost) -> None:
    app = make_host(MAX_CONTENT_LENGTH=200)
    caller = Caller(app, "alice")
    pulled = round_trip(caller, content=bytes(range(256)) * 8)
    haves = [fake_id(str(number)) for number in range(50)]
    assert caller.fetch("alice/songs", list(pulled.commits), haves).status_code == 200


def test_a_host_s_body_limit_still_holds_for_its_own_pages(make_host: MakeHost) -> None:
    def add(app: Flask) -> None:
        @app.post("/note")
        def note() -> str:
            return str(len(request.get_data()))

    app = make_host(after=add, MAX_CONTENT_LENGTH=200)
    assert app.test_client().post("/note", data=b"x" * 201).status_code == 413


@pytest.mark.parametrize("when", ["before", "after"])
def test_s93_a_host_s_csrf_protection_lets_muse_clients_through(make_host: MakeHost, when: str) -> None:
    app = make_host(**{when: lambda app: CSRFProtect(app)})
    round_trip(Caller(app, "alice"))


@pytest.mark.parametrize("when", ["before", "after"])
def test_s93_a_host_s_csrf_protection_still_holds_for_its_own_forms(make_host: MakeHost, when: str) -> None:
    def add(app: Flask) -> None:
        @app.post("/form")
        def form() -> str:
            return "sent"

        CSRFProtect(app)

    app = make_host(**{when: add})
    assert app.test_client().post("/form", data={"a": "b"}).status_code == 400


def test_a_mount_below_a_path_is_in_the_urls(make_host: MakeHost) -> None:
    app = make_host()
    app.config["APPLICATION_ROOT"] = "/forge"
    mounted = Client(DispatcherMiddleware(Flask("outer"), {"/forge": app}))
    headers = {"Authorization": "Bearer alice", "Accept": "application/json"}
    body = {"mpack_id": fake_id("x"), "size_bytes": 1}
    answer = mounted.post("/forge/alice/songs/push/presign", json=body, headers=headers)
    assert answer.get_json()["upload_url"].startswith("http://localhost/forge/-/musehub/storage/upload/")


def test_a_trusted_proxy_s_prefix_is_in_the_urls(make_host: MakeHost) -> None:
    app = make_host(MUSEHUB_PUBLIC_URL="https://hub.example.org/forge")
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1, x_proto=1, x_prefix=1)  # type: ignore[method-assign]  # Flask's way
    forwarded = {"X-Forwarded-Host": "hub.example.org", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/forge"}
    headers = {"Authorization": "Bearer alice", "Accept": "application/json", **forwarded}
    body = {"mpack_id": fake_id("x"), "size_bytes": 1}
    answer = app.test_client().post("/alice/songs/push/presign", json=body, headers=headers)
    assert answer.get_json()["upload_url"].startswith("https://hub.example.org/forge/-/musehub/storage/upload/")


EVIL = "evil.example.net"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": EVIL},
        {"Host": f"{EVIL}:80"},
        {"Host": f"localhost.{EVIL}"},
        {"Host": f"127.0.0.1.{EVIL}"},
        {"Host": f"localhost@{EVIL}"},
        {"X-Forwarded-Host": EVIL, "X-Forwarded-Proto": "https"},
        {"Forwarded": f"host={EVIL};proto=https"},
        {"X-Forwarded-Prefix": f"//{EVIL}"},
    ],
    ids=lambda headers: " ".join(f"{name}={value}" for name, value in headers.items()),
)
@pytest.mark.parametrize("public_url", ["", "https://hub.example.org"])
def test_s85_no_url_names_a_host_that_a_header_made_up(
    make_host: MakeHost, headers: dict[str, str], public_url: str
) -> None:
    app = make_host(MUSEHUB_PUBLIC_URL=public_url)
    pulled = round_trip(Caller(app, "alice"))
    client = Caller(app, "alice").http
    sent = {"Accept": "application/json", **headers}
    answers = [
        client.post("/alice/songs/fetch", json={"want": list(pulled.commits), "have": []}, headers=sent),
        client.post("/alice/songs/push/presign", json={"mpack_id": fake_id("x"), "size_bytes": 1}, headers=sent),
        client.get("/alice/songs/refs/", headers=sent),
        client.get("/alice//songs/refs", headers=sent),
    ]
    assert all(EVIL not in f"{answer.text} {answer.headers}" for answer in answers)


def test_s85_a_public_url_is_in_every_url(make_host: MakeHost) -> None:
    app = make_host(MUSEHUB_PUBLIC_URL="https://hub.example.org/forge/")
    caller = Caller(app, "alice")
    url = caller.presign("alice/songs", b"x").get_json()["upload_url"]
    assert url.startswith("https://hub.example.org/forge/-/musehub/storage/upload/")


def test_a_host_that_pins_its_server_name_still_serves(make_host: MakeHost) -> None:
    app = make_host(SERVER_NAME="localhost", TRUSTED_HOSTS=["localhost"])
    round_trip(Caller(app, "alice"))


@pytest.mark.parametrize("path", ["/alice/songs/refs/", "/alice//songs/refs", "/alice/songs//refs"])
def test_s26_an_untidy_path_is_not_found_and_not_redirected(make_host: MakeHost, path: str) -> None:
    assert Caller(make_host(), "alice").get(path).status_code == 404


def test_two_hosts_of_one_process_sign_by_their_own_keys(
    tmp_path: Path, make_host: MakeHost, closing: Callable[[Flask], None]
) -> None:
    app = make_host()
    url = Caller(app, "alice").presign("alice/songs", b"x").get_json()["upload_url"]
    second = new_host(tmp_path)
    second.config["SECRET_KEY"] = "the secret key of another host here"
    MuseHub(second, SQLAlchemy(second))
    closing(second)
    assert second.test_client().put(url, data=b"x").status_code == 403


def test_a_host_that_wants_a_login_for_its_own_pages_may_let_muse_clients_pass(make_host: MakeHost) -> None:
    def want_login(app: Flask) -> None:
        @app.before_request
        def log_in() -> WerkzeugResponse | None:
            return None if (request.blueprint or "").startswith("musehub") else redirect("/login")

    host = make_host(before=want_login)
    round_trip(Caller(host, "alice"))
    assert Caller(host).get("/-/musehub/live").status_code == 200
    assert Caller(host).get("/pages").status_code == 302


def findings_of_routes(host: Flask) -> tuple[str, str]:
    """Return what `flask musehub doctor` says of the routes."""
    with host.app_context():
        (found,) = (finding for finding in examine(hub_of(host)) if finding.what == "routes")
    return found.verdict, found.says


def add_branches_page(app: Flask) -> None:
    app.add_url_rule("/<user>/<name>/refs", "branches_page", lambda user, name: "branches")


def test_doctor_names_a_page_of_the_host_s_that_answers_for_the_plugin(make_host: MakeHost) -> None:
    verdict, says = findings_of_routes(make_host(before=add_branches_page))
    assert (verdict, "GET /owner/slug/refs" in says, "'branches_page'" in says) == ("wrong", True, True)


def test_a_prefix_makes_room_for_a_page_of_the_host_s(make_host: MakeHost) -> None:
    host = make_host(before=add_branches_page, MUSEHUB_URL_PREFIX="/muse")
    assert findings_of_routes(host) == ("ok", "/muse/<owner>/<slug>/... leads to the plugin")


@pytest.mark.parametrize(
    "settings", [{}, {"MUSEHUB_PUBLIC_URL": "https://hub.example/forge"}, {"TRUSTED_HOSTS": ["hub.example"]}]
)
def test_doctor_finds_the_plugin_s_routes(make_host: MakeHost, settings: dict[str, Any]) -> None:
    assert findings_of_routes(make_host(before=with_greedy_routes, **settings))[0] == "ok"


def test_doctor_warns_where_no_rule_answers_at_the_public_url(make_host: MakeHost) -> None:
    def match_hosts(app: Flask) -> None:
        app.url_map.host_matching = True

    host = make_host(before=match_hosts, MUSEHUB_PUBLIC_URL="https://hub.example")
    assert findings_of_routes(host)[0] == "warning"
