"""Sends requests as fast as their answers come, a new connection for each, and says how long each took.

    python -m benchmarks.racing.load <job >result

Reads a job and writes the result, both msgpack. A job is `{"requests": [[head and body as bytes, ...], ...],
"port": int, "clients": int, "seconds": float, "repeat": bool, "follow": bool}`: the clients, a process each, share the
requests out among themselves; each sends its own once, or over and over, and begins none after the seconds. With
`follow` the answer's `mpack_url` is asked for as well, as a part of the same request. New connections, since gunicorn's
threaded workers keep a connection to themselves once they have it, and one of them may end up with all.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgpack

# Answers that somebody looks at are smaller; of packs only the size counts.
_KEPT = 16 << 20
_BUFFER = memoryview(bytearray(1 << 20))
_MAX_WAITS = 200
_CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Loaded:
    """What a load came to.

    Attributes:
        seconds: from the first request to the last answer.
        latencies: seconds of each request.
        received: bytes of all answers, heads included.
        waits: how often a 503 was waited out, as its `Retry-After` asks.
    """

    seconds: float
    latencies: list[float]
    received: int
    waits: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    @property
    def bytes_each(self) -> float:
        """Bytes that an answer had on average."""
        return self.received / len(self.latencies)


def load(
    port: int,
    requests: Sequence[bytes],
    *,
    clients: int = 8,
    seconds: float = 3_600.0,
    repeat: bool = False,
    follow: bool = False,
) -> Loaded:
    """Send requests from a process of its own.

    Args:
        port: where, on loopback.
        requests: whole requests; each asks for the connection to be closed.
        clients: how many send at once.
        seconds: begin none later than that.
        repeat: send them over and over until then, and not once.
        follow: also get what an answer's `mpack_url` names.

    Raises:
        RuntimeError: an answer was no success; the text has its beginning.
    """
    job = {"port": port, "requests": list(requests), "clients": clients, "seconds": seconds}
    job |= {"repeat": repeat, "follow": follow}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.racing.load"],
        input=msgpack.packb(job),
        stdout=subprocess.PIPE,
        cwd=_CHECKOUT,
        check=False,
    )
    result = msgpack.unpackb(done.stdout) if done.stdout else {"error": "the load generator died"}
    if "error" in result:
        raise RuntimeError(result["error"])
    return Loaded(**result)


def request(method: str, path: str, body: bytes = b"", headers: Sequence[str] = ()) -> bytes:
    """Return a request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    if method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Answer:
    """An answer: its status, head and body; of a large body only the beginning, `received` counts all bytes."""

    status: int
    head: bytes
    body: bytes
    received: int


def exchange(port: int, message: bytes) -> Answer:
    """Send one request, and read until the other side closes the connection.

    Raises:
        RuntimeError: what came is no HTTP.
    """
    kept = bytearray()
    received = 0
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", port))
        connection.sendall(message)
        while count := connection.recv_into(_BUFFER):
            received += count
            if received <= _KEPT:
                kept += _BUFFER[:count]
    head, _, body = bytes(kept).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1."):
        raise RuntimeError(f"no answer: {head[:200]!r}")
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        body = _unchunked(body)
    return Answer(int(head[9:12]), head, body, received)


def _unchunked(body: bytes) -> bytes:
    out, at = [], 0
    while size := int(body[at : (end := body.index(b"\r\n", at))], 16):
        out.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(out)


def one(port: int, message: bytes, *, follow: bool) -> tuple[int, int]:
    """Send one request until it succeeds; return the bytes that came, and how often it was told to come again.

    Raises:
        RuntimeError: the answer is no success.
    """
    received = waits = 0
    while True:
        answer = exchange(port, message)
        received += answer.received
        if answer.status == 503 and waits < _MAX_WAITS and (pause := _retry_after(answer.head)) is not None:
            waits += 1
            time.sleep(pause)
            continue
        if answer.status not in {200, 304}:
            raise RuntimeError(f"status {answer.status}: {answer.body[:300]!r}")
        break
    if follow:
        received += sum(_get(url) for url in urls_of(msgpack.unpackb(answer.body)))
    return received, waits


def urls_of(answer: dict[str, Any]) -> list[str]:
    """Return the URLs that an answer to a fetch names."""
    packs = answer.get("mpacks") or [{"url": answer.get("mpack_url")}]
    return [pack["url"] for pack in packs if pack.get("url")]


def _get(url: str) -> int:
    parts = urlsplit(url)
    message = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    answer = exchange(parts.port or 80, message.encode())
    if answer.status != 200:
        raise RuntimeError(f"storage answered {answer.status}")
    return answer.received


def _retry_after(head: bytes) -> float | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"retry-after":
            return float(value)
    return None


def _client(job: dict[str, Any], number: int, ready: int, start: int) -> dict[str, Any]:
    mine = job["requests"][number :: job["clients"]]
    latencies: list[float] = []
    received = waits = 0
    os.close(ready)
    os.read(start, 1)
    begun = time.monotonic()
    while mine:
        for message in mine:
            before = time.monotonic()
            # One request at least, however late it began.
            if latencies and before - begun >= job["seconds"]:
                mine = []
                break
            came, waited = one(job["port"], message, follow=job["follow"])
            latencies.append(time.monotonic() - before)
            received += came
            waits += waited
        if not job["repeat"]:
            break
    return {"begun": begun, "ended": time.monotonic(), "latencies": latencies, "received": received, "waits": waits}


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Fork the clients, let them start at once, and put together what they say."""
    ready, ready_end = os.pipe()
    start, start_end = os.pipe()
    pipes = []
    for number in range(job["clients"]):
        out, out_end = os.pipe()
        if not os.fork():
            os.close(start_end)
            try:
                result = _client(job, number, ready_end, start)
            except (OSError, RuntimeError, ValueError) as error:
                result = {"error": f"{type(error).__name__}: {error}"}
            with os.fdopen(out_end, "wb") as pipe:
                pipe.write(msgpack.packb(result))
            os._exit(0)
        os.close(out_end)
        pipes.append(out)
    os.close(ready_end)
    # The end of the file: every client has closed it, and waits for the start.
    os.read(ready, 1)
    os.close(start_end)
    results = []
    for out in pipes:
        with os.fdopen(out, "rb") as pipe:
            results.append(msgpack.unpackb(pipe.read()))
    for _ in pipes:
        os.wait()
    errors = [result["error"] for result in results if "error" in result]
    if errors:
        return {"error": errors[0]}
    busy = [result for result in results if result["latencies"]]
    return {
        "seconds": max(result["ended"] for result in busy) - min(result["begun"] for result in busy),
        "latencies": [each for result in busy for each in result["latencies"]],
        "received": sum(result["received"] for result in busy),
        "waits": sum(result["waits"] for result in busy),
    }


if __name__ == "__main__":
    sys.stdout.buffer.write(msgpack.packb(_run(msgpack.unpackb(sys.stdin.buffer.read()))))
