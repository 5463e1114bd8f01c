"""What was measured as Markdown tables: medians, how far samples spread, and each ratio beside its target."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.racing.races import BY_COMMAND, BY_URL, GIT_PLAIN, GIT_TUNED, HUB, INLINE, THIN

_KIB: Final = 1024
_GITS: Final = (GIT_PLAIN, GIT_TUNED)
_DATABASE_TARGET: Final = 1_500
_MEMORY_TARGET: Final = 150 * _KIB**2
_METADATA_TARGET: Final = 0.25
_FLAT_CLONE: Final = 1.5
_FLAT_FETCH: Final = 1.2

Measured = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One line of a history's table.

    Attributes:
        label: what the reader sees.
        what: the name of git's samples; its end says the unit.
        who: which of the hub's contestants.
        whats: the name of the hub's samples, where it is another one.
        against: which git the ratio is to; None: whichever is better.
        target: the bound of the ratio; None: there is none.
        applies: for which histories there is a target.
    """

    label: str
    what: str
    who: str = HUB
    whats: str | None = None
    against: str | None = GIT_TUNED
    target: float | None = None
    applies: Callable[[Measured], bool] = lambda history: True

    @property
    def more_is_better(self) -> bool:
        """Whether a ratio above the target meets it."""
        return self.what.endswith("1/s")


def _large(history: Measured) -> bool:
    return bool(history["commits"] >= 5_000)


def _small(history: Measured) -> bool:
    return not _large(history)


def _real(history: Measured) -> bool:
    return not history["synthetic"]


