"""Git repositories with exactly the history that a test needs, written through `git fast-import`."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

FILE = b"100644"
EXECUTABLE = b"100755"
SYMLINK = b"120000"
SUBMODULE = b"160000"


class GitHistory:
    """A bare repository that grows.

    Args:
        path: where it is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(path), inside=False)
        self._marks = 0

    def git(self, *arguments: str, stdin: bytes = b"", inside: bool = True) -> bytes:
        """Run git and return what it prints."""
        where = ["-C", str(self.path)] if inside else []
        return subprocess.run(["git", *where, *arguments], input=stdin, capture_output=True, check=True).stdout

    def commit(
        self,
        *,
        ref: str = "refs/heads/main",
        parents: Sequence[str] = (),
        files: Mapping[bytes, bytes | tuple[bytes, bytes] | None] | None = None,
        message: bytes = b"message\n",
        author: bytes = b"Ada <ada@example.com>",
        author_date: int = 1_000_000_000,
        date: int = 1_000_000_000,
        encoding: bytes = b"",
    ) -> str:
        """Add a commit to a ref and return its hash.

        Args:
            ref: full name.
            parents: hashes; the tree starts as the first one's.
            files: `{path: content}`, `(mode, content or submodule hash)`, or None to delete it.
            message: exactly.
            author: `Name <mail>`.
            author_date: seconds since 1970.
            date: the committer's.
            encoding: what the commit says its text is in; empty: nothing.
        """
        out = [b"commit " + ref.encode(), b"author %s %d +0200" % (author, author_date)]
        out.append(b"committer Bob <bob@example.com> %d -0700" % date)
        if encoding:
            out.append(b"encoding " + encoding)
        out.append(b"data %d\n%s" % (len(message), message))
        for number, parent in enumerate(parents):
            out.append((b"merge " if number else b"from ") + parent.encode())
        for path, content in (files or {}).items():
            quoted = b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"'
            if content is None:
                out.append(b"D " + quoted)
                continue
            mode, data = content if isinstance(content, tuple) else (FILE, content)
            if mode == SUBMODULE:
                out.append(b"M 160000 " + data + b" " + quoted)
            else:
                out.append(b"M " + mode + b" inline " + quoted + b"\ndata %d\n%s" % (len(data), data))
        if not parents:
            # Without `from`, an existing branch would lend its tip.
            out.insert(0, b"reset " + ref.encode() + b"\n")
        stream = b"\n".join(out) + b"\n\n"
        self.git("fast-import", "--quiet", "--force", "--date-format=raw", stdin=stream)
        return self.git("rev-parse", ref).decode().strip()
