"""What the client sends to whom, what it takes for an answer, and when it tries again: against real sockets."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import msgpack
import pytest

from musehub_plugin import ids
from musehub_plugin.client import HubRefused, HubTransport, HubUnreachable, InsecureTokenError, WorkdirError
from musehub_plugin.client.protocol import ask_fetch, get_refs, negotiate, presign
from tests.unit.client.scripted_server import Answer, ScriptedServer, packed, scripted_server

BUSY = packed({"code": "index-pending", "detail": "not yet"}, 503, Retry_After="3")
DONE = packed({"x": 1})
SECRET = "s3cr3t-token"


class Clock:
    """Takes the place of waiting, and remembers how long it would have been."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


def transport(server: ScriptedServer, clock: Clock | None = None, **options: object) -> HubTransport:
    return HubTransport(
        f"{server.origin}/ada/engine/",
        sleep=clock or Clock(),
        timeout=60.0,
        **options,  # type: ignore[arg-type]  # the constructor's own
    )


def test_a_request_is_msgpack_and_carries_the_token() -> None:
    with scripted_server(DONE) as server:
        assert transport(server, token=SECRET).post("fetch", {"want": [], "data": b"\xff"}) == {"x": 1}
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/ada/engine/fetch")
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["content-type"] == asked.headers["accept"] == "application/x-msgpack"
    assert msgpack.unpackb(asked.body) == {"want": [], "data": b"\xff"}


def test_what_was_asked_ahead_is_asked_once_and_given_once() -> None:
    with scripted_server(DONE, packed({"x": 2})) as server:
        hub = transport(server)
        hub.ask_ahead("refs")
        assert [hub.get("refs"), hub.get("refs")] == [{"x": 1}, {"x": 2}]
    assert [asked.path for asked in server.asked] == ["/ada/engine/refs"] * 2


def test_the_error_of_what_was_asked_ahead_is_that_of_the_first_try() -> None:
    clock = Clock()
    with scripted_server(BUSY, DONE, packed({"code": "not-found", "detail": "no"}, 404)) as server:
        hub = transport(server, clock)
        hub.ask_ahead("refs")
        assert hub.get("refs") == {"x": 1}
        hub.ask_ahead("refs")
        with pytest.raises(HubRefused, match="404"):
            hub.get("refs")
    assert (len(server.asked), len(clock.waits)) == (3, 1)


def test_without_a_token_there_is_no_authorization() -> None:
    with scripted_server(DONE) as server:
        transport(server).get("refs")
    assert "authorization" not in server.asked[0].headers


def test_an_answer_in_json_is_read_too() -> None:
    answer = Answer(200, b'{"x": 1}', {"Content-Type": "application/json; charset=utf-8"})
    with scripted_server(answer) as server:
        assert transport(server).get("refs") == {"x": 1}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>", {"Content-Type": "text/html"}),
        Answer(200, b"\xc1", {"Content-Type": "application/x-msgpack"}),
        Answer(200, b"", {"Content-Type": "application/x-msgpack"}),
        packed([1]),
        packed({1: 2}),
        Answer(200, b"[" * 100_000, {"Content-Type": "application/json"}),
    ],
)
def test_an_answer_that_no_hub_gives_says_so(answer: Answer) -> None:
    with scripted_server(answer) as server, pytest.raises(HubUnreachable, match="no answer of a muse hub"):
        transport(server).get("refs")


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musehub_plugin.client.transport.MAX_ANSWER", 1_000)
    with scripted_server(packed({"x": b"0" * 2_000})) as server, pytest.raises(HubUnreachable, match="over 1000 bytes"):
        transport(server).get("refs")


def test_a_problem_becomes_one_line_with_its_code_and_members() -> None:
    problem = {"type": "about:blank", "title": "Conflict", "status": 409, "code": "stale-head"}
    problem |= {"detail": "It moved;\x1b[31m\nfetch.", "branch_heads": {"main": "x"}}
    with scripted_server(packed(problem, 409)) as server, pytest.raises(HubRefused) as caught:
        transport(server).post("push/unpack-mpack", {})
    error = caught.value
    assert (error.status, error.code, error.extra) == (409, "stale-head", {"branch_heads": {"main": "x"}})
    assert str(error) == "It moved;?[31m fetch. (HTTP 409, stale-head)"


