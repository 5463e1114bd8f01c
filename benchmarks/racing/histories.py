"""Histories to race on: synthetic ones of any length, and git repositories that exist."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

_SMALLEST, _LARGEST = 200, 8_000
_FILES_A_COMMIT = 3
_BLOCK = 10
_FILES_A_FOLDER = 10


@dataclass(frozen=True)
class History:
    """A history as git has it.

    Attributes:
        name: what reports call it.
        source: a bare repository, whose `branch` is what is raced on.
        branch: the branch.
        commits: how many the branch reaches.
        synthetic: whether `write_synthetic` made it.
    """

    name: str
    source: Path
    branch: str
    commits: int
    synthetic: bool


@dataclass(frozen=True)
class Step:
    """A part of a history that somebody lacks: `want` reaches `commits` commits that `have` does not."""

    want: str
    have: str
    commits: int


def synthetic(commits: int, folder: Path, *, files: int | None = None, seed: int = 0) -> History:
    """Make a synthetic history of so many commits.

    Args:
        commits: how many.
        folder: where it goes.
        files: how many there are; None: 2,000 from 100,000 commits on, and 200 below.
        seed: as for `write_synthetic`.
    """
    source = folder / f"synthetic-{commits}.git"
    write_synthetic(source, commits, files=files or (2_000 if commits >= 100_000 else 200), seed=seed)
    return History(f"{commits:,} commits", source, "main", commits, synthetic=True)


def existing(repository: Path, folder: Path) -> History:
    """Copy the checked-out branch of a git repository, or of a bundle, into a bare one of its own.

    Args:
        repository: a working tree, a bare repository or a bundle.
        folder: where the copy goes.

    Raises:
        subprocess.CalledProcessError: git cannot read it, or it has no commits.
    """
    name = repository.resolve().name.removesuffix(".git").removesuffix(".bundle")
    source = folder / f"{name}.git"
    # Bundles of every branch have many; HEAD's alone is what a clone's user waits for.
    _git(folder, "clone", "--quiet", "--bare", "--no-local", "--no-tags", "--single-branch", repository, source)
    branch = _git(source, "symbolic-ref", "--short", "HEAD")
    commits = int(_git(source, "rev-list", "--count", branch))
    return History(name, source, branch, commits, synthetic=False)


def steps_of_one(history: History) -> list[Step]:
    """Return each commit of the branch's own line that is no merge, with its parent as the have side, oldest first."""
    log = _git(history.source, "log", "--first-parent", "--reverse", "--format=%H %P", history.branch)
    commits = [line.split() for line in log.splitlines()]
    return [Step(names[0], names[1], 1) for names in commits if len(names) == 2]


