"""The migrations are found where the package was installed, and in a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
UPGRADE = """
import sys
from sqlalchemy import create_engine
import musehub_plugin
from musehub_plugin.store import migrate
engine = create_engine(sys.argv[1])
migrate.upgrade(engine)
print(musehub_plugin.__file__)
print(migrate.script_location())
print(migrate.current(engine) == migrate.head(), migrate.differences(engine))
"""


def upgraded_from(database: Path, cwd: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", UPGRADE, f"sqlite:///{database}"],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what a wheel would install."""
    folder = tmp_path_factory.mktemp("installed")
    steps = ["egg_info", "--egg-base", str(folder), "build_py", "--build-lib", str(folder / "lib")]
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "--quiet", *steps]
    # Warnings of the build are the build's own tests' concern.
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "lib"


def test_an_installed_package_brings_its_migrations(installed: Path, tmp_path: Path) -> None:
    package, location, outcome = upgraded_from(tmp_path / "x.db", tmp_path, PYTHONPATH=str(installed))
    assert Path(package) == installed / "musehub_plugin" / "__init__.py"
    assert Path(location) == installed / "musehub_plugin" / "migrations"
    assert outcome == "True []"


def test_a_checkout_is_its_own_place_of_migrations(tmp_path: Path) -> None:
    package, location, outcome = upgraded_from(tmp_path / "x.db", CHECKOUT)
    assert Path(package) == CHECKOUT / "musehub_plugin" / "__init__.py"
    assert Path(location) == CHECKOUT / "migrations"
    assert outcome == "True []"


def test_an_editable_install_works_from_another_folder(tmp_path: Path) -> None:
    assert upgraded_from(tmp_path / "x.db", tmp_path)[2] == "True []"


def test_a_path_with_a_percent_sign_does_no_harm(installed: Path, tmp_path: Path) -> None:
    odd = tmp_path / "100%s of it"
    odd.symlink_to(installed)
    assert upgraded_from(tmp_path / "x.db", tmp_path, PYTHONPATH=str(odd))[2] == "True []"
