"""What is known of many objects by their names, in bounded memory: a table of SQLite in a file that has no name."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_CACHE_KIB: Final = 8 << 10
_PLACE: Final = """
INSERT INTO objects (name, path, sequence) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE
SET path = excluded.path, sequence = excluded.sequence
WHERE objects.path IS NULL OR (excluded.path, excluded.sequence) < (objects.path, objects.sequence)
"""
_BECAME: Final = (
    "INSERT INTO objects (name, digest) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET digest = excluded.digest"
)


class ScratchTable:
    """Objects by name, each with the place where it sorts first, and a digest; used as a context manager, or closed.

    Args:
        path: where its file is made, which nobody finds there.

    Raises:
        OSError: there is no room for it, as any of its methods may raise.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = sqlite3.connect(path, isolation_level=None)
        # It is nobody's else, and ends with the process: nothing need be safe on the disk.
        for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE", f"cache_size = -{_CACHE_KIB}"):
            self._run(f"PRAGMA {setting}")
        self._run("BEGIN")
        self._run(
            "CREATE TABLE objects (name BLOB PRIMARY KEY, path TEXT, sequence INTEGER, digest BLOB) WITHOUT ROWID"
        )
        path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._database.close()

    def __len__(self) -> int:
        return int(self._run("SELECT count(*) FROM objects").fetchone()[0])

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the names; nothing may be added meanwhile."""
        for (name,) in self._run("SELECT name FROM objects"):
            yield name

    def place(self, places: Iterable[tuple[bytes, str, int]]) -> None:
        """Note places where objects are: name, path, and a number that grows with history. The first one counts."""
        self._run_many(_PLACE, places)

    def drop(self, names: Set[bytes]) -> None:
        """Forget objects; those that are not there do no harm."""
        gone = names if len(names) < len(self) else [name for name in self if name in names]
        self._run_many("DELETE FROM objects WHERE name = ?", [(name,) for name in gone])

    def in_order(self) -> Iterator[bytes]:
        """Yield the names of objects that have places, in the order of `solid_order`."""
        for (name,) in self._run("SELECT name FROM objects WHERE path IS NOT NULL ORDER BY path, sequence, name"):
            yield name

    def set_digests(self, digests: Iterable[tuple[bytes, bytes]]) -> None:
        """Note objects' digests, by name."""
        self._run_many(_BECAME, digests)

    def digest(self, name: bytes) -> bytes | None:
        """Return an object's digest; None where none was noted."""
        found = self._run("SELECT digest FROM objects WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def _run(self, statement: str, parameters: tuple[bytes, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, parameters)
        except sqlite3.OperationalError as error:
            raise self._failure(error) from None

    def _run_many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        try:
            self._database.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            raise self._failure(error) from None

    def _failure(self, error: sqlite3.OperationalError) -> OSError:
        # As any other file that is written beside it would fail.
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return OSError(errno.EIO, str(error), str(self._path))
