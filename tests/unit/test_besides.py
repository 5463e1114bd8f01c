"""A part of a pack that another process writes, and what becomes of that process."""

from __future__ import annotations

import os
import sys
from typing import IO

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from musehub_plugin import besides
from musehub_plugin.besides import PartBeside
from musehub_plugin.store.session import Database

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes fork on Linux alone")


class LeaseLost(Exception):
    """What whoever keeps a lease raises where the database is away."""


def test_a_process_ends_where_whoever_waits_for_it_cannot_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(besides, "_ALIVE_EVERY", 0.01)
    taken, giving = os.pipe()

    def write(_: Database, __: IO[bytes]) -> None:
        os.read(taken, 1)

    def alive() -> None:
        raise LeaseLost

    with Session(create_engine("sqlite://")) as session:
        with pytest.raises(LeaseLost), PartBeside(Database(session), write, {taken}) as part:
            part.finished(alive)
        os.close(taken)
        # Nobody has the other end any more.
        with pytest.raises(BrokenPipeError):
            os.write(giving, b"go on")
    os.close(giving)