@pytest.mark.parametrize("body", [b"", b"<html>", json.dumps({"code": 7, "detail": ["x"]}).encode(), b"[]"])
def test_an_error_without_a_problem_body_is_still_an_error(body: bytes) -> None:
    answer = Answer(404, body, {"Content-Type": "application/problem+json"})
    with scripted_server(answer) as server, pytest.raises(HubRefused, match="no such repo") as caught:
        transport(server).get("refs")
    assert caught.value.code == "http-404"


def test_a_refusal_is_not_tried_again() -> None:
    with scripted_server(packed({}, 422)) as server, pytest.raises(HubRefused):
        transport(server).post("fetch", {})
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_error_page_of_a_server_before_the_hub_is_tried_again(status: int) -> None:
    page = Answer(status, b"<h1>Oops</h1>", {"Content-Type": "text/html"})
    with scripted_server(page, page, DONE) as server:
        assert transport(server).get("refs") == {"x": 1}
    assert len(server.asked) == 3


def test_a_500_of_the_hub_itself_is_not_tried_again() -> None:
    broken = packed({"code": "internal-error", "detail": "see the log"}, 500)
    with scripted_server(broken, DONE) as server, pytest.raises(HubRefused, match="see the log"):
        transport(server).get("refs")
    assert len(server.asked) == 1


def test_f08_a_hub_that_is_not_ready_is_asked_again_after_the_time_it_names() -> None:
    clock = Clock()
    with scripted_server(BUSY, BUSY, DONE) as server:
        assert transport(server, clock).post("fetch", {}) == {"x": 1}
    assert len(clock.waits) == 2
    assert all(3.0 <= wait <= 3.3 for wait in clock.waits)


def test_r37_waiting_has_an_end() -> None:
    clock = Clock()
    with scripted_server(BUSY) as server, pytest.raises(HubRefused, match="not yet"):
        transport(server, clock, wait_budget=30.0).post("fetch", {})
    assert 26.0 < sum(clock.waits) <= 30.0


def test_a_hub_that_asks_for_more_than_the_budget_is_not_waited_for() -> None:
    clock = Clock()
    with scripted_server(packed({}, 429, Retry_After="86400")) as server, pytest.raises(HubRefused):
        transport(server, clock).post("fetch", {})
    assert clock.waits == []


def test_retry_after_may_be_a_date() -> None:
    clock = Clock()
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=1000), usegmt=True)
    with scripted_server(packed({}, 503, Retry_After=when), DONE) as server:
        transport(server, clock, wait_budget=2000.0).get("refs")
    # Less what it took to get there, more for the jitter.
    assert 900.0 < clock.waits[0] < 1101.0


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9", "٣", "9" * 40, "nan"])
def test_a_retry_after_that_says_nothing_is_ignored(value: str) -> None:
    clock = Clock()
    busy = packed({}, 503, Retry_After=value.encode().decode("latin-1"))
    with scripted_server(busy, DONE) as server:
        transport(server, clock).get("refs")
    assert 0.0 < clock.waits[0] <= 0.5


def test_retry_after_zero_does_not_hammer() -> None:
    clock = Clock()
    with scripted_server(packed({}, 503, Retry_After="0")) as server, pytest.raises(HubRefused):
        transport(server, clock, wait_budget=10.0).get("refs")
    assert len(clock.waits) < 30
    assert clock.waits[0] > 0.2


def test_an_answer_that_was_lost_is_asked_for_again() -> None:
    with scripted_server(Answer(0), DONE) as server:
        assert transport(server).post("push/unpack-mpack", {}) == {"x": 1}


def test_a_hub_that_hangs_up_always_is_out_of_reach() -> None:
    with scripted_server(Answer(0)) as server, pytest.raises(HubUnreachable, match="out of reach"):
        transport(server).get("refs")
    assert len(server.asked) == 5


def test_a_port_where_nothing_listens_is_out_of_reach() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a/b"
        with pytest.raises(HubUnreachable, match=f"^{url} is out of reach: no connection"):
            HubTransport(url, sleep=Clock()).get("refs")


