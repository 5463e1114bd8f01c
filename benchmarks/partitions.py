"""Fills the ref tables, parts them as docs/scaling.md says, and prints what that costs and gains.

    python benchmarks/partitions.py [--rows 1000000] [--partitions 16,64,256]

On a PostgreSQL of its own. A row of each table in its bytes, indexes included; how fast rows are moved; and what the
three kinds of statements take that the plugin sends: which of a hundred ids a repo holds, which of them any repo still
holds (garbage collection), and a thousand new rows.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from musehub_plugin.store import migrate
from musehub_plugin.testing.services import fresh_database, libpq_url, postgres_service

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
_REPOS = 1_000
# What a commit of the synthetic history brings: itself, a snapshot, three blobs.
_TABLES = {"musehub_object_ref": ("object_id", 3), "musehub_commit_ref": ("commit_id", 1)}
_TABLES["musehub_snapshot_ref"] = ("snapshot_id", 1)
_REPEATS = 200


def fill(cursor: Any, rows: int) -> None:
    """Write so many rows in all, spread over the repos, most of a repo's side by side as pushes bring them."""
    for table, (column, share) in _TABLES.items():
        cursor.execute(
            f"INSERT INTO {table} ({column}, repo_id) "  # noqa: S608 - our own tables' names
            f"SELECT sha256(('{table}' || n)::bytea), md5((n * {_REPOS} / %(rows)s)::text)::uuid::text "
            "FROM generate_series(1, %(rows)s) AS n",
            {"rows": rows * share // 5},
        )
    cursor.execute("VACUUM ANALYZE")


def script(partitions: int) -> str:
    """Return the page's script for so many partitions."""
    text = _PAGE.read_text(encoding="utf-8")
    found = re.search(r"<!-- file: partitions.sql -->\n```sql\n(.*?)^```", text, re.M | re.S)
    if found is None:
        raise SystemExit(f"{_PAGE.name} has no partitions.sql")
    return found[1].replace("partitions CONSTANT int := 64", f"partitions CONSTANT int := {partitions}")


def measure(cursor: Any, rows: int) -> dict[str, float]:
    """Return milliseconds of the three kinds of statements, and bytes a row of each table."""
    objects = rows * 3 // 5
    found: dict[str, float] = {}

    def hundred(start: int) -> str:
        return f"ARRAY(SELECT sha256(('musehub_object_ref' || n)::bytea) FROM generate_series({start}, {start + 99}) n)"  # noqa: S608 - numbers

    def timed(label: str, statement: Callable[[int], str]) -> None:
        taken = []
        for number in range(_REPEATS):
            text = statement(1 + number * (objects - 1_000) // _REPEATS)
            begun = time.perf_counter()
            cursor.execute(text)
            taken.append(time.perf_counter() - begun)
        found[label] = statistics.median(taken) * 1000

    timed(
        "hundred ids in a repo, ms",
        lambda start: (
            f"SELECT object_id FROM musehub_object_ref WHERE object_id = ANY({hundred(start)}) "  # noqa: S608 - numbers
            f"AND repo_id = '{_repo_of(cursor, start, objects)}'"
        ),
    )
    timed(
        "hundred ids in any repo, ms",
        lambda start: (
            f"SELECT DISTINCT object_id FROM musehub_object_ref WHERE object_id = ANY({hundred(start)})"  # noqa: S608 - same
        ),
    )
    timed(
        "a thousand new rows, ms",
        lambda start: (
            "INSERT INTO musehub_object_ref (object_id, repo_id) "  # noqa: S608 - same
            f"SELECT sha256(('new {start} ' || n)::bytea), 'repo {start}' FROM generate_series(1, 1000) n "
            "ON CONFLICT DO NOTHING"
        ),
    )
    return found


def _repo_of(cursor: Any, number: int, objects: int) -> str:
    cursor.execute("SELECT md5((%s * %s / %s)::text)::uuid::text", (number, _REPOS, objects))
    return str(cursor.fetchone()[0])


def sizes(cursor: Any) -> dict[str, float]:
    """Return the bytes that a row of each table takes, its indexes included."""
    found = {}
    for table in _TABLES:
        cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own tables' names
        rows = cursor.fetchone()[0]
        cursor.execute(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relname ~ %s",
            (rf"^{table}(_\d+)?$",),
        )
        found[f"{table}, B a row"] = float(cursor.fetchone()[0]) / rows
    return found


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the three tables together")
    parser.add_argument("--partitions", default="16,64,256", help="how many to try")
    arguments = parser.parse_args()
    counts = [0, *(int(count) for count in arguments.partitions.split(","))]
    columns: dict[int, dict[str, float]] = {}
    with postgres_service() as service:
        for count in counts:
            with fresh_database(service.url) as url:
                migrate.upgrade(create_engine(url, poolclass=NullPool))
                columns[count] = _column(url, count, arguments.rows)
    print("| | one table | " + " | ".join(f"{count} partitions" for count in counts[1:]) + " |")
    print("| --- " * (len(counts) + 1) + "|")
    for label in columns[counts[-1]]:
        cells = [f"{columns[count][label]:,.2f}" if label in columns[count] else "" for count in counts]
        print(f"| {label} | " + " | ".join(cells) + " |")
    return 0


def _column(url: str, count: int, rows: int) -> dict[str, float]:
    connection = psycopg2.connect(libpq_url(url))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            fill(cursor, rows)
            moved = {}
            if count:
                begun = time.perf_counter()
                cursor.execute(script(count))
                moved["rows moved a second"] = rows / (time.perf_counter() - begun)
                cursor.execute("VACUUM ANALYZE")
            return {**moved, **sizes(cursor), **measure(cursor, rows)}
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
