"""Writes a git repository of any length, with what real histories have: merges, renames, odd names, odd modes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

_NAMES = (
    b"plain.txt",
    b"with space.txt",
    "umlaut-\u00e4\u00f6\u00fc.txt".encode(),
    "\u65e5\u672c/\u8a9e.md".encode(),
    "e\u0301 is not \u00e9.txt".encode(),
    b"quote'\"double.txt",
    b"tab\there.txt",
    b"back\\slash.txt",
    b"latin-\xe4\xf6.txt",
    b"-dash",
    b".hidden/.deep/.file",
    b"Case.txt",
    b"case.txt",
    b"a" * 200 + b".txt",
    b"deep/" * 30 + b"leaf",
    b"%41 percent",
    b"~tilde~",
    b"semi;colon&and|pipe",
)
_MODES = (b"100644",) * 16 + (b"100755", b"120000")


def write_repository(path: Path, commits: int, *, seed: int = 0) -> None:
    """Make a bare repository with a main branch of so many commits, branches that are merged, and some that are not.

    Args:
        path: where; it must not exist.
        commits: how many, merges included.
        seed: the same seed gives the same repository, byte for byte.
    """
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)
    process = subprocess.Popen(
        ["git", "-C", str(path), "fast-import", "--quiet", "--date-format=raw"], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    with process.stdin:
        process.stdin.writelines(_stream(Random(seed), commits))
    if process.wait() != 0:
        raise RuntimeError("git fast-import failed")


def _stream(random: Random, commits: int) -> Iterator[bytes]:
    main, side = 0, 0
    files: list[bytes] = []
    for mark in range(1, commits + 1):
        # A side branch lives for a few commits, then it is merged; its files are its own.
        merges = side and random.random() < 0.3
        on_side = main and not merges and random.random() < (0.6 if side else 0.1)
        parents = [side or main] if on_side else [main, *([side] if merges else [])]
        text = b"commit %d\n\nWhat \xc3\xa9 it says.\n" % mark if mark % 97 else b""
        yield b"commit refs/heads/%s\nmark :%d\n" % (b"side" if on_side else b"main", mark)
        yield b"author A U Thor <author@example.com> %d +0130\n" % (1_500_000_000 + 60 * mark)
        # Clocks go back now and then.
        yield b"committer C <c@example.com> %d -0800\n" % (1_500_000_000 + 60 * mark - 5_000 * (mark % 50 == 0))
        yield b"data %d\n%s\n" % (len(text), text)
        for number, parent in enumerate(parent for parent in parents if parent):
            yield (b"merge :%d\n" if number else b"from :%d\n") % parent
        if on_side:
            yield _file(random, b"side/%d-%d.txt" % (mark, random.randrange(9)))
            side = mark
            continue
        yield from _changes(random, files, mark)
        main, side = mark, 0 if merges else side


def _changes(random: Random, files: list[bytes], mark: int) -> Iterator[bytes]:
    for _ in range(random.randrange(1, 4)):
        action = random.random()
        if files and action < 0.08:
            yield b"D %s\n" % _quoted(files.pop(random.randrange(len(files))))
        elif files and action < 0.16:
            old = files.pop(random.randrange(len(files)))
            files.append(b"renamed/%d" % mark + b"/" + old.rpartition(b"/")[2])
            yield b"R %s %s\n" % (_quoted(old), _quoted(files[-1]))
        elif files and action < 0.6:
            yield _file(random, random.choice(files))
        else:
            files.append(b"%d/" % (len(files) % 40) + b"%d-" % mark + random.choice(_NAMES))
            yield _file(random, files[-1])


def _file(random: Random, path: bytes) -> bytes:
    mode = random.choice(_MODES)
    if mode == b"120000":
        content = b"../target-%d" % random.randrange(99)
    else:
        # A tenth are empty; lines repeat, as they do in text.
        lines = random.choice((0, 1, 5, 20, 20, 80, 80, 200, 3, 9))
        content = b"".join(b"line %d of some text\n" % random.randrange(2_000) for _ in range(lines))
    return b"M %s inline %s\ndata %d\n%s\n" % (mode, _quoted(path), len(content), content)


def _quoted(path: bytes) -> bytes:
    return b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"'