def test_c25_a_redirect_is_not_followed_and_names_no_secret() -> None:
    elsewhere = Answer(302, b"", {"Location": "https://elsewhere.example/path?signature=hidden"})
    with scripted_server(elsewhere) as server, pytest.raises(HubRefused, match=r"elsewhere\.example/path;") as caught:
        transport(server, token=SECRET).get("refs")
    assert "hidden" not in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://hub.example:8443/ada", "https://hub.example:8443/ada;"),
        ("http://u:hidden@[::1]:80/ada", r"http://\[::1\]:80/ada;"),
        ("", "nowhere"),
    ],
)
def test_a_redirect_is_shown_with_the_port_that_it_names(location: str, shown: str) -> None:
    elsewhere = Answer(301, b"", {"Location": location})
    with scripted_server(elsewhere) as server, pytest.raises(HubRefused, match=f"redirects to {shown}") as caught:
        transport(server).get("refs")
    assert "hidden" not in str(caught.value)


def test_c25_a_token_is_not_sent_in_the_clear_to_another_machine() -> None:
    with pytest.raises(InsecureTokenError) as caught:
        HubTransport("http://hub.example/a/b", token=SECRET)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["https://h/a/b", "http://localhost:1/a/b", "http://127.9.9.9/a/b", "http://[::1]/a/b"])
def test_a_token_may_go_over_https_and_to_this_machine(url: str) -> None:
    HubTransport(url, token=SECRET).close()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1.example/a/b", "http://localhost.example/a/b", "http://0x7f000001/a/b"]
)
def test_a_name_that_only_looks_like_this_machine_gets_no_token(url: str) -> None:
    with pytest.raises(InsecureTokenError):
        HubTransport(url, token=SECRET)


def test_a_url_with_credentials_is_refused() -> None:
    with pytest.raises(WorkdirError, match="credentials"):
        HubTransport("https://ada:pw@h/a/b")


CONTENT = b"mpack bytes" * 100


def fetch_into(
    server: ScriptedServer, target: Path, content: bytes = CONTENT, url: str = "/store/x?sig=hidden"
) -> None:
    transport(server, token=SECRET).download("fetch", url, target, mpack_id=ids.blob_id(content), size=len(content))


def test_s75_storage_never_sees_the_token(tmp_path: Path) -> None:
    with scripted_server(Answer(200, CONTENT)) as server:
        fetch_into(server, tmp_path / "pack")
    (asked,) = server.asked
    assert asked.path == "/store/x?sig=hidden"
    assert "authorization" not in asked.headers
    assert SECRET not in str(asked.headers)
    assert (tmp_path / "pack").read_bytes() == CONTENT


def test_an_mpack_that_breaks_off_is_fetched_again(tmp_path: Path) -> None:
    broken = Answer(200, CONTENT[:50], {"Content-Length": str(len(CONTENT))})
    with scripted_server(broken, Answer(200, CONTENT)) as server:
        fetch_into(server, tmp_path / "pack")
    assert (tmp_path / "pack").read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"x" * len(CONTENT), CONTENT[:-1], CONTENT + b"x", b"", CONTENT * 1_000])
def test_f10_bytes_that_are_not_the_mpack_are_refused(tmp_path: Path, content: bytes) -> None:
    with (
        scripted_server(Answer(200, content)) as server,
        pytest.raises(HubUnreachable, match=r"something else|broke off"),
    ):
        fetch_into(server, tmp_path / "pack")


