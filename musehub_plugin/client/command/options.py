"""What all commands have in common: options, the token, how a result is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from musehub_plugin.client.errors import ClientError, WorkdirError

if TYPE_CHECKING:
    from musehub_plugin.client.progress import Progress
    from musehub_plugin.client.transport import HubTransport
    from musehub_plugin.client.worktree import CheckedOut

_Command = TypeVar("_Command", bound=Callable[..., Any])
_state = {"verbose": False}


def _be_verbose(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing and not is_verbose():
        # Here and not above: it is loaded for those who want to read it.
        import logging

        logger = logging.getLogger("musehub_plugin.client")
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("musehub: %(message)s"))
        # This client's own log alone: that of the HTTP library holds presigned URLs.
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        _state["verbose"] = True


def is_verbose() -> bool:
    """Say whether `--verbose` was given."""
    return _state["verbose"]


verbose_option = click.option(
    "--verbose",
    "-v",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_be_verbose,
    help="Say on stderr what is asked and answered, and where it failed.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
token_option = click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the bearer token from this file, and from nowhere else.",
)


def repo_url(context: click.Context, parameter: click.Parameter | None, value: str | None) -> str | None:
    """Return a repo's URL from the command line; one that can be none is wrong usage, and no failure."""
    from musehub_plugin.client.remoteconfig import check_url

    try:
        return None if value is None else check_url(value)
    except ClientError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def hub_url(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Return the URL of a hub, or of a repo there, from the command line, as `repo_url` does."""
    from musehub_plugin.client.credentials import host_of

    try:
        host_of(value)
    except ClientError as error:
        raise click.BadParameter(str(error), context, parameter) from None
    return value


def common(command: _Command) -> _Command:
    """Give a command the options that all have."""
    return verbose_option(_json_option(command))


def connection(url: str, token_file: Path | None, progress: Progress) -> HubTransport:
    """Return the connection to a repo, with the token that is kept for its hub.

    Every command begins by asking for the repo's branches; that is begun here, and its code is loaded meanwhile.
    """
    from musehub_plugin.client.credentials import read_token_file, token_for
    from musehub_plugin.client.remoteconfig import check_url
    from musehub_plugin.client.transport import HubTransport

    checked = check_url(url)
    token = read_token_file(token_file) if token_file is not None else token_for(checked)
    hub = HubTransport(checked, token=token, progress=progress)
    hub.ask_ahead("refs")
    return hub


def require_names(files: CheckedOut | None) -> None:
    """Fail where files could not be written, once all else is done and told.

    Raises:
        WorkdirError: the file system has no names for them.
    """
    if files is not None and files.unnameable:
        more = f" and {len(files.unnameable) - 1} more" if len(files.unnameable) > 1 else ""
        raise WorkdirError(
            f"this file system has no name for {files.unnameable[0]!r:.200}{more}; everything else is there"
        )


def report(as_json: bool, result: Mapping[str, Any], text: str) -> None:
    """Print a result: one JSON object, or text."""
    if as_json:
        click.echo(json.dumps(result, sort_keys=True))
    elif text:
        # Names and paths are somebody else's text: none of it may steer the terminal.
        click.echo("".join(char if char.isprintable() or char == "\n" else "?" for char in text))
