"""Which manifest paths every client can restore safely.

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

from collections.abc import Collection

MAX_PATH_BYTES = 4_096


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
    for path in paths:
        reason = unsafe_path(path)
        if reason is not None:
            return path, reason
    return clashing_path(paths)


def clashing_path(paths: Collection[str]) -> tuple[str, str] | None:
    """Return the first path that is also a folder of another path of the manifest, with the reason, or None."""
    folders: set[str] = set()
    for path in paths:
        cut = path.rfind("/")
        while cut > 0:
            folder = path[:cut]
            if folder in folders:
                break
            folders.add(folder)
            cut = path.rfind("/", 0, cut)
    for path in paths:
        if path in folders:
            return path, "is a file and a folder of another path"
    return None
