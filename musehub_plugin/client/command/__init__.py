"""The command `musehub`: the client's library on the command line.

Exit codes: 0 done; 1 failed, with one line on stderr that says what to do; 2 wrong usage.

The library is imported when a command runs, and the parts of it that a command needs: `--help` and the completion of
the shell answer before an HTTP client could be loaded.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module

import click

from musehub_plugin._version import __version__
from musehub_plugin.client.command.options import is_verbose, verbose_option
from musehub_plugin.client.errors import ClientError, printable


def main() -> None:
    """Run the command and exit with its code."""
    try:
        musehub(prog_name="musehub")
    except ClientError as error:
        _fail(str(error))
    except OSError as error:
        # A full disk, missing permissions: the system's own words, and the file that they are about.
        about = f": {error.filename}" if error.filename else ""
        _fail(printable(f"{error.strerror or error}{about}"))
    except UnicodeEncodeError as error:
        # A path goes to the system as the locale's bytes.
        _fail(
            f"the locale has no bytes for {error.object[error.start : error.end]!a:.40} in a name; set LC_ALL=C.UTF-8"
        )


def run() -> None:
    """Be the command's process: `main`, and an end without delay."""
    # Hardly anything is made that is not freed by itself: to look for what is not took 2 to 3 % of a clone.
    gc.set_threshold(20_000, 20, 20)
    try:
        main()
    except SystemExit as done:
        if done.code:
            raise
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        # Everything is closed. To take modules and records apart one by one costs a clone 40 to 70 ms more.
        os._exit(0)


def _fail(text: str) -> None:
    if is_verbose():
        import traceback

        traceback.print_exc()
    click.echo(f"musehub: error: {text}", err=True)
    sys.exit(1)


_COMMANDS = {
    "clone": "exchange",
    "fetch": "exchange",
    "pull": "exchange",
    "push": "exchange",
    "ls-remote": "exchange",
    "import-git": "local",
    "init": "local",
    "remote": "local",
    "verify": "local",
    "pack": "local",
    "unpack": "local",
    "login": "account",
    "logout": "account",
    "completion": "account",
}
"""The commands, in the order in which they are listed, and the modules that they are in."""


class _Commands(click.Group):
    """A group that loads a command when it is run or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None where there is none of this name."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"{__name__}.{_COMMANDS[cmd_name]}")
        kind = "group" if cmd_name == "remote" else "command"
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_{kind}")
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="musehub")
@verbose_option
def musehub() -> None:
    """Clone, fetch and push muse repos, and bring git histories to muse.

    A repo of a hub is named by its URL, https://HOST/OWNER/NAME. A private one, and every push, needs a token:
    `musehub login` keeps one, or set MUSEHUB_TOKEN.

    \b
    Get a repo, and keep up with it:
        musehub clone https://hub.example/ada/engine
        cd engine
        musehub pull

    \b
    Put a git history on a hub:
        musehub import-git ~/src/engine --into engine
        cd engine
        musehub login https://hub.example
        musehub push --set https://hub.example/ada/engine --all
    """
