"""Runs the command `musehub` in forks of one process, and kills it before the n-th thing that it does to the world.

Starting Python takes longer than the commands under test; a fork of a process that has loaded everything takes
milliseconds. What counts as a step is what an audit hook sees: files opened, made, moved and removed, and requests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STEPS = frozenset(
    {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime", "shutil.rmtree", "http.client.send"}
)


@dataclass(frozen=True)
class Run:
    """What became of a command.

    Attributes:
        code: its exit code; negative: the signal that ended it.
        steps: how many steps it took, where it came to its end.
        output: what it printed.
    """

    code: int
    steps: int
    output: str


class Commands:
    """Starts commands; used as a context manager.

    Args:
        environment: variables to add.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.client.killing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, *arguments: str, cwd: Path, kill_at: int = 0) -> Run:
        """Run `musehub` with these arguments.

        Args:
            arguments: of the command.
            cwd: where.
            kill_at: the step before which it is killed, counted from 1; 0: it is left alone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": arguments, "cwd": os.fspath(cwd), "kill_at": kill_at}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Run(**json.loads(self._process.stdout.readline()))


def _serve() -> None:
    # Everything that a command loads when it runs, so that loading it is no step.
    import encodings.idna  # noqa: F401 - loaded for the forks
    import tomllib  # noqa: F401 - loaded for the forks
    import urllib.request  # noqa: F401 - loaded for the forks

    import musehub_plugin.client as client
    from musehub_plugin.client import credentials  # noqa: F401 - loaded for the forks
    from musehub_plugin.client.command import main

    for name in client.__all__:
        getattr(client, name)
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(json.dumps(_run(main, order)) + "\n")
        sys.stdout.flush()


def _run(main: Any, order: Mapping[str, Any]) -> Mapping[str, Any]:
    said, saying = os.pipe()
    counted, counting = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(saying, 1)
        os.dup2(saying, 2)
        os.chdir(order["cwd"])
        sys.argv = ["musehub", *order["arguments"]]
        steps = 0
        code = 70

        def count(event: str, _arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            if event in STEPS:
                steps += 1
                if steps == order["kill_at"]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(counting, str(steps).encode())
            os._exit(code)
    os.close(saying)
    os.close(counting)
    with os.fdopen(said) as output, os.fdopen(counted) as number:
        text, steps_text = output.read(), number.read()
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), "steps": int(steps_text or 0), "output": text}


if __name__ == "__main__":
    _serve()
