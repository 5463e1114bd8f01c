"""Tokens, one for each hub: where they are looked for, and where `musehub login` puts them.

A hub is named by the host and port of its URL, as in `hub.example` or `localhost:5000`. Looked for, in this order:

1. `MUSEHUB_TOKEN`, for every hub;
2. the file `~/.config/musehub/credentials` (or under `XDG_CONFIG_HOME`), with a line `machine HOST token TOKEN` for
   each hub, after netrc; its mode must be 0600;
3. the system's keyring, where the package `keyring` is installed;
4. `~/.muse/identity.toml`, where the public muse client keeps them: a table for each hub, with a `token`; its mode must
   be 0600 too.

A token is never part of a URL, a message or a log.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from musehub_plugin.client.errors import ClientError

MAX_TOKEN: Final = 16 * 1024
_MAX_FILE: Final = 1 << 20
_SERVICE: Final = "musehub"


def token_for(url: str) -> str | None:
    """Return the token for the hub of a URL; None where none is known.

    Raises:
        ClientError: what was found is no token, or lies in a file that others may read.
    """
    environment = os.environ.get("MUSEHUB_TOKEN", "").strip()
    if environment:
        return check_token(environment)
    host = host_of(url)
    return _read_file().get(host) or _from_keyring(host) or _from_identities(host)


def read_token_file(path: Path) -> str | None:
    """Return the token that is all that a file holds; None where it is empty.

    Raises:
        ClientError: it holds something else.
    """
    with path.open("rb") as file:
        return check_token(file.read(MAX_TOKEN + 1).decode("utf-8", "replace").strip())


def check_token(text: str) -> str | None:
    """Return a token; None where it is empty.

    Raises:
        ClientError: it cannot be sent in a header. What it holds is not shown.
    """
    if len(text) > MAX_TOKEN or not text.isascii() or any(not "!" <= char <= "~" for char in text):
        raise ClientError("the token must be one line of printable ASCII without spaces")
    return text or None


def store(url: str, token: str) -> str:
    """Keep a token for the hub of a URL, and return where: the keyring, where there is one, else the file."""
    host = host_of(url)
    # Before anything is changed: a file that cannot be read is no place to keep a token in.
    _read_file()
    keyring = _keyring()
    if keyring is not None:
        try:
            keyring.set_password(_SERVICE, host, token)
        except Exception:  # noqa: BLE001 - backends raise what they like, and the file is always there
            keyring = None
    if keyring is not None:
        # The file is looked into first: an older token there would be taken for this one.
        _forget_in_file(host)
        return "the system's keyring"
    with _alone():
        _write_file({**_read_file(), host: token})
    return os.fspath(credentials_path())


def forget(url: str) -> bool:
    """Forget the token for the hub of a URL, and return whether one was kept here."""
    host = host_of(url)
    found = _forget_in_file(host)
    if _from_keyring(host) is not None:
        keyring = _keyring()
        if keyring is not None:
            keyring.delete_password(_SERVICE, host)
            found = True
    return found


def host_of(url: str) -> str:
    """Return what names the hub of a URL: its host, and its port where the URL says one.

    Raises:
        ClientError: the URL names no host.
    """
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or any(char.isspace() for char in host):
        # Not repeated: it may hold a password.
        raise ClientError("a hub's URL looks like https://hub.example")
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def credentials_path() -> Path:
    """Return where the tokens are kept.

    Raises:
        ClientError: this user has no home directory.
    """
    path = _credentials_path()
    if path is None:
        raise ClientError("there is no home directory to keep a token in; set HOME, or use MUSEHUB_TOKEN")
    return path


def _credentials_path() -> Path | None:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if base.startswith("/"):
        return Path(base, "musehub", "credentials")
    home = _home()
    return None if home is None else home / ".config" / "musehub" / "credentials"


def _home() -> Path | None:
    """Return the user's home directory; None for a user whom the system does not know, where HOME is not set."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def _read_file() -> dict[str, str]:
    path = _credentials_path()
    if path is None:
        return {}
    text = _read_private(path)
    tokens: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 4 or words[0] != "machine" or words[2] != "token":
            raise ClientError(f"{path}, line {number}: it must be `machine HOST token TOKEN`")
        token = check_token(words[3])
        if token is not None:
            tokens[words[1].lower()] = token
    return tokens


def _forget_in_file(host: str) -> bool:
    """Forget a hub's token in the file, and return whether there was one."""
    if host not in _read_file():
        return False
    with _alone():
        kept = _read_file()
        kept.pop(host, None)
        _write_file(kept)
    return True


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process changes the file, which is read and then written."""
    path = credentials_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_file(tokens: dict[str, str]) -> None:
    """Write the file; the caller is alone with it."""
    path = credentials_path()
    temp = path.with_name(f"{path.name}.new")
    # One that was killed may have left its own.
    temp.unlink(missing_ok=True)
    # The mode is right before the first byte is in it.
    handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(f"machine {host} token {token}\n" for host, token in sorted(tokens.items()))
        temp.replace(path)
    finally:
        temp.unlink(missing_ok=True)


def _from_identities(host: str) -> str | None:
    home = _home()
    if home is None:
        return None
    path = home / ".muse" / "identity.toml"
    text = _read_private(path)
    if not text:
        return None
    # Most have no such file.
    import tomllib

    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise ClientError(f"{path} is no TOML") from None
    for name, table in tables.items():
        if (isinstance(table, dict) and name.partition("://")[2] in {host, f"{host}/"}) or name == host:
            token = table.get("token") if isinstance(table, dict) else None
            return check_token(token.strip()) if isinstance(token, str) else None
    return None


def _read_private(path: Path) -> str:
    """Return a file's text, empty where there is none.

    Raises:
        ClientError: others may read it.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ClientError(f"others may read {path}; run `chmod 600 {path}`")
            return file.read(_MAX_FILE).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        # A service's HOME is often /dev/null.
        return ""


def _keyring() -> Any:
    """Return the module `keyring`; None where it is not installed, or knows no keyring here."""
    if os.environ.get("PYTHON_KEYRING_BACKEND", "").startswith("keyring.backends.null"):
        return None
    try:
        keyring = import_module("keyring")
    except ModuleNotFoundError as error:
        if error.name != "keyring":
            raise
        return None
    return keyring if keyring.get_keyring().priority > 0 else None


def _from_keyring(host: str) -> str | None:
    try:
        keyring = _keyring()
        found = keyring.get_password(_SERVICE, host) if keyring is not None else None
    except Exception:  # noqa: BLE001 - a keyring that is locked or broken is none; backends raise what they like
        return None
    return check_token(found) if isinstance(found, str) else None
