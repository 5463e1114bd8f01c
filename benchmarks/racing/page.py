"""Writes what was measured into docs/performance.md and docs/scaling.md, between their markers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.racing.plots import draw
from benchmarks.racing.report import across, lines, table
from benchmarks.racing.scale import scaling

BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"


def write_pages(measured: Mapping[str, Any], folder: Path) -> None:
    """Replace what is between the markers of the two pages, and the figures beside them.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: a page lacks a marker.
    """
    figures = "\n\n".join(f"![{_title(path)}]({path.name})" for path in draw(measured, folder))
    parts = [_machine(measured), _summary(measured), figures, table(measured)]
    _replace(folder / "performance.md", "\n\n".join(parts))
    _replace(folder / "scaling.md", scaling(measured))


def _replace(page: Path, body: str) -> None:
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} lacks {BEGIN} or {END}")
    page.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}", encoding="utf-8")


def _title(path: Path) -> str:
    return path.stem.replace("-", ": ").capitalize()


def _machine(measured: Mapping[str, Any]) -> str:
    about = measured["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    loads = ", ".join(
        f"{history['facts']['load average']:.1f}"
        for history in measured["histories"]
        if "load average" in history["facts"]
    )
    return (
        f"Measured at revision `{about['commit']}` on {about['cores']} cores ({about['processor']}), "
        f"{about['memory'] / 2**30:.0f} GiB, {about['system']}; load average before it began: {about['load']:.1f}"
        f"{f', after each history: {loads}' if loads else ''}. "
        f"{versions}. git behind {measured['front']}, the hub by {measured['web']} of gunicorn. "
        f"{measured['effort']['rounds']} rounds."
    )


def _summary(measured: Mapping[str, Any]) -> str:
    judged = [
        (history["name"], line) for history in measured["histories"] for line in lines(history) if line.met is not None
    ]
    judged += [("from short to long", line) for line in across(measured["histories"]) if line.met is not None]
    missed = [f"- {name}: {line.cells[0]} ({line.cells[-2]})" for name, line in judged if not line.met]
    met = f"{len(judged) - len(missed)} of {len(judged)} targets are met."
    return met if not missed else f"{met} Not met:\n\n" + "\n".join(missed)
