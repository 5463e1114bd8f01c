"""One build and one environment a kind for all tests of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.environments import Environment, build


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("distributions"))


@pytest.fixture(scope="session", params=["wheel", "sdist"])
def environment(
    request: pytest.FixtureRequest, distributions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    folder = tmp_path_factory.mktemp("environment") / "a venv"
    return Environment(folder, [str(distributions[request.param])])
