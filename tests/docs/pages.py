"""Runs what a page of the documentation tells its reader to do, from top to bottom in an empty folder.

What a fenced block is, is said by its language, and by a comment in the line before it, which a reader does not see:

- `bash` is run, in one shell for the whole page; `<!-- server -->` before it: it is left running, and the page goes on
  once something listens on port 5000 (in fact a free one, which is put in its place);
- `<!-- file: NAME -->`: the block is a file of this name;
- `python` without a file is run as a script;
- `<!-- prints -->`: the block is what the one before it printed, `...` standing for any text within a line;
- `<!-- not run: WHY -->`: nothing is done with the block;
- other languages (`text`, `json`, `ini`, ...) are there to be read.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from shlex import quote

import pytest

from musehub_plugin.testing.supervised import reserved_ports

PORT_IN_TEXT = "5000"

_BLOCK = re.compile(r"^(?:<!-- (?P<comment>[^\n]*?) -->\n)?^```(?P<language>[\w-]*)\n(?P<text>.*?)^```$", re.M | re.S)
_WAIT = """for _ in $(seq 1200); do
    if (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null; then break; fi
    sleep 0.1
done
(: </dev/tcp/127.0.0.1/{port}) || {{ cat server-*.log; exit 1; }}
"""


class PageFailed(AssertionError):
    """What the page says does not work."""


@dataclass(frozen=True)
class Block:
    """A fenced block: the line that it begins in, its language, the comment before it, its text."""

    line: int
    language: str
    comment: str
    text: str

    @property
    def is_read_only(self) -> bool:
        """Whether there is nothing to do."""
        runs = self.language in {"bash", "python"} or self.comment.startswith(("file:", "prints"))
        return not runs or self.comment.startswith("not run:")


def blocks(page: Path) -> list[Block]:
    """Return a page's blocks."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            line=text.count("\n", 0, found.start("language")) + 1,
            language=found["language"],
            comment=found["comment"] or "",
            text=found["text"],
        )
        for found in _BLOCK.finditer(text)
    ]


def run_page(page: Path, folder: Path, path: str, replace: Mapping[str, str] | None = None) -> None:
    """Do what the page says.

    Args:
        page: the Markdown file.
        folder: where; empty.
        path: the `PATH` with the commands that the page names.
        replace: texts of the page, such as the names of servers, and what they are here.

    Raises:
        PageFailed: a command failed, or printed something else than the page says.
        pytest.skip.Exception: the page is about `curl`, which is not installed.
    """
    if shutil.which("curl", path=path) is None and any("curl -" in block.text for block in blocks(page)):
        pytest.skip(f"{page.name} needs curl, which is not installed")
    with reserved_ports(1) as (port,):
        _run_page(page, folder, path, {PORT_IN_TEXT: str(port), **(replace or {})})


def _run_page(page: Path, folder: Path, path: str, replace: Mapping[str, str]) -> None:
    work = folder / "work"
    work.mkdir(parents=True)
    todo = [block for block in blocks(page) if not block.is_read_only]
    script = folder / "page.sh"
    script.write_text("".join(_steps(todo, folder, replace)), encoding="utf-8")
    # `-u`: a page must not lean on a variable that the reader was never told to set.
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", str(script)],
        cwd=work,
        env={"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", "FLASK_RUN_PORT": replace[PORT_IN_TEXT]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = process.wait(timeout=800)
    finally:
        # Servers that the page started are in the shell's group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    done = [block for block in todo if (folder / f"{block.line}.out").exists()]
    if code:
        output = (folder / f"{done[-1].line}.out").read_text(encoding="utf-8", errors="replace")
        logs = "".join(log.read_text(errors="replace") for log in sorted(work.rglob("server-*.log")))
        raise PageFailed(f"{page.name}, line {done[-1].line}: exit code {code}\n{output}\n{logs[-3000:]}")
    _check_output(page, todo, folder, replace)


def _steps(todo: list[Block], folder: Path, replace: Mapping[str, str]) -> Iterator[str]:
    for block in todo:
        text = _replaced(block.text, replace)
        if block.comment == "prints":
            continue
        staged = folder / f"{block.line}.block"
        staged.write_text(text, encoding="utf-8")
        out = quote(str(folder / f"{block.line}.out"))
        kind, _, name = block.comment.partition(":")
        if kind == "file":
            target = quote(name.strip())
            yield f'mkdir -p "$(dirname {target})"; cp {quote(str(staged))} {target} >{out} 2>&1\n'
        elif kind == "server":
            yield f"{{ {text.strip()}\n}} >server-{block.line}.log 2>&1 &\n: >{out}\n"
            yield _WAIT.format(port=replace[PORT_IN_TEXT])
        elif block.language == "python":
            yield f"python {quote(str(staged))} >{out} 2>&1\n"
        else:
            yield f"{{\n{text}\n}} >{out} 2>&1\n"


def _check_output(page: Path, todo: list[Block], folder: Path, replace: Mapping[str, str]) -> None:
    for block, after in pairwise(todo):
        if after.comment != "prints":
            continue
        printed = (folder / f"{block.line}.out").read_text(encoding="utf-8").strip()
        wanted = _replaced(after.text, replace).strip()
        pattern = re.escape(wanted).replace(re.escape("..."), ".*")
        if not re.fullmatch(pattern, printed):
            raise PageFailed(f"{page.name}, line {block.line} printed\n{printed}\nand not\n{wanted}")


def _replaced(text: str, replace: Mapping[str, str]) -> str:
    for old, new in replace.items():
        text = text.replace(old, new)
    return text