_FIRST, _READY = "fetch of 1 commit, first time", "fetch of 1 commit, ready-made"
_CLONE, _FETCH, _HUNDRED, _NOTHING = "clone", "fetch of 1 commit", "fetch of 100 commits", "nothing new"
_PACKING: Final = "pack from scratch"
_CPU: Final = "server's CPU-s each"
COMPARISONS: Final = (
    Comparison("clone, until the answer is there", f"{_CLONE}, server side, s", target=0.25, applies=_large),
    Comparison("clone, answer and download", f"{_CLONE}, server side, s", whats=f"{_CLONE}, downloaded, s"),
    Comparison("clone, the first one after the push", f"{_CLONE}, server side, s", whats=f"{_CLONE}, first answer, s"),
    Comparison("clone, whole", f"{_CLONE}, whole, s", target=0.5, applies=_large),
    Comparison("clone, whole", f"{_CLONE}, whole, s", target=1.0, applies=_small),
    Comparison("clone, CPU of the client", f"{_CLONE}, client, CPU-s"),
    Comparison("clone, CPU of the servers", f"{_CLONE}, server, CPU-s"),
    Comparison("clone, memory of the client", f"{_CLONE}, client's memory, B"),
    Comparison("clone, bytes", f"{_CLONE}, B", against=GIT_PLAIN, target=0.5, applies=_real),
    Comparison("pack everything anew, by the worker", f"{_PACKING}, s", against=GIT_PLAIN, target=0.5),
    Comparison("pack everything anew, by the worker, CPU", f"{_PACKING}, CPU-s", against=GIT_PLAIN),
    Comparison("pack everything anew, by a command, start included", f"{_PACKING}, s", BY_COMMAND, against=GIT_PLAIN),
    Comparison("pack everything anew, by a command, CPU", f"{_PACKING}, CPU-s", BY_COMMAND, against=GIT_PLAIN),
    Comparison("1 commit, first time, URL", f"{_FETCH}, s", BY_URL, f"{_FIRST}, s", None),
    Comparison("1 commit, first time, URL, 8 clients", f"{_FETCH}, 1/s", BY_URL, f"{_FIRST}, 1/s", None, 1.0),
    Comparison("1 commit, first time, inline, 8 clients", f"{_FETCH}, 1/s", INLINE, f"{_FIRST}, 1/s", None, 2.0),
    Comparison("1 commit, first time, thin, 8 clients", f"{_FETCH}, 1/s", THIN, f"{_FIRST}, 1/s", None),
    Comparison("1 commit, first time, URL, CPU of the servers", f"{_FETCH}, {_CPU}", BY_URL, f"{_FIRST}, {_CPU}", None),
    Comparison(
        "1 commit, first time, inline, CPU of the servers", f"{_FETCH}, {_CPU}", INLINE, f"{_FIRST}, {_CPU}", None
    ),
    Comparison("1 commit, first time, thin, CPU of the servers", f"{_FETCH}, {_CPU}", THIN, f"{_FIRST}, {_CPU}", None),
    Comparison("1 commit, ready-made, URL, CPU of the servers", f"{_FETCH}, {_CPU}", BY_URL, f"{_READY}, {_CPU}", None),
    Comparison("1 commit, bytes on the wire, by URL", f"{_FETCH}, B", BY_URL, against=None),
    Comparison("1 commit, bytes on the wire, thin", f"{_FETCH}, B", THIN, against=None),
    Comparison("1 commit, the pack itself", f"{_FETCH}, pack, B", BY_URL, against=None),
    Comparison("1 commit, the thin pack itself", f"{_FETCH}, pack, B", THIN, against=None, target=1.0),
    Comparison("1 commit, ready-made, URL, 8 clients", f"{_FETCH}, 1/s", BY_URL, f"{_READY}, 1/s", None, 5.0),
    Comparison("1 commit, ready-made, inline, 8 clients", f"{_FETCH}, 1/s", INLINE, f"{_READY}, 1/s", None, 5.0),
    Comparison(
        "1 commit, ready-made, and downloaded, 8 clients",
        f"{_FETCH}, 1/s",
        BY_URL,
        f"{_READY} and downloaded, 1/s",
        None,
    ),
    Comparison("100 commits, first time, URL", f"{_HUNDRED}, s", BY_URL, against=GIT_PLAIN, target=1.0),
    Comparison("100 commits, first time, URL", f"{_HUNDRED}, s", BY_URL, target=2.0),
    Comparison("100 commits, first time, inline", f"{_HUNDRED}, s", INLINE, against=GIT_PLAIN, target=1.0),
    Comparison("100 commits, first time, inline", f"{_HUNDRED}, s", INLINE, target=2.0),
    Comparison("100 commits, first time, thin", f"{_HUNDRED}, s", THIN),
    Comparison("100 commits, the pack itself", f"{_HUNDRED}, pack, B", BY_URL, against=None),
    Comparison("100 commits, the thin pack itself", f"{_HUNDRED}, pack, B", THIN, against=None, target=1.0),
    Comparison("nothing new, fetch", f"{_NOTHING}, s", "hub, fetch", against=None),
    Comparison("nothing new, fetch, 8 clients", f"{_NOTHING}, 1/s", "hub, fetch", against=None, target=3.5),
    Comparison("nothing new, fetch, CPU of the servers", f"{_NOTHING}, {_CPU}", "hub, fetch", against=None),
    Comparison("nothing new, refs, 8 clients", f"{_NOTHING}, 1/s", "hub, refs", against=None),
    Comparison("nothing new, refs unchanged, 8 clients", f"{_NOTHING}, 1/s", "hub, refs unchanged", against=None),
)


@dataclass(frozen=True)
class Line:
    """A line of a table: cells, and whether the target was met; None where there is none."""

    cells: Sequence[str]
    met: bool | None


def lines(history: Measured) -> list[Line]:
    """Return the comparisons of a history that there are samples for, and what is measured of the hub alone."""
    found = [line for each in COMPARISONS if (line := _compared(history, each)) is not None]
    return [*found, *_own(history)]


