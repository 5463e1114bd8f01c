"""Names that become file names in a working copy: branches, tags and remotes.

Branch names follow `git check-ref-format --branch`, the rule that the contract's section 3 gives to hubs. A
name comes from a stranger (a hub, a git repository) and is checked before it is part of a path.
"""

from __future__ import annotations

import re

MAX_NAME_BYTES = 255

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_REMOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def bad_branch_name(name: str) -> str | None:
    """Return why `name` cannot name a branch or a tag, or None where it can."""
    if not name or len(name) > MAX_NAME_BYTES:
        return f"must have 1 to {MAX_NAME_BYTES} bytes"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if size > MAX_NAME_BYTES:
        return f"must have 1 to {MAX_NAME_BYTES} bytes"
    if _FORBIDDEN.search(name):
        return "holds a character or a pair of characters that a branch name must not hold"
    if name == "HEAD":
        return "is reserved"
    if name[0] in "-/" or name[-1] in "/.":
        return f"must not start with {name[0]!r}" if name[0] in "-/" else f"must not end with {name[-1]!r}"
    for component in name.split("/"):
        if component.startswith(".") or component.endswith(".lock"):
            return "has a part that starts with '.' or ends with '.lock'"
    return None


def bad_remote_name(name: str) -> str | None:
    """Return why `name` cannot name a remote, or None where it can."""
    if _REMOTE.fullmatch(name) is None:
        return "must be 1 to 100 letters, digits, '.', '_' or '-', and start with a letter, a digit or '_'"
    return None