def test_more_than_was_announced_is_thrown_away(tmp_path: Path) -> None:
    with scripted_server(Answer(200, b"x" * 5_000_000)) as server, pytest.raises(HubUnreachable):
        fetch_into(server, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_storage_that_refuses_is_an_error_that_shows_no_signature(tmp_path: Path) -> None:
    refusal = Answer(403, b"<Error><StringToSign>hidden</StringToSign></Error>", {"Content-Type": "text/xml"})
    with scripted_server(refusal) as server, pytest.raises(HubRefused, match="expired") as caught:
        fetch_into(server, tmp_path / "pack")
    assert (caught.value.code, "hidden" in str(caught.value)) == ("storage-403", False)


def test_storage_out_of_reach_shows_no_signature(tmp_path: Path) -> None:
    with scripted_server(Answer(0)) as server, pytest.raises(HubUnreachable) as caught:
        fetch_into(server, tmp_path / "pack")
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_storage_out_of_reach_is_told_from_the_hub_by_its_address(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        storage = f"127.0.0.1:{unused.getsockname()[1]}"
        with scripted_server() as server, pytest.raises(HubUnreachable, match=f"the object storage of .* at {storage}"):
            fetch_into(server, tmp_path / "pack", url=f"http://{storage}/x?sig=hidden")


def test_a_redirect_of_storage_is_not_followed(tmp_path: Path) -> None:
    with scripted_server(Answer(307, b"", {"Location": "/other"})) as server, pytest.raises(HubRefused):
        fetch_into(server, tmp_path / "pack")
    assert len(server.asked) == 1


def test_an_upload_carries_what_was_presigned_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "pack"
    source.write_bytes(CONTENT * 500)
    with scripted_server(Answer(200)) as server:
        transport(server, token=SECRET).upload(
            "push/presign", "/put?sig=1", source, method="PUT", headers={"x-amz-checksum-sha256": "abc"}
        )
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("PUT", "/put?sig=1", CONTENT * 500)
    assert asked.headers["x-amz-checksum-sha256"] == "abc"
    assert asked.headers["content-length"] == str(len(CONTENT) * 500)
    assert asked.headers.keys() & {"authorization", "transfer-encoding", "content-type", "cookie"} == set()


def test_an_upload_that_storage_could_not_take_is_sent_again_whole(tmp_path: Path) -> None:
    source = tmp_path / "pack"
    source.write_bytes(CONTENT)
    with scripted_server(Answer(503), Answer(204)) as server:
        transport(server).upload("push/presign", "/put", source, method="PUT", headers={})
    assert [asked.body for asked in server.asked] == [CONTENT, CONTENT]


def test_refs_that_no_working_copy_could_hold_are_left_out() -> None:
    heads = {"main": ids.fake_id("a"), "../x": ids.fake_id("b"), "odd": "no id", "HEAD": ids.fake_id("c")}
    with scripted_server(packed({"repo_id": 7, "default_branch": "../x", "branch_heads": heads})) as server:
        refs = get_refs(transport(server))
    assert (refs.repo_id, refs.default_branch) == ("", "main")
    assert (refs.branch_heads, refs.unusable) == ({"main": ids.fake_id("a")}, ["../x", "HEAD", "odd"])


def test_a_fetch_with_nothing_new_is_no_mpack() -> None:
    with scripted_server(packed({"mpack_url": None, "mpack_id": None, "commit_count": 0})) as server:
        assert ask_fetch(transport(server), [ids.fake_id("a")], []) == []


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"mpack_url": "u", "mpack_id": None},
        {"mpack_url": "u", "mpack_id": "x", "size_bytes": 1},
        {"mpack_url": 7, "mpack_id": ids.fake_id("p"), "size_bytes": 1},
        {"mpack_url": "u", "mpack_id": ids.fake_id("p"), "size_bytes": "1"},
        {"mpack_url": "u", "mpack_id": ids.fake_id("p"), "size_bytes": -1},
        {"mpack_url": None, "mpack_id": ids.fake_id("p"), "size_bytes": 1},
        {"mpack_url": None, "mpack_id": ids.fake_id("p"), "size_bytes": 1, "mpack": "no base64"},
        {"mpacks": [7]},
        {"mpacks": [{"id": ids.fake_id("p"), "size_bytes": 1}]},
        {"mpacks": [{"id": "x", "size_bytes": 1, "url": "u"}]},
    ],
)
def test_a_fetch_answer_of_wrong_types_is_no_answer(answer: dict[str, object]) -> None:
    with scripted_server(packed({"mpack_url": 1, **answer})) as server, pytest.raises(HubUnreachable):
        ask_fetch(transport(server), [ids.fake_id("a")], [])


def test_only_what_was_asked_about_counts_as_acknowledged() -> None:
    ours, theirs = ids.fake_id("ours"), ids.fake_id("theirs")
    with scripted_server(packed({"ack": [ours, theirs, 7], "common_base": None, "ready": 1})) as server:
        answer = negotiate(transport(server), [theirs], [ours])
    assert (set(answer.ack), answer.ready) == ({ours}, False)


@pytest.mark.parametrize("answer", [{}, {"upload_url": 1}, {"upload_url": "u", "method": "DELETE"}])
def test_a_ticket_of_wrong_types_is_no_ticket(answer: dict[str, object]) -> None:
    with scripted_server(packed(answer)) as server, pytest.raises(HubUnreachable):
        presign(transport(server), ids.fake_id("p"), 1)
