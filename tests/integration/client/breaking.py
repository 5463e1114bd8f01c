"""A reverse proxy that forwards requests to a hub, and breaks the answers of its object storage as a test says."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}


@dataclass
class Breaking:
    """What happens to downloads from storage, one after the other; when none is left they come through.

    Attributes:
        origin: `http://127.0.0.1:port`.
        faults: what is left to happen: `cut N` and `stall N`: N bytes of the body and the end of the connection, or
            silence; `flip`: the first byte is another one; `status S`: an error; `whole`: no ranges.
        ranges: the `Range` of each download, None where there was none.
        tokens: whether a download carried an `Authorization`.
    """

    origin: str = ""
    faults: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    tokens: bool = False


@contextmanager
def breaking_proxy(hub: str) -> Iterator[Breaking]:
    """Run a proxy before a hub for as long as it is used.

    Args:
        hub: the hub's origin.
    """
    state = Breaking()
    target = urlsplit(hub).netloc
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            self.close_connection = True
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            fault = ""
            headers = dict(self.headers.items())
            if self.command == "GET" and "/storage/" in self.path:
                state.ranges.append(self.headers.get("Range"))
                state.tokens = state.tokens or "Authorization" in self.headers
                fault = state.faults.pop(0) if state.faults else ""
            kind, _, number = fault.partition(" ")
            if kind == "whole":
                headers.pop("Range", None)
            if kind == "status":
                self.send_response_only(int(number))
                self.send_header("Content-Length", "0")
                self.send_header("Retry-After", "0")
                self.end_headers()
                return
            connection = http.client.HTTPConnection(target)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _OF_THE_CONNECTION:
                    self.send_header(name, value)
            self.end_headers()
            if kind == "flip":
                content = bytes([content[0] ^ 1]) + content[1:]
            self.wfile.write(content[: int(number)] if kind in {"cut", "stall"} else content)
            self.wfile.flush()
            if kind == "stall":
                ended.wait(120.0)

        do_GET = do_POST = do_PUT = forward  # noqa: N815 - the names that http.server calls

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.origin = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
