"""The command `musehub`: the client's library on the command line.

Exit codes: 0 done; 1 failed, with one line on stderr that says what to do; 2 wrong usage.

The library is imported when a command runs, and the parts of it that a command needs: `--help` and the completion of
the shell answer before an HTTP client could be loaded.
"""

from __future__ import annotations

import sys
import traceback

import click

from musehub_plugin._version import __version__
from musehub_plugin.client.command.account import completion_command, login_command, logout_command
from musehub_plugin.client.command.exchange import (
    clone_command,
    fetch_command,
    ls_remote_command,
    pull_command,
    push_command,
)
from musehub_plugin.client.command.local import (
    import_git_command,
    init_command,
    pack_command,
    remote_group,
    unpack_command,
    verify_command,
)
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


def _fail(text: str) -> None:
    if is_verbose():
        traceback.print_exc()
    click.echo(f"musehub: error: {text}", err=True)
    sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


for _command in (
    clone_command,
    fetch_command,
    pull_command,
    push_command,
    ls_remote_command,
    import_git_command,
    init_command,
    remote_group,
    verify_command,
    pack_command,
    unpack_command,
    login_command,
    logout_command,
    completion_command,
):
    musehub.add_command(_command)
