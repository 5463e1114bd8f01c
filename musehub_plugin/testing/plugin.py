"""pytest plugin of musehub-plugin: fixtures for tests of a hub, all named `musehub_...`.

It is imported in every pytest run of the environment, so it imports nothing heavy and starts nothing: each
fixture imports and starts what it needs once a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from musehub_plugin.storage.memory import MemoryStorage


@pytest.fixture(scope="session")
def musehub_postgres_url() -> Iterator[str]:
    """URL of an empty PostgreSQL database; each process of a test run has its own."""
    from musehub_plugin.testing import services

    with services.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def musehub_redis_url() -> Iterator[str]:
    """URL of an empty Redis database; each process of a test run has its own."""
    from musehub_plugin.testing import services

    with services.redis() as url:
        yield url


@pytest.fixture(scope="session")
def musehub_s3_url() -> Iterator[str]:
    """URL of an S3 bucket or prefix; `musehub_plugin.testing.services.s3_config` makes settings of it."""
    from musehub_plugin.testing import services

    with services.s3() as url:
        yield url


@pytest.fixture
def musehub_storage() -> MemoryStorage:
    """Object storage in memory, empty."""
    from musehub_plugin.storage.memory import MemoryStorage

    return MemoryStorage()
