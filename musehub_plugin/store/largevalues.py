"""Values of many megabytes, of which a driver makes several copies where it is given them whole.

On PostgreSQL a large object is filled piece by piece; the server makes the value of it, and the object goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import BigInteger, ColumnElement, LargeBinary, bindparam, func, literal, select

from musehub_plugin.store.session import Database

# Bytes that are sent or asked for at once; a value of no more is given whole.
PIECE = 1 << 20


@contextmanager
def large_value(db: Database, size: int, read: Callable[[int, int], bytes]) -> Iterator[ColumnElement[bytes]]:
    """Give a value for a statement, which is to be run before the end of the block.

    Args:
        db: the unit of work, which is to be committed or rolled back: a large object that is left over would stay.
        size: bytes of the value.
        read: returns some of the bytes, from a place on.
    """
    if size <= PIECE or db.dialect != "postgresql":
        yield literal(read(0, size), LargeBinary())
        return
    made = db.execute(select(func.lo_from_bytea(0, literal(b"", LargeBinary()), type_=BigInteger))).scalar_one()
    put = select(func.lo_put(made, bindparam("place", type_=BigInteger), bindparam("piece", type_=LargeBinary)))
    for place in range(0, size, PIECE):
        db.execute(put, {"place": place, "piece": read(place, PIECE)}).close()
    yield func.lo_get(made, type_=LargeBinary)
    db.execute(select(func.lo_unlink(made))).close()
