"""Serves git over HTTP with as little of its own as can be: `git http-backend` reads and writes the socket itself.

    python -I -S bridge.py PORT PROCESSES PROJECT_ROOT BACKEND

Several processes wait on one socket. Each reads a request's head, and hands the connection to the CGI program as its
standard input and output: no byte of a body passes through here. `/-/trivial` runs a program that says "ok", so that
what the bridge itself costs can be measured. It stands in for nginx and fcgiwrap where those are not installed, and
is leaner than they are.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

_MAX_HEAD = 65_536
_TRIVIAL = "/-/trivial"
_PRINTF = "/usr/bin/printf"


def main(port: int, processes: int, root: str, backend: str) -> None:
    """Serve until SIGTERM."""
    listener = socket.create_server(("127.0.0.1", port), backlog=256)
    children = []
    for _ in range(processes):
        child = os.fork()
        if not child:
            _serve(listener, root, backend)
        children.append(child)

    def stop(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    for child in children:
        os.waitpid(child, 0)


def _serve(listener: socket.socket, root: str, backend: str) -> None:
    while True:
        connection, _ = listener.accept()
        try:
            head = _head(connection)
            if head:
                _answer(connection, head, root, backend)
        except OSError:
            # The client went away: its matter.
            pass
        finally:
            connection.close()


def _head(connection: socket.socket) -> str:
    """Take a request's head off a connection, and leave its body on it; empty where there is none."""
    while True:
        seen = connection.recv(_MAX_HEAD, socket.MSG_PEEK)
        end = seen.find(b"\r\n\r\n")
        if end >= 0:
            return connection.recv(end + 4).decode("latin-1")
        if not seen or len(seen) == _MAX_HEAD:
            return ""
        # Peeking again at once would spin; the rest of a head is on its way.
        connection.recv(len(seen) + 1, socket.MSG_PEEK | socket.MSG_WAITALL)


def _answer(connection: socket.socket, head: str, root: str, backend: str) -> None:
    request, *lines = head.split("\r\n")
    method, target, _ = request.split(" ", 2)
    path, _, query = target.partition("?")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    environment = {
        "GIT_PROJECT_ROOT": root,
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH": os.environ["PATH"],
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": headers.get("content-type", ""),
        "GIT_PROTOCOL": headers.get("git-protocol", ""),
        "REMOTE_ADDR": "127.0.0.1",
    }
    if "content-length" in headers:
        environment["CONTENT_LENGTH"] = headers["content-length"]
    if "content-encoding" in headers:
        environment["HTTP_CONTENT_ENCODING"] = headers["content-encoding"]
    arguments = [backend]
    if path == _TRIVIAL:
        arguments = [_PRINTF, "Content-Type: text/plain\r\n\r\nok"]
    # What the program writes goes on from here, its own headers first.
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
    here = connection.fileno()
    wiring = [(os.POSIX_SPAWN_DUP2, here, 0), (os.POSIX_SPAWN_DUP2, here, 1)]
    child = os.posix_spawn(arguments[0], arguments, environment, file_actions=wiring)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
