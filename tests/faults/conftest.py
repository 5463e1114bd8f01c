"""The laboratory: servers for the session, a hub for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.laboratory import Laboratory, Servers, running_servers


@pytest.fixture(scope="session")
def fault_servers() -> Iterator[Servers]:
    """Servers of these tests alone, since they stop them."""
    with running_servers() as servers:
        yield servers


@pytest.fixture
def lab(fault_servers: Servers, tmp_path: Path) -> Iterator[Laboratory]:
    """A hub without repos."""
    with ExitStack() as closing:
        yield Laboratory(fault_servers, tmp_path, closing)
