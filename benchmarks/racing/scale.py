"""What a hub of a million repos needs, reckoned from what one repo was measured to cost: tables for docs/scaling.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.racing.races import BY_URL, HUB

REPOS: Final = 1_000_000
COMMITS: Final = 1_000_000_000
BLOBS: Final = 10_000_000_000
# A month, in dollars: list prices of large clouds, rounded; the ratios between them matter.
_GIB_OBJECTS, _GIB_SSD, _CORE = 0.023, 0.10, 25.0
_GIB = 2**30
# Which of the counts a table grows with; the others stay small.
_GROWS_WITH: Final = {
    "musehub_commit": COMMITS,
    "musehub_commit_graph": COMMITS,
    "musehub_commit_ref": COMMITS,
    "musehub_snapshot": COMMITS,
    "musehub_snapshot_ref": COMMITS,
    "musehub_object": BLOBS,
    "musehub_object_ref": BLOBS,
    "musehub_mpack_index": BLOBS,
}
# At the busiest hour: requests a second, and whose CPU a request costs.
_LOAD: Final = (
    ("asks that find nothing new", 5_000, "nothing new, server's CPU-s each", "hub, fetch"),
    ("fetches that are ready-made", 900, "fetch of 1 commit, ready-made, server's CPU-s each", BY_URL),
    ("fetches made for the first time", 100, "fetch of 1 commit, first time, server's CPU-s each", BY_URL),
    ("clones", 50, "clone, server, CPU-s", HUB),
    ("pushes", 50, "push of 1 commit, server's CPU-s each", HUB),
)

Measured = Mapping[str, Any]


def scaling(measured: Measured) -> str:
    """Return the reckoning as Markdown.

    Raises:
        ValueError: no synthetic history was measured.
    """
    synthetic = [history for history in measured["histories"] if history["synthetic"]]
    if not synthetic:
        raise ValueError("scaling is reckoned from a synthetic history, and none was measured")
    history = max(synthetic, key=lambda each: int(each["commits"]))
    database = _database(history)
    stored = max(_stored_a_blob(each) for each in measured["histories"]) * BLOBS
    cores = sum(rate * cost for _, rate, cost in _costs(history))
    parts = [
        f"Reckoned from the history of {history['name']} on [Performance](performance.md).",
        _rows_table(history, database),
        _load_table(history),
        _cost_table(sum(database.values()), stored, cores),
    ]
    return "\n\n".join(parts)


def _bytes_a_row(history: Measured, table: str) -> float:
    facts = history["facts"]
    return float(facts["tables"].get(table, 0) / max(1, facts["rows"].get(table, 0)))


def _database(history: Measured) -> dict[str, float]:
    found = {table: _bytes_a_row(history, table) * count for table, count in _GROWS_WITH.items()}
    # Packed history for the planner: a few rows a repo, in bytes a commit.
    segments = history["facts"]["tables"].get("musehub_graph_segment", 0)
    found["musehub_graph_segment"] = segments / history["commits"] * COMMITS
    return found


def _rows_table(history: Measured, database: Mapping[str, float]) -> str:
    lines = ["| table | rows | bytes a row, indexes included | in all |", "| --- | --- | --- | --- |"]
    for table, size in sorted(database.items(), key=lambda item: -item[1]):
        count = _GROWS_WITH.get(table)
        each = f"{_bytes_a_row(history, table):,.0f}" if count else ""
        lines.append(f"| `{table}` | {_count(count) if count else ''} | {each} | {_size(size)} |")
    lines.append(f"| **all** | | | **{_size(sum(database.values()))}** |")
    return "\n".join(lines)


def _load_table(history: Measured) -> str:
    lines = ["| at the busiest hour | a second | CPU each | cores |", "| --- | --- | --- | --- |"]
    costs = _costs(history)
    lines += [f"| {label} | {rate:,} | {cost * 1000:,.1f} ms | {rate * cost:,.0f} |" for label, rate, cost in costs]
    total = sum(rate * cost for _, rate, cost in costs)
    lines.append(f"| **all**, of web, workers, PostgreSQL and storage together | | | **{total:,.0f}** |")
    return "\n".join(lines)


def _costs(history: Measured) -> list[tuple[str, int, float]]:
    found = []
    for label, rate, what, who in _LOAD:
        values = history["samples"].get(what, {}).get(who)
        if values:
            found.append((label, rate, statistics.median(values)))
    return found


def _cost_table(database: float, stored: float, cores: float) -> str:
    lines = ["| a month | how much | dollars |", "| --- | --- | --- |"]
    rows = (
        # As much again for growth, and for what an index that is rebuilt takes meanwhile.
        ("SSD for PostgreSQL and one replica, half of it free", 4 * database / _GIB, _GIB_SSD, "GiB"),
        # What a repack replaces stays for the grace period.
        ("object storage, twice what packs hold", 2 * stored / _GIB, _GIB_OBJECTS, "GiB"),
        ("cores, at half their load", 2 * cores, _CORE, "cores"),
    )
    for label, amount, price, unit in rows:
        lines.append(f"| {label} | {amount:,.0f} {unit} | {amount * price:,.0f} |")
    total = sum(amount * price for _, amount, price, _ in rows)
    lines.append(f"| **all**, a repo {total / REPOS * 100:,.1f} cents | | **{total:,.0f}** |")
    return "\n".join(lines)


def _stored_a_blob(history: Measured) -> float:
    facts = history["facts"]
    return float(facts["stored bytes"] / max(1, facts["rows"].get("musehub_object", 0)))


def _count(count: int) -> str:
    return f"{count // 10**9} billion"


def _size(size: float) -> str:
    return f"{size / 1e12:,.2f} TB" if size >= 1e11 else f"{size / 1e9:,.1f} GB"