def across(histories: Sequence[Measured]) -> list[Line]:
    """Return what has to stay the same from the shortest synthetic history to the longest."""
    synthetic = [history for history in histories if history["synthetic"]]
    out = []
    for label, what, who, bound in (
        ("clone, until the answer is there", f"{_CLONE}, server side, s", HUB, _FLAT_CLONE),
        ("1 commit, first time, URL, 8 clients", f"{_FIRST}, 1/s", BY_URL, _FLAT_FETCH),
        ("1 commit, first time, inline, 8 clients", f"{_FIRST}, 1/s", INLINE, _FLAT_FETCH),
    ):
        middles = [(history["name"], middle) for history in synthetic if (middle := _median(history, what, who))]
        if len(middles) > 1:
            ratio = max(value for _, value in middles) / min(value for _, value in middles)
            shown = ", ".join(f"{name}: {_shown(value, what)}" for name, value in middles)
            out.append(Line((label, shown, f"{ratio:.2f}", f"at most {bound}", _yes(ratio <= bound)), ratio <= bound))
    return out


def table(measured: Measured) -> str:
    """Return everything as Markdown, a section for each history."""
    parts = []
    for history in measured["histories"]:
        head = (
            "| | git plain | git tuned | hub | hub / git | target | met |\n| --- | --- | --- | --- | --- | --- | --- |"
        )
        body = "\n".join("| " + " | ".join(line.cells) + " |" for line in lines(history))
        parts.append(f"### {history['name']}\n\n{head}\n{body}")
    if flat := across(measured["histories"]):
        body = "\n".join("| " + " | ".join(line.cells) + " |" for line in flat)
        parts.append(
            "### From short to long\n\n| | medians | largest / smallest | target | met |\n"
            f"| --- | --- | --- | --- | --- |\n{body}"
        )
    return "\n\n".join([*parts, database(measured)])


def database(measured: Measured) -> str:
    """Return what a commit costs in each table, on the longest synthetic history, as Markdown; empty without one."""
    synthetic = [history for history in measured["histories"] if history["synthetic"]]
    if not synthetic:
        return ""
    history = max(synthetic, key=lambda each: int(each["commits"]))
    commits, rows = history["commits"], history["facts"]["rows"]
    body = [
        f"| `{name}` | {rows.get(name, 0) / commits:,.2f} | {size / max(1, rows.get(name, 0)):,.0f} "
        f"| {size / commits:,.0f} |"
        for name, size in history["facts"]["tables"].items()
        # What has a few pages whatever the history's length says nothing.
        if size / commits >= 1
    ]
    head = "| | rows a commit | bytes a row, indexes included | bytes a commit |\n| --- | --- | --- | --- |"
    return f"### The database after {history['name']}\n\n{head}\n" + "\n".join(body)


def _compared(history: Measured, each: Comparison) -> Line | None:
    ours = _median(history, each.whats or each.what, each.who)
    gits = {who: value for who in _GITS if (value := _median(history, each.what, who)) is not None}
    if ours is None or not gits:
        return None
    best = max if each.more_is_better else min
    base = gits.get(each.against) if each.against else best(gits.values())
    if not base:
        return None
    ratio = ours / base
    target, met = "", None
    if each.target is not None and not each.applies(history):
        # Another line of the same name has the target, or none is set.
        if any(other is not each and other.label == each.label and other.applies(history) for other in COMPARISONS):
            return None
    elif each.target is not None:
        met = ratio >= each.target if each.more_is_better else ratio < each.target
        target = f"{'at least' if each.more_is_better else 'under'} {each.target:g} of {each.against or 'the better'}"
    cells = [each.label, *(_cell(history, each.what, who) for who in _GITS)]
    cells += [_cell(history, each.whats or each.what, each.who), f"{ratio:.2f}", target, _yes(met)]
    return Line(cells, met)


