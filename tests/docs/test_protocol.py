"""The protocol's page says what a hub does: its exchange is replayed byte for byte, its tables are those of the code.

The exchange is the section of that name. Each of its steps has, in this order, the head of a request, its body as
msgpack in hex and as JSON, the head of the answer, and its body in both. What a head does not name may be anything.
URLs and dates, which no two hubs have in common, stand in for the real ones.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any
from urllib.parse import urlsplit

import msgpack
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import musehub_plugin
from musehub_plugin.config import Settings
from musehub_plugin.errors import HubError
from musehub_plugin.testing.apps import client_for, close_app, hub_of, make_app
from musehub_plugin.testing.factories import create_repo
from tests.docs.pages import Block, blocks

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "protocol.md"
PACK = (CHECKOUT / "tests" / "vectors" / "mpack" / "hello.mpack").read_bytes()
STAND_INS = {
    "upload_url": "https://objects.example/upload",
    "mpack_url": "https://objects.example/download",
    "expires_at": "2026-01-02T04:04:05+00:00",
}
MSGPACK = "application/x-msgpack"
HEX_WIDTH = 25


@dataclass(frozen=True)
class Message:
    """A request or an answer as the page has it."""

    start: str
    headers: Mapping[str, str]
    hex: str | None
    json: str | None

    @property
    def packed(self) -> bytes:
        """The body in msgpack."""
        return b"" if self.hex is None else bytes_of(self.hex)


def bytes_of(hex_block: str) -> bytes:
    return bytes.fromhex("".join(line[: 3 * HEX_WIDTH] for line in hex_block.splitlines()))


def section(title: str) -> list[Block]:
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index(f"\n## {title}\n")
    end = text.find("\n## ", begin + 1)
    first, last = text.count("\n", 0, begin) + 1, text.count("\n", 0, end) + 1
    return [block for block in blocks(PAGE) if first < block.line and (end < 0 or block.line < last)]


def messages() -> list[Message]:
    found: list[dict[str, str]] = []
    for block in section("A complete exchange"):
        if block.language == "http":
            found.append({})
        found[-1][block.language] = block.text
    return [_message(parts) for parts in found]


def _message(parts: Mapping[str, str]) -> Message:
    start, *lines = parts["http"].splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    return Message(start, headers, parts.get("hex"), parts.get("json"))


def steps() -> list[tuple[Message, Message]]:
    found = iter(messages())
    return list(zip(found, found, strict=True))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FlaskClient]:
    app = make_app(tmp_path)
    with app.app_context():
        create_repo(hub_of(app).sqlalchemy.session, "ada", "songs", repo_id="81c0a3c2-9d0e-4c1f-8f5b-6a1d7e3b2c90")
    yield client_for(app)
    close_app(app)


def ask(hub: FlaskClient, request: Message, body: bytes, urls: Mapping[str, str], headers: dict[str, str]) -> Any:
    method, path, _ = request.start.split(" ")
    if request.headers["Host"] == "objects.example":
        parts = urlsplit(urls[f"https://objects.example{path}"])
        path, body = f"{parts.path}?{parts.query}", PACK if method == "PUT" else b""
    return hub.open(path, method=method, data=body, headers={**request.headers, **headers}, buffered=True)


def masked(answer: Any, urls: dict[str, str]) -> Any:
    out = dict(answer)
    for name, stand_in in STAND_INS.items():
        if isinstance(out.get(name), str):
            urls[stand_in] = out[name]
            out[name] = stand_in
    return out


def head_of(response: TestResponse, like: Message) -> tuple[str, dict[str, str | None]]:
    return f"HTTP/1.1 {response.status_code}", {name: response.headers.get(name) for name in like.headers}


def status_of(message: Message) -> str:
    return " ".join(message.start.split(" ")[:2])


def test_the_exchange_is_what_a_hub_answers_in_msgpack(hub: FlaskClient) -> None:
    urls: dict[str, str] = {}
    for request, expected in steps():
        response = ask(hub, request, request.packed, urls, {})
        assert head_of(response, expected) == (status_of(expected), expected.headers), request.start
        if expected.hex is None:
            assert response.data == (PACK if request.start.startswith("GET /download") else b"")
            continue
        answer = msgpack.unpackb(response.data)
        # So that putting stand-ins in changes nothing else.
        assert msgpack.packb(answer) == response.data
        assert annotated(msgpack.packb(masked(answer, urls))) == expected.hex, request.start


def test_the_exchange_is_what_a_hub_answers_in_json(hub: FlaskClient) -> None:
    urls: dict[str, str] = {}
    for request, expected in steps():
        headers = {"Accept": "application/json"}
        if request.json is not None:
            headers["Content-Type"] = "application/json"
        response = ask(hub, request, (request.json or "").encode(), urls, headers)
        assert f"HTTP/1.1 {response.status_code}" == status_of(expected), request.start
        if expected.json is not None:
            compact = json.dumps(masked(response.get_json(), urls), separators=(",", ":"))
            assert compact == json.dumps(json.loads(expected.json), separators=(",", ":")), request.start


def test_hex_and_json_of_the_exchange_say_the_same_and_the_comments_what_the_hex_says() -> None:
    with_body = [message for message in messages() if message.hex is not None]
    assert len(with_body) > 10
    for message in with_body:
        assert message.json is not None
        assert msgpack.packb(json.loads(message.json)) == message.packed, message.start
        assert annotated(message.packed) == message.hex, message.start


def test_every_resource_of_the_protocol_is_in_the_exchange() -> None:
    asked = {request.start.split(" ")[1].rpartition("songs/")[2] for request, _ in steps()}
    assert asked >= {"refs", "negotiate", "fetch", "push/presign", "push/unpack-mpack"}


def test_the_worked_examples_of_ids_hash_to_them() -> None:
    examples = [block.text.splitlines() for block in section("Ids") if block.language == "text"]
    assert len(examples) > 4
    for *pieces, expected in examples:
        hashed = "".join(json.loads(piece) for piece in pieces)
        assert "sha256:" + hashlib.sha256(hashed.encode()).hexdigest() == expected


def test_every_error_code_is_in_the_table_under_its_status() -> None:
    documented = {
        (int(row[1]), code)
        for row in re.finditer(r"^\| ([45]\d\d) \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.M)
        for code in re.findall(r"`([a-z-]+)`", row[2])
    }
    # Made by the handlers of errors that are not the plugin's own.
    assert documented == raised() | {(503, "database-unavailable"), (503, "storage-unavailable")}


def test_every_limit_is_in_the_table_with_its_default() -> None:
    rows = re.findall(r"^\| .*? \| `(MUSEHUB_\w+)` \| ([\d ]+)", PAGE.read_text(encoding="utf-8"), re.M)
    documented = {name: int(value.replace(" ", "")) for name, value in rows}
    defaults = Settings(storage="memory://")
    assert documented == {name: getattr(defaults, name.removeprefix("MUSEHUB_").lower()) for name in documented}
    names = ("PRESIGN_TTL", "UPLOAD_TTL", "RETRY_AFTER", "MAX_BODY", "MAX_WANTS", "MAX_HAVES", "MAX_PUSH")
    assert documented.keys() >= {f"MUSEHUB_{name}" for name in names}


def raised() -> set[tuple[int, str]]:
    """Return status and code of every refusal that the protocol's part of the package can make."""
    kinds: dict[str, type[HubError]] = {}
    found: set[tuple[int, str]] = set()
    for module in walk_packages(musehub_plugin.__path__, "musehub_plugin."):
        if not _is_of_the_protocol(module.name):
            continue
        members = vars(import_module(module.name)).values()
        kinds |= {kind.__name__: kind for kind in members if isinstance(kind, type) and issubclass(kind, HubError)}
    for kind in kinds.values():
        found.add((int(kind.status), kind.code))
    for path in (CHECKOUT / "musehub_plugin").rglob("*.py"):
        if not _is_of_the_protocol(".".join(path.relative_to(CHECKOUT).with_suffix("").parts)):
            continue
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in kinds:
                codes = [word.value for word in call.keywords if word.arg == "code"]
                status = int(kinds[call.func.id].status)
                found |= {(status, str(code.value)) for code in codes if isinstance(code, ast.Constant)}
    return found


