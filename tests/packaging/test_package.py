"""What is in the wheel and the sdist, and that both work away from the checkout."""

from __future__ import annotations

import configparser
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from musehub_plugin import __version__
from tests.docs.pages import run_page
from tests.packaging.environments import CHECKOUT, Environment, copy_of_checkout, is_online

# `importlib.resources` finds the files where the spec of the package says, mapped folder or not.
FIND_MIGRATIONS = (
    "from importlib.resources import files; import musehub_plugin;"
    "found = files('musehub_plugin.migrations'); assert (found / 'env.py').is_file(), found;"
    "assert (found / 'script.py.mako').is_file(); print(musehub_plugin.__file__)"
)


def files_of(folder: Path, *patterns: str) -> set[str]:
    found = (path for pattern in patterns for path in folder.rglob(pattern))
    return {path.relative_to(folder).as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def metadata(distributions: dict[str, Path]) -> Message:
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_holds_the_package_the_migrations_and_nothing_else(distributions: dict[str, Path]) -> None:
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {f"musehub_plugin/{name}" for name in files_of(CHECKOUT / "musehub_plugin", "*.py", "py.typed")}
    migrations = {
        f"musehub_plugin/migrations/{name}" for name in files_of(CHECKOUT / "migrations", "*.py", "script.py.mako")
    }
    assert packed == package | migrations


@pytest.mark.parametrize(
    "name",
    ["CHANGELOG.md", "LICENSE", "Makefile", "README.md", "docs/index.md", "examples/forge/templates/repo.html",
     "migrations/env.py", "mkdocs.yml", "pyproject.toml", "setup.cfg", "tests/packaging/conftest.py"],
)  # fmt: skip
def test_the_sdist_holds_what_tests_and_docs_need(distributions: dict[str, Path], name: str) -> None:
    with tarfile.open(distributions["sdist"]) as sdist:
        assert f"musehub_plugin-{__version__}/{name}" in sdist.getnames()


def test_the_sdist_holds_nothing_that_was_built_or_installed(distributions: dict[str, Path]) -> None:
    with tarfile.open(distributions["sdist"]) as sdist:
        parts = {part for name in sdist.getnames() for part in name.split("/")}
    assert parts & {".venv", "__pycache__", ".demo", "site", "build", ".mypy_cache"} == set()


def test_the_metadata_says_version_python_and_license(metadata: Message) -> None:
    said = [metadata[name] for name in ("Version", "Requires-Python", "License")]
    assert said == [__version__, ">=3.11", "MIT"]


def test_no_dependency_has_an_upper_bound(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist") or []
    assert [line for line in required if "<" in line.split(";")[0] or "==" in line.split(";")[0]] == []


def test_every_entry_point_leads_somewhere(distributions: dict[str, Path]) -> None:
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        points = configparser.ConfigParser()
        points.read_string(wheel.read(name).decode())
        packed = wheel.namelist()
    targets = {group: dict(points[group]) for group in points.sections()}
    assert set(targets) == {"console_scripts", "flask.commands", "pytest11"}
    for target in (target for group in targets.values() for target in group.values()):
        module = target.partition(":")[0].replace(".", "/")
        assert f"{module}.py" in packed or f"{module}/__init__.py" in packed


def test_the_installed_package_is_its_own(environment: Environment, tmp_path: Path) -> None:
    where = environment.run("-c", FIND_MIGRATIONS, cwd=tmp_path).strip()
    assert Path(where).is_relative_to(environment.bin.parent)


def test_a_host_of_ten_lines_takes_a_push_and_answers_a_fetch(environment: Environment, tmp_path: Path) -> None:
    run_page(CHECKOUT / "docs" / "first-host.md", tmp_path / "page", environment.path)


def test_the_client_works_where_it_is_installed(environment: Environment, tmp_path: Path) -> None:
    command = "from musehub_plugin.client.command import main; main()"
    assert environment.run("-c", command, "--version", cwd=tmp_path).strip() == f"musehub, version {__version__}"


def test_run_from_the_checkout_an_installed_package_finds_its_migrations(environment: Environment) -> None:
    # Python puts the current folder first: the package is the checkout's then, and has no migrations in it.
    find = "from musehub_plugin.store.migrate import script_location; print(script_location())"
    assert Path(environment.run("-c", find, cwd=CHECKOUT).strip(), "env.py").is_file()


@pytest.mark.skipif(is_online(), reason="make package tries what is published, and that is no checkout")
def test_an_editable_install_finds_its_migrations(tmp_path: Path) -> None:
    source = copy_of_checkout(tmp_path / "checkout")
    editable = Environment(tmp_path / "venv", ["--editable", str(source)])
    assert Path(editable.run("-c", FIND_MIGRATIONS, cwd=tmp_path).strip()).is_relative_to(source)
