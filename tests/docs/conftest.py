"""An environment with the wheel for all pages."""

from __future__ import annotations

import pytest

from tests.packaging.environments import Environment, build


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    wheel = build(tmp_path_factory.mktemp("distributions"))["wheel"]
    return Environment(tmp_path_factory.mktemp("environment") / "venv", [str(wheel)], "testing")
