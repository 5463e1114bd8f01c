"""The figures of docs/performance.md, as SVG."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.racing.races import BY_URL, GIT_PLAIN, GIT_TUNED, HUB, INLINE, THIN

_COLOURS = ("#9aa5b1", "#52606d", "#2f7ed8", "#1aadce", "#0d9488")
_CLONE = "clone, whole, s"
_FETCH = "fetch of 1 commit"

Bars = Mapping[str, Sequence[float | None]]


def draw(measured: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every figure that there are samples for, and return the files.

    Raises:
        ImportError: matplotlib is not installed (the extra `bench`).
    """
    histories = measured["histories"]
    names = [history["name"] for history in histories]
    clones = {who: [_median(history, _CLONE, who) for history in histories] for who in (GIT_PLAIN, GIT_TUNED, HUB)}
    sizes = {who: [_median(history, "clone, B", who) for history in histories] for who in (GIT_PLAIN, HUB)}
    best = [float(history["facts"]["git packs"]["best"]) for history in histories]
    rates: dict[str, Sequence[float | None]] = {
        who: [_median(history, f"{_FETCH}, 1/s", who) for history in histories] for who in (GIT_PLAIN, GIT_TUNED)
    }
    for who in (BY_URL, INLINE, THIN):
        rates[f"{who}, first time"] = [_median(history, f"{_FETCH}, first time, 1/s", who) for history in histories]
    rates["hub, ready-made"] = [_median(history, f"{_FETCH}, ready-made, 1/s", BY_URL) for history in histories]
    figures = {
        "performance-clone.svg": ("A whole bare clone, seconds", names, clones, GIT_TUNED),
        "performance-bytes.svg": (
            "A clone's bytes, MiB",
            names,
            _in_mib({**sizes, "git repack -adf": best}),
            GIT_PLAIN,
        ),
        "performance-fetch.svg": ("Fetches of one commit a second, 8 clients", names, rates, GIT_PLAIN),
    }
    return [_bars(folder / name, *figure) for name, figure in figures.items()]


def _bars(path: Path, title: str, names: Sequence[str], series: Bars, unit: str) -> Path:
    """Draw a bar for each value, as long as its ratio to the same history's value of `unit`, and write the value."""
    # Not at the top: only those who write the page need it.
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    # The same samples give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "musehub", "svg.fonttype": "none", "font.size": 9})
    pyplot: Any = import_module("matplotlib.pyplot")
    shown = {label: values for label, values in series.items() if any(value is not None for value in values)}
    figure, axes = pyplot.subplots(figsize=(7.5, 0.9 + 0.22 * (len(shown) + 1) * len(names)))
    step = 0.8 / len(shown)
    for number, (label, values) in enumerate(shown.items()):
        places = [row + number * step for row in range(len(names))]
        widths = [(value or 0.0) / (base or 1.0) for value, base in zip(values, series[unit], strict=True)]
        bars = axes.barh(places, widths, step * 0.9, label=label, color=_COLOURS[number % len(_COLOURS)])
        axes.bar_label(bars, labels=["" if value is None else f"{value:,.3g}" for value in values], padding=2)
    axes.set_yticks([row + 0.4 - step / 2 for row in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_title(title, loc="left")
    axes.set_xlabel(f"times {unit}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    # It leaves spaces at the ends of lines.
    text = path.read_text(encoding="utf-8")
    path.write_text("".join(f"{line.rstrip()}\n" for line in text.splitlines()), encoding="utf-8")
    return path


def _in_mib(series: Bars) -> Bars:
    return {
        label: [None if value is None else value / (1 << 20) for value in values] for label, values in series.items()
    }


def _median(history: Mapping[str, Any], what: str, who: str) -> float | None:
    values = history["samples"].get(what, {}).get(who)
    return statistics.median(values) if values else None
