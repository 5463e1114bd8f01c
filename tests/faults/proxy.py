"""A TCP proxy before a server: it lets everything through, or fails in the ways in which networks and stores fail."""

from __future__ import annotations

import contextlib
import socket
import threading
from functools import partial
from typing import Literal

Mode = Literal["pass", "down", "hang", "truncate", "flip"]

_CHUNK = 1 << 16


class Proxy:
    """A proxy on a loopback port.

    Args:
        host: where the server is.
        port: its port.

    Attributes:
        mode: `pass`; `down`: connections are closed at once; `hang`: requests go nowhere; `truncate`: an answer ends
            in the middle of its body; `flip`: the last bit of each piece of an answer's body is wrong.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._mode: Mode = "pass"
        self._threads: list[threading.Thread] = []
        self._accepting = self._start(self._accept)

    @property
    def address(self) -> str:
        """`host:port` to connect to."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def mode(self) -> Mode:
        """How it fails."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        self._cut_all()

    def close(self) -> None:
        """End every connection and listen no more."""
        with contextlib.suppress(OSError):  # it may have been closed by the other side of it
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        # What it has just accepted is cut with the rest.
        self._accepting.join()
        self._cut_all()
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *args: object) -> threading.Thread:
        assert callable(work)
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _cut_all(self) -> None:
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):  # it is closed already
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._mode == "down":
                client.close()
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                # The server is being stopped by a test.
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            done = threading.Barrier(2, action=partial(self._forget, client, server))
            self._start(self._copy, client, server, False, done)
            self._start(self._copy, server, client, True, done)

    def _forget(self, *pair: socket.socket) -> None:
        with self._lock:
            self._open.difference_update(pair)
        for each in pair:
            each.close()

    def _copy(self, source: socket.socket, target: socket.socket, is_answer: bool, done: threading.Barrier) -> None:
        with contextlib.suppress(OSError):  # a connection that was cut
            while data := source.recv(_CHUNK):
                if self._mode == "hang":
                    continue
                if is_answer and self._mode in {"truncate", "flip"}:
                    head, separator, body = data.rpartition(b"\r\n\r\n")
                    if body and self._mode == "truncate":
                        target.sendall(head + separator + body[: len(body) // 2])
                        break
                    if body:
                        data = head + separator + body[:-1] + bytes([body[-1] ^ 1])
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):  # it is closed already
                each.shutdown(socket.SHUT_RDWR)
        done.wait()