def _own(history: Measured) -> list[Line]:
    """Return what is measured of the hub against a fixed bound or against another figure than git's samples."""
    facts, commits = history["facts"], history["commits"]
    out = []
    whole, packs = _median(history, f"{_CLONE}, B", HUB), facts["git packs"]
    if whole is not None:
        sizes = f"{packs['best']:,}", f"{int(whole):,}"
        met = whole / packs["best"] < 0.8 if _real(history) else None
        out.append(_line("clone, bytes, to `git repack -adf`", *sizes, whole / packs["best"], "under 0.8", met))
    if "metadata" in facts:
        share = facts["metadata"]
        met = share < _METADATA_TARGET if _real(history) else None
        out.append(_line("clone, metadata's part of it", "", "", share, "under 0.25", met))
    ceiling = _median(history, "ceiling, 1/s", "a Flask POST")
    nothing = _median(history, f"{_NOTHING}, 1/s", "hub, fetch")
    if ceiling and nothing:
        ratio = nothing / ceiling
        shown = f"a Flask POST: {ceiling:,.0f} /s", f"{nothing:,.0f} /s"
        out.append(_line("nothing new, to the ceiling", *shown, ratio, "at least 0.5", ratio >= 0.5))
    pushed, cost = (_median(history, f"push of 1 commit, {unit}", HUB) for unit in ("s", "server's CPU-s each"))
    if pushed and cost:
        took = f"{_shown(pushed, 's')}, {_shown(cost, 'CPU-s')}"
        out.append(_line("push of 1 commit, until acknowledged", "", took, None, "", None))
    size = sum(size for name, size in facts["tables"].items() if name != "musehub_alembic_version")
    met = size / commits < _DATABASE_TARGET if history["synthetic"] else None
    out.append(
        _line("database, bytes a commit", "", f"{size / commits:,.0f}", None, f"under {_DATABASE_TARGET:,}", met)
    )
    out.append(_line("storage, bytes a commit", "", f"{facts['stored bytes'] / commits:,.0f}", None, "", None))
    web = facts["web's memory"]
    where = max(web, key=lambda name: web[name])
    worker_idle = facts.get("worker's idle memory", facts["idle memory"])
    for label, over in (
        (f"web, memory over idle ({where})", web[where] - facts["idle memory"]),
        ("worker, memory over idle", max(facts["worker's memory"].values()) - worker_idle),
    ):
        met = over < _MEMORY_TARGET
        out.append(_line(label, "", f"{over / _KIB**2:,.0f} MiB", None, "under 150 MiB", met))
    return out


def _line(label: str, other: str, ours: str, ratio: float | None, target: str, met: bool | None) -> Line:
    shown = "" if ratio is None else f"{ratio:.2f}"
    return Line((label, other, "", ours, shown, target if met is not None else "", _yes(met)), met)


def _cell(history: Measured, what: str, who: str) -> str:
    values = history["samples"].get(what, {}).get(who)
    if not values:
        return ""
    low, high = _quartiles(values)
    shown = [_shown(value, what) for value in (statistics.median(values), low, high)]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1].partition(' ')[0]} - {shown[2]})"


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the bounds of the middle half of the samples."""
    if len(values) < 4:
        return min(values), max(values)
    quarters = statistics.quantiles(values, n=4, method="inclusive")
    return quarters[0], quarters[2]


def _shown(value: float, what: str) -> str:
    if what.endswith("1/s"):
        return f"{value:,.0f} /s"
    if what.endswith(" B"):
        return f"{value / _KIB**2:,.1f} MiB" if value >= 10 * _KIB**2 else f"{value:,.0f} B"
    unit = " CPU" if "CPU-s" in what else ""
    return f"{value:,.2f} s{unit}" if value >= 1 else f"{value * 1000:,.1f} ms{unit}"


def _yes(met: bool | None) -> str:
    return "" if met is None else "yes" if met else "**no**"


def _median(history: Measured, what: str, who: str) -> float | None:
    values = history["samples"].get(what, {}).get(who)
    return statistics.median(values) if values else None
