"""A real HTTP server that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgpack

MSGPACK = "application/x-msgpack"


@dataclass
class Answer:
    """One answer.

    Attributes:
        status: its status; 0 hangs up without a word.
        body: its body.
        headers: further headers; a `Content-Length` that is too large makes a body that breaks off.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def packed(value: object, status: int = 200, **headers: str) -> Answer:
    """Return an answer in msgpack; `Retry_After="1"` is the header `Retry-After: 1`."""
    named = {key.replace("_", "-"): text for key, text in headers.items()}
    return Answer(status, msgpack.packb(value), {"Content-Type": MSGPACK, **named})


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedServer:
    """Answers in order; the last answer is given again and again.

    Attributes:
        origin: `http://127.0.0.1:port`.
        answers: what is left to answer.
        asked: what was asked so far.
    """

    origin: str
    answers: list[Answer]
    asked: list[Asked]


@contextmanager
def scripted_server(*answers: Answer) -> Iterator[ScriptedServer]:
    """Run a server on a loopback port for as long as it is used."""
    script = ScriptedServer("", list(answers), [])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            names = {name.lower(): value for name, value in self.headers.items()}
            script.asked.append(Asked(self.command, self.path, names, body))
            given = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            self.close_connection = True
            if given.status == 0:
                return
            self.send_response_only(given.status)
            headers = {"Content-Length": str(len(given.body)), "Connection": "close", **given.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(given.body)

        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - the names that http.server calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.origin = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
