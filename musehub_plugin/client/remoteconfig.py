"""The remotes of a working copy: `[remotes.<name>]` in `.muse/config.toml`, whose other content stays."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from musehub_plugin.client.errors import WorkdirError
from musehub_plugin.names import bad_remote_name

if TYPE_CHECKING:
    from musehub_plugin.client.workdir import Workdir

_HEADER = re.compile(r"\s*\[")


def remotes(workdir: Workdir) -> dict[str, str]:
    """Return `{name: url}` of the remotes that have a URL.

    Raises:
        WorkdirError: `config.toml` is no TOML.
    """
    tables = _read(workdir)[1].get("remotes", {})
    if not isinstance(tables, dict):
        return {}
    return {
        name: table["url"]
        for name, table in tables.items()
        if isinstance(table, dict) and isinstance(table.get("url"), str) and bad_remote_name(name) is None
    }


def remote_url(workdir: Workdir, name: str) -> str:
    """Return a remote's URL.

    Raises:
        WorkdirError: there is no such remote; the message says how to add it.
    """
    known = remotes(workdir)
    if name not in known:
        have = f"; there are: {', '.join(sorted(known))}" if known else ""
        raise WorkdirError(f"no remote {name!r:.100}{have}. Add it: `musehub remote add {name[:100]} URL`")
    return known[name]


def set_remote(workdir: Workdir, name: str, url: str, branch: str | None = None) -> None:
    """Add a remote, or give one another URL; the caller holds the working copy's lock, where others may do so too.

    Args:
        workdir: the working copy.
        name: the remote's name.
        url: `http(s)://host/owner/slug`.
        branch: the branch that the public client tracks; None: HEAD's.

    Raises:
        WorkdirError: name or URL cannot be one, or `config.toml` is written in a way that must be edited by
            hand.
    """
    problem = bad_remote_name(name)
    if problem is not None:
        raise WorkdirError(f"the remote name {name!r:.100} {problem}")
    checked = check_url(url)
    text, before = _read(workdir)
    table = {"url": checked, "branch": branch or workdir.head_branch() or "main"}
    # Not splitlines: a branch's name may hold what Unicode calls the end of a line.
    lines = _without_table(re.split("\r?\n", text), name)
    while lines and not lines[-1].strip():
        lines.pop()
    quoted = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
    # JSON's escapes in a string are TOML's, but for those of characters past U+FFFF.
    lines += [""] * bool(lines) + [f"[remotes.{quoted}]"]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    after = "\n".join(lines) + "\n"
    tables = before.get("remotes") if isinstance(before.get("remotes"), dict) else {}
    if text and _parse(after) != {**before, "remotes": {**(tables or {}), name: table}}:
        raise WorkdirError(f"edit {workdir.muse / 'config.toml'} by hand: it is too unusual to change")
    workdir.write_file(workdir.muse / "config.toml", after.encode())


def check_url(url: str) -> str:
    """Return a remote's URL without a slash at its end.

    Raises:
        WorkdirError: it is no `http(s)://host/owner/slug`, or holds credentials, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(char.isspace() or not char.isprintable() for char in url):
        raise WorkdirError("a remote's URL must be http(s)://host/owner/slug")
    if parts.username is not None or parts.password is not None:
        raise WorkdirError("a remote's URL must not hold credentials; set MUSEHUB_TOKEN or use --token-file")
    if parts.query or parts.fragment:
        raise WorkdirError("a remote's URL must be http(s)://host/owner/slug, without ? and #")
    return url.rstrip("/")


def _read(workdir: Workdir) -> tuple[str, dict[str, Any]]:
    path = workdir.muse / "config.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "", {}
    except UnicodeDecodeError:
        raise WorkdirError(f"{path} is not UTF-8") from None
    tables = _parse(text) if text else {}
    if tables is None:
        raise WorkdirError(f"{path} is no TOML; edit it by hand")
    return text, tables


def _parse(text: str) -> dict[str, Any] | None:
    # Where there is something to read: a new clone has nothing in it yet.
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _without_table(lines: list[str], name: str) -> list[str]:
    """Return the lines without the table `[remotes.<name>]`, up to the next table."""
    kept = []
    inside = False
    for line in lines:
        if _HEADER.match(line):
            inside = _parse(line) == {"remotes": {name: {}}}
        if not inside:
            kept.append(line)
    return kept
