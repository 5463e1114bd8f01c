"""Names that come from strangers and become file names: manifest paths, branches, remotes.

A manifest comes from a stranger and ends as files on somebody's disk, so a path that would leave the working tree,
overwrite the client's own `.muse` folder, or cannot be told apart from another one once it is split is refused at the
door (push) and again before it is written (checkout).

Refused: the empty path; `/` at either end or doubled; a `.` or `..` segment; a backslash; NUL, CR, LF; a `.muse`
segment in any case; more than 4,096 bytes of UTF-8; text that UTF-8 cannot hold; a path that is also a folder of
another one.

Not refused, since real histories have them and most file systems restore them: text that is not NFC, names that
differ only in case, other control characters, and the device names of Windows. A client on a file system that cannot
hold them says so at checkout.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

MAX_PATH_BYTES = 4_096
MAX_BRANCH_BYTES = 255
IS_FOLDER: Final = "is a file and a folder of another path"

_REMOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def unsafe_path(path: str) -> str | None:
    """Return why `path` cannot be restored safely, or None where it can."""
    if not path:
        return "is empty"
    # ASCII needs no encoding to be measured; only the rest can hold lone surrogates.
    if not path.isascii():
        try:
            size = len(path.encode())
        except UnicodeEncodeError:
            return "is not valid Unicode"
    else:
        size = len(path)
    if size > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if "\0" in path or "\n" in path or "\r" in path:
        return "holds a NUL or a line break"
    if "\\" in path:
        return "holds a backslash"
    if path[0] == "/":
        return "is absolute"
    if "." not in path and "//" not in path and path[-1] != "/":
        return None
    for segment in path.split("/"):
        if not segment:
            return "has an empty segment"
        if segment in {".", ".."}:
            return f"has a {segment!r} segment"
        if segment.casefold() == ".muse":
            return "names the .muse folder"
    return None


def unsafe_manifest(paths: Collection[str]) -> tuple[str, str] | None:
    """Return the first path of a manifest that cannot be restored safely, with the reason, or None.

    Args:
        paths: the paths of one manifest, each once.
    """
    return unsafe_in_order(sorted(paths))


def unsafe_in_order(paths: Iterable[str]) -> tuple[str, str] | None:
    """Return what `unsafe_manifest` does, of paths that come sorted."""
    # Those that this one begins with, each a beginning of the next: what begins with a path follows on it.
    above: list[str] = []
    for path in paths:
        reason = unsafe_path(path)
        if reason is not None:
            return path, reason
        while above and not path.startswith(above[-1]):
            above.pop()
        if above and path[len(above[-1])] == "/":
            return above[-1], IS_FOLDER
        above.append(path)
    return None


def bad_branch_name(name: str) -> str | None:
    """Return why `name` cannot be a branch, or None where it can: what `git check-ref-format --branch` refuses.

    Source: git-check-ref-format(1), and `--branch`, which refuses `HEAD` and a leading dash as well. One limit is our
    own: at most 255 bytes of UTF-8.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if not name:
        return "is empty"
    if size > MAX_BRANCH_BYTES:
        return f"is longer than {MAX_BRANCH_BYTES} bytes"
    if name == "HEAD" or name[0] == "-":
        return "is HEAD or begins with a dash"
    if any(ord(character) < 0x20 or character in "\x7f ~^:?*[\\" for character in name):
        return "holds a control character, a space or one of ~^:?*[\\"
    if ".." in name or "@{" in name or name[-1] == ".":
        return "holds '..' or '@{', or ends with a dot"
    for part in name.split("/"):
        if not part or part[0] == "." or part.endswith(".lock"):
            return "has a part that is empty, begins with a dot or ends with '.lock'"
    return None


def bad_remote_name(name: str) -> str | None:
    """Return why `name` cannot name a remote, or None where it can."""
    if _REMOTE.fullmatch(name) is None:
        return "must be 1 to 100 letters, digits, '.', '_' or '-', and start with a letter, a digit or '_'"
    return None