def _is_of_the_protocol(module: str) -> bool:
    # The client and the tests' part answer nobody; the other door has its own errors.
    return not re.match(r"musehub_plugin\.(client|testing|migrations|(web\.)?mwp)\b", module)


def annotated(data: bytes) -> str:
    """Return msgpack in hex, each value with what it says behind it, as the page has it."""
    out: list[str] = []
    _annotate(data, 0, 0, out)
    return "".join(f"{line}\n" for line in out)


def _annotate(data: bytes, at: int, depth: int, out: list[str]) -> int:
    first = data[at]
    if first >> 4 == 8:
        out.append(_line(data[at : at + 1], depth, f"map of {first & 15}"))
        at += 1
        for _ in range(2 * (first & 15)):
            at = _annotate(data, at, depth + 1, out)
        return at
    if first >> 4 == 9:
        out.append(_line(data[at : at + 1], depth, f"array of {first & 15}"))
        at += 1
        for _ in range(first & 15):
            at = _annotate(data, at, depth + 1, out)
        return at
    head, size = (2, data[at + 1]) if first == 0xD9 else (1, first & 31) if first >> 5 == 5 else (0, 0)
    if head:
        text = data[at : at + head + size]
        for start in range(0, len(text), HEX_WIDTH):
            piece = text[start : start + HEX_WIDTH]
            said = piece[head if start == 0 else 0 :].decode("ascii")
            mark = '"' if start + HEX_WIDTH >= len(text) else ""
            out.append(_line(piece, depth, ('"' if start == 0 else " ") + said + mark))
        return at + len(text)
    size = {0xCC: 2, 0xCD: 3, 0xCE: 5}.get(first, 1)
    assert size > 1 or first < 0x80 or first in {0xC0, 0xC2, 0xC3}
    out.append(_line(data[at : at + size], depth, json.dumps(msgpack.unpackb(data[at : at + size]))))
    return at + size


def _line(piece: bytes, depth: int, said: str) -> str:
    return f"{piece.hex(' '):<{3 * HEX_WIDTH}} {'  ' * depth}{said}"
