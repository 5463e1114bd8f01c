"""What happens to a process when it reaches a named step: rules in a folder that the tests write and processes obey.

A rule fires once, in the first process that reaches its step: it is taken by renaming its file.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from pathlib import Path

import psycopg2
from sqlalchemy import text

from musehub_plugin.hub import current_hub
from musehub_plugin.signals import step
from musehub_plugin.testing.services import libpq_url

# For what takes a second where nothing else runs.
_DEADLINE = 120.0
_POLL = 0.005


class Rule:
    """A rule as its maker sees it.

    Args:
        folder: where the rule's files are.
        name: what they are called.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    @property
    def has_fired(self) -> bool:
        """Whether a process reached the step."""
        return (self._folder / f"{self._name}.fired").exists()

    def wait(self) -> None:
        """Wait until a process reached the step."""
        wait_until(lambda: self.has_fired, f"step of {self._name}")

    def release(self) -> None:
        """Let the process that is held go on."""
        (self._folder / f"{self._name}.go").touch()


class Control:
    """The rules of one laboratory.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def at(self, name: str, action: str, *, role: str = "web", value: object = None) -> Rule:
        """Make a rule.

        Args:
            name: the step.
            action: `kill`, `kill-with-parent`, `hold` until released, `cut` the database connection, `commit-and-cut`
                it, or `file-limit` of `value` bytes.
            role: the kind of process that it is for, `web` or `worker`.
            value: what the action needs.
        """
        self._count += 1
        rule_name = f"{self._count}-{name}"
        written = self.folder / f"{rule_name}.new"
        written.write_text(json.dumps({"step": name, "action": action, "role": role, "value": value}))
        written.rename(self.folder / f"{rule_name}.rule")
        return Rule(self.folder, rule_name)

    def forget(self) -> None:
        """Withdraw the rules that have not fired."""
        for path in self.folder.glob("*.rule"):
            path.unlink()


def obey(folder: Path, role: str, database_url: str) -> None:
    """Have this process obey the rules of a folder from now on."""

    def react(_: object, name: str) -> None:
        for path in sorted(folder.glob("*.rule")):
            try:
                rule = json.loads(path.read_text())
                if rule["step"] != name or rule["role"] != role:
                    continue
                path.rename(path.with_suffix(".fired"))
            except FileNotFoundError:
                continue  # another process took it
            _act(rule["action"], rule["value"], path, database_url)

    step.connect(react, weak=False)


def _act(action: str, value: object, path: Path, database_url: str) -> None:
    if action == "kill-with-parent":
        os.kill(os.getppid(), signal.SIGKILL)
    if action in {"kill", "kill-with-parent"}:
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "hold":
        wait_until(path.with_suffix(".go").exists, f"release of {path.stem}")
    elif action == "file-limit":
        assert isinstance(value, int)
        resource.setrlimit(resource.RLIMIT_FSIZE, (value, resource.RLIM_INFINITY))
    else:
        _cut(database_url, commit=action == "commit-and-cut")


def _cut(database_url: str, *, commit: bool) -> None:
    session = current_hub().sqlalchemy.session
    pid = session.execute(text("SELECT pg_backend_pid()")).scalar()
    if commit:
        # Past SQLAlchemy: the server has committed, and the answer to the program's own COMMIT never comes.
        session.execute(text("COMMIT"))
    other = psycopg2.connect(libpq_url(database_url))
    try:
        other.autocommit = True
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
    finally:
        other.close()


def wait_until(ready: object, what: str, seconds: float = _DEADLINE) -> None:
    """Call `ready` until it returns something true.

    Raises:
        AssertionError: it did not in time; the text says what was waited for.
    """
    assert callable(ready)
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(_POLL)
