"""Races the plugin against git: the same histories, the same work, in turn, in one run.

    python benchmarks/bench.py [--sizes 1000,10000] [--files N] [--git PATH ...] [--quick]
        [--threads] [--json FILE] [--write-docs]

git's side is `git http-backend` behind nginx and fcgiwrap, or a bridge of ours where those are not installed, with each
history plain, as it was pushed, and tuned. The plugin's side is gunicorn, PostgreSQL, Redis, S3 and a worker, all from
wheels. Prints a table; `--json` keeps every sample, `--write-docs` writes the pages from it. Needs Linux,
for its /proc, and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# Started as a program, only the folder of this file is looked in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.racing.gitserver import git_server
from benchmarks.racing.histories import existing, synthetic
from benchmarks.racing.hubserver import PROCESSES, hub_server
from benchmarks.racing.machine import machine
from benchmarks.racing.page import write_pages
from benchmarks.racing.races import race
from benchmarks.racing.report import table
from benchmarks.racing.results import Effort

_CHECKOUT = Path(__file__).resolve().parents[1]
_DOCS = _CHECKOUT / "docs"
_DEFAULT_SIZES = "1000,10000"
_QUICK = Effort(rounds=1, requests=16, seconds=0.2)


def bench(
    sizes: list[int],
    repositories: list[Path],
    effort: Effort,
    *,
    bridge: bool,
    threads: bool,
    out: Path | None,
    files: int | None = None,
) -> dict[str, Any]:
    """Run all races and return everything that was measured, for JSON.

    Args:
        sizes: commits of synthetic histories.
        repositories: git repositories or bundles.
        effort: how much is done.
        bridge: serve git without nginx in any case.
        threads: the hub's web server is two processes of four threads, as `hub_server` takes it.
        out: a file for what is returned, written after each history; None: nowhere.
        files: how many a synthetic history has; None: as `synthetic` chooses.
    """
    measured: dict[str, Any] = {"machine": machine(), "effort": vars(effort), "histories": []}
    measured["web"] = "2 processes of 4 threads" if threads else f"{PROCESSES} processes"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="musehub-bench-", ignore_cleanup_errors=True)))
        git = stack.enter_context(git_server(bridge=bridge))
        measured["front"] = git.front
        sources: list[int | Path] = [*sizes, *repositories]
        for number, source in enumerate(sources):
            place = folder / str(number)
            place.mkdir()
            history = synthetic(source, place, files=files) if isinstance(source, int) else existing(source, place)
            print(f"{history.name}: loading", file=sys.stderr, flush=True)
            with hub_server(threads=threads) as hub:
                results = race(history, git, hub, place, effort)
            measured["histories"].append(
                {
                    "name": history.name,
                    "commits": history.commits,
                    "synthetic": history.synthetic,
                    "samples": results.samples,
                    "facts": results.facts,
                }
            )
            if out is not None:
                out.write_text(json.dumps(measured), encoding="utf-8")
    return measured


def chosen(sizes: str | None, repositories: list[Path]) -> tuple[list[int], list[Path]]:
    """Return which histories are raced on: sizes of synthetic ones, and repositories.

    Args:
        sizes: as they were asked for; None: they were not.
        repositories: likewise. Where nothing was asked for, this one is real enough.
    """
    if sizes is None and not repositories and (_CHECKOUT / ".git").exists():
        repositories = [_CHECKOUT]
    return [int(size) for size in (_DEFAULT_SIZES if sizes is None else sizes).split(",") if size], repositories


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", help=f"commits of synthetic histories ({_DEFAULT_SIZES})")
    parser.add_argument("--files", type=int, help="files of synthetic histories (200; 2,000 from 100,000 commits on)")
    parser.add_argument(
        "--git",
        type=Path,
        action="append",
        default=[],
        help="a git repository or bundle to race on (where no --sizes are given either: the one that this is part of)",
    )
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="how often both sides take turns")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work at all?")
    parser.add_argument("--bridge", action="store_true", help="serve git without nginx, even where it is installed")
    parser.add_argument("--threads", action="store_true", help="the hub has 2 processes of 4 threads, not 2 a core")
    parser.add_argument("--json", type=Path, help="a file for every sample")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md and docs/scaling.md")
    parser.add_argument("--from", dest="source", type=Path, help="measure nothing, take a file that --json wrote")
    arguments = parser.parse_args()
    # As Ctrl-C: every server is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is installed is compiled: git is, and so is the plugin, unless it is run out of a checkout with this.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if arguments.source:
        measured = json.loads(arguments.source.read_text(encoding="utf-8"))
    else:
        sizes, repositories = chosen(arguments.sizes, arguments.git)
        effort = _QUICK if arguments.quick else Effort(rounds=arguments.rounds)
        try:
            measured = bench(
                sizes,
                repositories,
                effort,
                bridge=arguments.bridge,
                threads=arguments.threads,
                out=arguments.json,
                files=arguments.files,
            )
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
    if arguments.write_docs:
        try:
            write_pages(measured, _DOCS)
        except ImportError:
            print("--write-docs draws with matplotlib: pip install --editable '.[bench]'", file=sys.stderr)
            return 1
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
