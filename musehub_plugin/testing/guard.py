"""Runs test servers and sees to it that they do not outlive whoever asked for them.

Started as a program by `musehub_plugin.testing.supervised`, with a directory as its argument. Orders are JSON
lines on standard input: `{"run": [...], "user": 65534, "signal": 3}`, `{"remove": [...]}` and `{"stop": 9}`;
each is answered by a line. When standard input ends, which it does even if the asker is killed hard, the
servers are stopped, and the directory and the paths to remove go away. It imports the standard library alone,
since it starts with nothing else in sight.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

TYPE_CHECKING = False  # typing's own constant would cost its import

if TYPE_CHECKING:
    from typing import TypedDict

    class Order(TypedDict, total=False):
        run: list[str]
        user: int | None
        signal: int
        stop: int
        remove: list[str]


def main(directory: str) -> None:
    """Obey the orders on standard input, then clean up `directory`.

    Args:
        directory: where the servers keep their data and their logs (`log`).
    """
    # Ctrl-C reaches the whole terminal: the tests' teardown still needs the servers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    servers: list[tuple[subprocess.Popen[bytes], int]] = []
    leftovers: list[str] = []
    try:
        for line in sys.stdin:
            order: Order = json.loads(line)
            if "run" in order:
                servers.append((_start(order, directory), order["signal"]))
            elif "stop" in order:
                _stop([(server, order["stop"] or ending) for server, ending in servers])
                servers.clear()
            elif "remove" in order:
                leftovers.extend(order["remove"])
            sys.stdout.write("done\n")
            sys.stdout.flush()
    finally:
        _stop(servers)
        shutil.rmtree(directory, ignore_errors=True)
        for path in leftovers:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - pathlib costs this program half of its start


def _start(order: "Order", directory: str) -> "subprocess.Popen[bytes]":
    with open(f"{directory}/log", "ab") as log:  # noqa: PTH123 - as above
        return subprocess.Popen(  # noqa: S603 - our caller's own command
            order["run"],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=order["user"],
            group=order["user"],
            extra_groups=None if order["user"] is None else [],
            start_new_session=True,
        )


def _stop(servers: "list[tuple[subprocess.Popen[bytes], int]]") -> None:
    for server, ending in servers:
        if server.poll() is None:
            server.send_signal(ending)
    for server, _ in servers:
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main(sys.argv[1])
