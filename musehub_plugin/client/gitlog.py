"""What git says about a repository's history, as a stream: commits, what each changed, the bytes of blobs.

Two git processes do the reading: `git log --raw` gives every commit, parents first, with its difference from
its first parent; `git cat-file --batch` gives blobs on demand. Neither holds more than a few commits here,
whatever the history's length.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple, Self

from musehub_plugin.client.errors import GitImportError

CHUNK: Final = 1 << 20
# Names on stdin that fit into a pipe's buffer of 64 KiB, with 64 hex digits and a newline each: git can
# take them all while it is still busy writing the first blob, so that neither side waits for the other.
MAX_NAMES_AT_ONCE: Final = 900
_FORMAT: Final = "%H%x00%P%x00%an%x00%ae%x00%ct%x00%S%x00%B"
# The repository's own settings and replacements must not change what is read.
_SETTINGS: Final = ("-c", "log.showSignature=false", "-c", "log.mailmap=false")


class GitChange(NamedTuple):
    """One path that a commit changed, against its first parent.

    Attributes:
        mode: six octal digits: 100644, 100755, 120000 (symlink), 160000 (submodule); 000000 where it is
            deleted.
        blob: git's name of the blob, hex; zeros where it is deleted.
        path: the path, as git has it.
    """

    mode: bytes
    blob: bytes
    path: bytes


class GitCommit(NamedTuple):
    """One commit.

    Attributes:
        name: its hash, hex.
        parents: its parents' hashes, in their order.
        author: `Name <mail>`.
        committed: seconds since 1970 of the committer's date, as git writes it.
        ref: the ref by which it was reached.
        message: the whole message; in UTF-8 where the commit says what it is in.
        changes: what it changed against its first parent.
    """

    name: str
    parents: tuple[str, ...]
    author: bytes
    committed: bytes
    ref: bytes
    message: bytes
    changes: tuple[GitChange, ...]


class GitRef(NamedTuple):
    """One ref: its full name, the commit that it leads to, and whether an annotated tag lies between."""

    name: bytes
    commit: str
    annotated: bool


class GitRepository:
    """A git repository on this machine.

    Args:
        path: a working tree or a bare repository.

    Raises:
        GitImportError: git is not installed, or `path` is no repository.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Environment variables of a calling git would lead elsewhere.
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        self._environment |= {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
        if not path.is_dir():
            raise GitImportError(f"{path} is no folder")
        self._run("rev-parse", "--git-dir")

    def refs(self) -> list[GitRef]:
        """Return the branches, tags and remote-tracking branches that lead to commits."""
        text = self._run(
            "for-each-ref",
            "--format=%(refname)%00%(objecttype)%00%(objectname)%00%(*objecttype)%00%(*objectname)",
            "refs/heads",
            "refs/tags",
            "refs/remotes",
        )
        found = []
        for line in text.splitlines():
            name, kind, value, peeled_kind, peeled = line.split(b"\0")
            if kind == b"commit":
                found.append(GitRef(name, value.decode(), annotated=False))
            elif peeled_kind == b"commit":
                found.append(GitRef(name, peeled.decode(), annotated=True))
        return found

    def head_ref(self) -> bytes | None:
        """Return the full name of the ref that HEAD names; None where it names a commit."""
        done = self._start("symbolic-ref", "--quiet", "HEAD", stdout=subprocess.PIPE)
        text = done.communicate()[0]
        return text.rstrip(b"\n") if done.returncode == 0 else None

    def cut_off(self) -> int:
        """Return how many commits a shallow clone has whose parents it lacks; they are read as if they had none."""
        place = self._run("rev-parse", "--git-path", "shallow").removesuffix(b"\n")
        try:
            return len((self._path / os.fsdecode(place)).read_bytes().split())
        except FileNotFoundError:
            return 0

    def log(self, refs: Sequence[bytes], known: Iterable[str] = ()) -> Iterator[GitCommit]:
        """Iterate over every commit that refs reach, parents before children.

        Args:
            refs: full names; the first ones lend their name to the commits that several reach.
            known: hashes of commits that are left out, with all that they reach; those that are not in the repository
                do no harm.

        Raises:
            GitImportError: git fails, or says something that this cannot read.
        """
        if not refs:
            return
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process, below
        process = self._start(
            *_SETTINGS,
            "log",
            "--stdin",
            "--source",
            "--ignore-missing",
            "--reverse",
            "--topo-order",
            "--diff-merges=first-parent",
            "--root",
            "--raw",
            "-z",
            "--no-abbrev",
            "--no-renames",
            "--no-ext-diff",
            "--no-textconv",
            "--ignore-submodules=none",
            "-O/dev/null",
            "--no-color",
            "--encoding=UTF-8",
            f"--format={_FORMAT}",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints.fileno(),
        )
        with complaints, process:
            if process.stdin is None or process.stdout is None:
                raise GitImportError("git could not be started")
            # Where git ends early its exit code says so.
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(b"".join(ref + b"\n" for ref in refs))
                process.stdin.writelines(f"^{name}\n".encode("ascii") for name in known)
            with process.stdout:
                yield from _commits(_tokens(process.stdout))
            if process.wait() != 0:
                complaints.seek(0)
                raise GitImportError(f"git log failed in {self._path}: {os.fsdecode(complaints.read(1000))}")

    def blobs(self) -> GitBlobs:
        """Return a reader of blobs, to be used as a context manager."""
        return GitBlobs(self._start("cat-file", "--batch", stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    def _run(self, *arguments: str) -> bytes:
        process = self._start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, complaint = process.communicate()
        if process.returncode != 0:
            raise GitImportError(f"git {arguments[0]} failed in {self._path}: {os.fsdecode(complaint)}")
        return bytes(output)

    def _start(
        self, *arguments: str, stdout: int, stdin: int = subprocess.DEVNULL, stderr: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603 - a fixed program, and no shell
                ["git", "-C", os.fspath(self._path), "--no-pager", *arguments],  # noqa: S607 - the user's own git
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=self._environment,
            )
        except FileNotFoundError:
            raise GitImportError("git is not installed, or not in PATH") from None


class GitBlobs:
    """Reads blobs through one `git cat-file --batch`.

    Args:
        process: the running command.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None:
            raise GitImportError("git could not be started")
        self._process = process
        self._names: IO[bytes] = process.stdin
        self._output: IO[bytes] = process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._output.close()
        # Where it ended before it was told to, `read` has said so.
        with suppress(BrokenPipeError):
            self._names.close()
        self._process.wait()

    def read(self, names: Sequence[bytes]) -> Iterator[tuple[bytes, int, Iterator[bytes]]]:
        """Iterate over blobs: name, size in bytes, and the bytes in pieces of at most 1 MiB.

        The pieces of one must be used up before the next is asked for.

        Args:
            names: at most `MAX_NAMES_AT_ONCE` names.

        Raises:
            GitImportError: the repository does not hold one of them, or git failed.
        """
        if len(names) > MAX_NAMES_AT_ONCE:
            raise ValueError(f"over {MAX_NAMES_AT_ONCE} names at once")
        try:
            self._names.write(b"".join(name + b"\n" for name in names))
            self._names.flush()
        except BrokenPipeError:
            raise GitImportError("git cat-file ended early; try `git fsck`") from None
        for name in names:
            parts = self._output.readline().split()
            if len(parts) != 3 or parts[0] != name or parts[1] != b"blob":
                raise GitImportError(
                    f"the git repository lacks blob {name.decode()}; is it a partial or a damaged clone?"
                )
            size = int(parts[2])
            yield name, size, self._pieces(size)
            if self._output.read(1) != b"\n":
                raise GitImportError("git cat-file said something unexpected")

    def _pieces(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            piece = self._output.read(min(left, CHUNK))
            if not piece:
                raise GitImportError("git cat-file ended early; try `git fsck`")
            left -= len(piece)
            yield piece


def _tokens(stream: IO[bytes]) -> Iterator[bytes]:
    """Iterate over the NUL-terminated pieces of a stream."""
    rest = b""
    while block := stream.read(CHUNK):
        *whole, rest = (rest + block).split(b"\0")
        yield from whole
    if rest:
        yield rest


def _commits(tokens: Iterable[bytes]) -> Iterator[GitCommit]:
    """Iterate over the commits that `git log` wrote.

    A commit is seven pieces; then a pair for each change: `:<old mode> <mode> <old blob> <blob> <status>` and
    the path. No commit starts with a colon.
    """
    pieces = iter(tokens)
    piece = next(pieces, None)
    try:
        while piece is not None:
            name = piece.decode("ascii")
            parents, author, mail, committed, ref, message = (next(pieces) for _ in range(6))
            changes = []
            piece = next(pieces, None)
            while piece is not None and (change := piece.lstrip(b"\n")).startswith(b":"):
                _, mode, _, blob, _ = change.split(b" ")
                changes.append(GitChange(mode, blob, next(pieces)))
                piece = next(pieces, None)
            yield GitCommit(
                name,
                tuple(parents.decode("ascii").split()),
                author + b" <" + mail + b">",
                committed,
                ref,
                message,
                tuple(changes),
            )
    except (StopIteration, ValueError, RuntimeError):
        raise GitImportError("git log said something that cannot be read; which git is this?") from None