def steps_of(history: History, commits: int, count: int) -> list[Step]:
    """Return up to `count` steps of about so many commits, spread over the branch's own line.

    Args:
        history: the history.
        commits: how many commits each step brings, as near as the line's merges allow.
        count: how many steps; a short history has fewer, or none.
    """
    line = _git(history.source, "rev-list", "--first-parent", "--reverse", history.branch).split()
    tops = range(len(line) - 1, 0, -max(1, len(line) // (count + 1)))
    steps = []
    for top in tops[:count]:
        low, high = 0, top
        # The further back the have side is, the more the step brings.
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _between(history, line[middle], line[top]) >= commits else (low, middle)
        brought = _between(history, line[low], line[top])
        if abs(brought - commits) <= commits // 4:
            steps.append(Step(line[top], line[low], brought))
    return steps


def write_synthetic(path: Path, commits: int, *, files: int, seed: int = 0) -> None:
    """Make a bare repository: a merge every tenth commit, three files changed a commit, blobs of 200 B to 8 KB.

    Args:
        path: where; it must not exist.
        commits: how many, merges and the first included.
        files: how many files there are from the first commit on.
        seed: the same seed gives the same repository, byte for byte.
    """
    _git(path.parent, "init", "--quiet", "--bare", "--initial-branch=main", path)
    process = subprocess.Popen(["git", "-C", path, "fast-import", "--quiet"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin as stream:
        stream.writelines(_stream(Random(seed), commits, files))
    if process.wait() != 0:
        raise RuntimeError("git fast-import failed")
    # As a client packs it for a push; fast-import's own packs are three times as large.
    _git(path, "repack", "-adfq")
    # Else each question of `steps_of` walks all of a long history.
    _git(path, "commit-graph", "write", "--reachable", "--no-progress")


def _stream(random: Random, commits: int, files: int) -> Iterator[bytes]:
    lines = _lines(random)
    contents = [_first_content(random, lines) for _ in range(files)]
    paths = [b"src/part%03d/module%04d.txt" % (number // _FILES_A_FOLDER, number) for number in range(files)]
    changed: Sequence[int] = range(files)
    for mark in range(1, commits + 1):
        # The ninth of ten stands beside the eighth, and the tenth merges it.
        beside = mark > 1 and mark % _BLOCK == _BLOCK - 1 and mark < commits
        merge = mark > 1 and mark % _BLOCK == 0
        yield b"commit refs/heads/%s\nmark :%d\n" % (b"side" if beside else b"main", mark)
        yield b"committer A U Thor <author@example.com> %d +0000\n" % (1_600_000_000 + 600 * mark)
        message = b"Change %d\n\n%s\n" % (mark, b"\n".join(random.choices(lines, k=random.randrange(3))))
        yield b"data %d\n%s\n" % (len(message), message)
        if merge:
            yield b"from :%d\nmerge :%d\n" % (mark - 2, mark - 1)
        elif mark > 1:
            yield b"from :%d\n" % (mark - 2 if beside else mark - 1)
        if mark > 1 and not merge:
            changed = random.sample(range(files), min(_FILES_A_COMMIT, files))
            for number in changed:
                _edit(random, contents[number], lines)
        # A merge brings what the side changed.
        for number in changed:
            data = b"\n".join(contents[number])
            yield b"M 100644 inline %s\ndata %d\n%s\n" % (paths[number], len(data), data)
    yield b"reset refs/heads/side\nfrom %s\n\n" % (b"0" * 40)


def _lines(random: Random) -> list[bytes]:
    letters = b"etaoinshrdlucmfwypvbgk"
    words = [bytes(random.choices(letters, k=random.randrange(2, 11))) for _ in range(3_000)]
    return [
        b"    " * random.randrange(3) + b" ".join(random.choices(words, k=random.randrange(2, 10)))
        for _ in range(20_000)
    ]


def _first_content(random: Random, lines: list[bytes]) -> list[bytes]:
    size = int(math.exp(random.uniform(math.log(_SMALLEST + 100), math.log(_LARGEST - 500))))
    content: list[bytes] = []
    while sum(map(len, content)) + len(content) < size:
        content.append(random.choice(lines))
    return content


def _edit(random: Random, content: list[bytes], lines: list[bytes]) -> None:
    """Change a few lines in a row, add some or take some away, and keep to the sizes."""
    size = sum(map(len, content)) + len(content)
    for _ in range(random.choice((1, 1, 2))):
        at, count = random.randrange(len(content)), random.randrange(1, 5)
        action = random.random()
        if action < 0.2 and size < _LARGEST - 1_000:
            content[at:at] = random.choices(lines, k=count)
        elif action < 0.4 and size > _SMALLEST + 400:
            del content[at : at + count]
        else:
            content[at : at + count] = random.choices(lines, k=min(count, len(content) - at))


def _between(history: History, have: str, want: str) -> int:
    return int(_git(history.source, "rev-list", "--count", f"{have}..{want}"))


def _git(folder: Path, *arguments: str | Path) -> str:
    return subprocess.run(
        ["git", "-C", folder, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
