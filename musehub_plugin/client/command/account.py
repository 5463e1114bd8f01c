"""The commands that know who is calling, and which shell: login, logout, completion."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from musehub_plugin.client.command.options import common, hub_url, report
from musehub_plugin.client.errors import ClientError


@click.command("login")
@click.argument("url", callback=hub_url)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the token from this file instead of asking for it.",
)
@common
def login_command(url: str, token_file: Path | None, as_json: bool) -> None:
    """Keep the token for the hub at URL, for every repo there.

    The token is asked for without being shown, or read from standard input where that is no terminal. It is kept in
    the system's keyring where the Python package keyring is installed, else in ~/.config/musehub/credentials. With
    the URL of a repo the hub is asked first whether it takes the token.

    \b
    Examples:
        musehub login https://hub.example
        echo "$TOKEN" | musehub login https://hub.example/ada/engine
    """
    from musehub_plugin.client import credentials

    host = credentials.host_of(url)
    if token_file is not None:
        token = credentials.read_token_file(token_file)
    elif sys.stdin.isatty():
        token = credentials.check_token(click.prompt(f"Token for {host}", hide_input=True, err=True).strip())
    else:
        token = credentials.check_token(sys.stdin.readline(credentials.MAX_TOKEN + 2).strip())
    if token is None:
        raise ClientError("there is no token; type it, pipe it in, or use --token-file")
    checked = _is_repo(url)
    if checked:
        from musehub_plugin.client.protocol import get_refs
        from musehub_plugin.client.transport import HubTransport

        get_refs(HubTransport(url, token=token))
    where = credentials.store(url, token)
    report(as_json, {"host": host, "kept_in": where, "checked": checked}, f"{host}: the token is kept in {where}")


@click.command("logout")
@click.argument("url", callback=hub_url)
@common
def logout_command(url: str, as_json: bool) -> None:
    """Forget the token that `musehub login` keeps for the hub at URL.

    \b
    Example:
        musehub logout https://hub.example
    """
    from musehub_plugin.client import credentials

    host = credentials.host_of(url)
    found = credentials.forget(url)
    text = f"{host}: the token is forgotten" if found else f"{host}: no token was kept"
    report(as_json, {"host": host, "forgotten": found}, text)


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion_command(shell: str, as_json: bool) -> None:
    """Print what makes SHELL complete the names of commands and options.

    \b
    Examples:
        echo 'eval "$(musehub completion bash)"' >>~/.bashrc
        echo 'eval "$(musehub completion zsh)"' >>~/.zshrc
        musehub completion fish >~/.config/fish/completions/musehub.fish
    """
    root = click.get_current_context().find_root().command
    maker = get_completion_class(shell)
    if maker is None:
        raise ClientError(f"there is no completion for {shell}")
    script = maker(root, {}, "musehub", "_MUSEHUB_COMPLETE").source()
    report(as_json, {"shell": shell, "script": script}, script)


def _is_repo(url: str) -> bool:
    """Say whether a URL names a repo, and not a hub as a whole."""
    return url.partition("://")[2].rstrip("/").count("/") >= 2
