"""`flask musehub ...` as an operator runs it: what it says, and its exit codes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from musehub_plugin.cli import musehub
from musehub_plugin.errors import ConfigError
from musehub_plugin.store import migrate
from tests.integration.cli.conftest import Done, RunFlask

CHECKOUT = Path(__file__).parents[3]
HEAD = str(migrate.head())


def one_line(done: Done) -> str:
    """Return the one line that a failed command says why in."""
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_help_names_the_commands(flask_process: RunFlask) -> None:
    done = flask_process("musehub", "--help")
    assert done.returncode == 0
    assert {"db", "doctor", "repo", "worker"} <= set(done.stdout.split())


def test_the_tables_go_up_and_down_by_command(flask: RunFlask) -> None:
    answers = [
        flask("musehub", "db", *arguments.split()).stdout.strip()
        for arguments in ("current", "upgrade", "current", "check", "downgrade base", "current")
    ]
    assert answers == [
        f"none (newest: {HEAD})",
        f"The plugin's tables are at revision {HEAD}.",
        f"{HEAD} (newest: {HEAD})",
        "The tables are as the models say.",
        "The plugin's tables are at revision base (none).",
        f"none (newest: {HEAD})",
    ]


def test_check_before_upgrade_says_what_to_do(flask: RunFlask) -> None:
    assert "flask musehub db upgrade" in one_line(flask("musehub", "db", "check"))


def test_stamp_records_without_making_tables(flask: RunFlask) -> None:
    assert flask("musehub", "db", "stamp").stdout == "Stamped as head.\n"
    assert flask("musehub", "db", "current").stdout == f"{HEAD} (newest: {HEAD})\n"


def test_an_unknown_revision_is_one_line(flask: RunFlask) -> None:
    assert "9999" in one_line(flask("musehub", "db", "upgrade", "9999"))


def test_the_commands_work_from_a_checkout_s_root(flask_process: RunFlask) -> None:
    done = flask_process("musehub", "db", "upgrade", cwd=CHECKOUT)
    assert (done.returncode, done.stdout) == (0, f"The plugin's tables are at revision {HEAD}.\n"), done.stderr


def test_a_database_that_is_away_is_one_line_without_its_password(flask: RunFlask) -> None:
    url = "postgresql+psycopg2://musehub:canary@127.0.0.1:1/musehub"
    line = one_line(flask("musehub", "db", "upgrade", SQLALCHEMY_DATABASE_URI=url))
    assert "canary" not in line


@pytest.fixture
def migrated(flask: RunFlask) -> RunFlask:
    """Runs `flask` on the host, whose tables are made."""
    assert flask("musehub", "db", "upgrade").returncode == 0
    return flask


def test_a_repo_is_created_once(migrated: RunFlask) -> None:
    command = ("musehub", "repo", "create", "alice/songs", "--user-id", "1")
    first, second = migrated(*command, "--public"), migrated(*command)
    assert first.stdout.startswith("Created alice/songs (public), repo_id ")
    assert one_line(second) == "Error: alice/songs exists."


def test_a_repo_is_private_where_nothing_else_is_said(migrated: RunFlask) -> None:
    assert "(private)" in migrated("musehub", "repo", "create", "alice/songs", "--user-id", "1").stdout


def test_a_repo_that_is_deleted_frees_its_name(migrated: RunFlask) -> None:
    command = ("musehub", "repo", "create", "alice/songs", "--user-id", "1")
    migrated(*command)
    assert migrated("musehub", "repo", "delete", "alice/songs").stdout.startswith("Deleted alice/songs")
    assert migrated(*command).returncode == 0


def test_a_repo_that_is_not_there_cannot_be_deleted(migrated: RunFlask) -> None:
    assert one_line(migrated("musehub", "repo", "delete", "alice/songs")) == "Error: there is no repo alice/songs."


@pytest.mark.parametrize("name", ["alice", "/songs", "alice/", "a/b/c", "alice/..", " /x"])
def test_a_repo_s_bad_name_is_wrong_usage(flask: RunFlask, name: str) -> None:
    done = flask("musehub", "repo", "create", name, "--user-id", "1")
    assert done.returncode == 2
    assert "OWNER/SLUG" in done.stderr


@pytest.mark.parametrize("command", ["repo delete", "repack", "verify"])
def test_a_bad_name_of_a_repo_that_should_be_there_is_wrong_usage(migrated: RunFlask, command: str) -> None:
    done = migrated("musehub", *command.split(), "alice")
    assert (done.returncode, "OWNER/SLUG" in done.stderr) == (2, True)


def test_what_was_deleted_comes_as_json(migrated: RunFlask) -> None:
    migrated("musehub", "repo", "create", "alice/songs", "--user-id", "1")
    done = migrated("musehub", "repo", "delete", "alice/songs", "--json")
    assert json.loads(done.stdout)["name"] == "alice/songs"


def test_a_repo_of_nobody_is_wrong_usage(migrated: RunFlask) -> None:
    done = migrated("musehub", "repo", "create", "alice/songs", "--user-id", "")
    assert (done.returncode, "--user-id is empty" in done.stderr) == (2, True)


def test_a_new_repo_s_id_comes_as_json(migrated: RunFlask) -> None:
    done = migrated("musehub", "repo", "create", "alice/songs", "--user-id", "1", "--json")
    made = json.loads(done.stdout)
    assert len(made.pop("repo_id")) == 36
    assert made == {"name": "alice/songs", "visibility": "private", "default_branch": "main"}


def test_a_bad_default_branch_is_wrong_usage(flask: RunFlask) -> None:
    done = flask("musehub", "repo", "create", "a/b", "--user-id", "1", "--default-branch", "a..b")
    assert done.returncode == 2
    assert "a..b" in done.stderr


def test_a_repo_before_the_tables_are_made_is_one_line(flask: RunFlask) -> None:
    line = one_line(flask("musehub", "repo", "create", "alice/songs", "--user-id", "1"))
    assert "flask musehub db upgrade" in line


def test_a_worker_without_redis_says_that_none_is_needed(flask: RunFlask) -> None:
    assert "MUSEHUB_REDIS_URL is not set" in one_line(flask("musehub", "worker"))


def test_a_worker_whose_redis_is_away_says_so_in_one_line(migrated: RunFlask) -> None:
    line = one_line(migrated("musehub", "worker", "--burst", MUSEHUB_REDIS_URL="redis://:canary@127.0.0.1:1/0"))
    assert "Redis" in line
    assert "canary" not in line


def test_r31_gc_takes_no_grace_that_urls_outlive(migrated: RunFlask) -> None:
    done = migrated("musehub", "gc", "--grace", "3600")
    assert (done.returncode, "--grace must be at least 3601" in done.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [("--grace", "3601"), ("--grace", "1", "--dry-run")])
def test_gc_takes_a_grace_that_does_no_harm(migrated: RunFlask, arguments: tuple[str, ...]) -> None:
    assert migrated("musehub", "gc", *arguments).returncode == 0


def test_doctor_finds_a_new_hub_well_with_warnings(migrated: RunFlask) -> None:
    done = migrated("musehub", "doctor")
    assert done.returncode == 0, done.stdout
    assert {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()}["urls"] == "warning"


def test_doctor_says_which_command_makes_the_tables(flask: RunFlask) -> None:
    done = flask("musehub", "doctor")
    assert done.returncode == 1
    assert "flask musehub db upgrade" in done.stdout


def rolled_back(migrated: RunFlask, host_file: Path) -> RunFlask:
    """Have the tables be those of a release that this one knows nothing of."""
    with contextlib.closing(sqlite3.connect(host_file.parent / "host.db")) as connection, connection:
        connection.execute("UPDATE musehub_alembic_version SET version_num = '9999'")
    return migrated


def test_doctor_warns_of_tables_of_a_newer_release(migrated: RunFlask, host_file: Path) -> None:
    done = rolled_back(migrated, host_file)("musehub", "doctor")
    warning = (
        f"warning database   tables at 9999, which a newer version of the plugin made; the newest of this one is {HEAD}"
    )
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, warning)


def test_check_of_tables_of_a_newer_release_does_not_say_to_upgrade(migrated: RunFlask, host_file: Path) -> None:
    done = rolled_back(migrated, host_file)("musehub", "db", "check")
    assert one_line(done) == "Error: the tables are at 9999, which a newer version of the plugin made."


def test_doctor_s_findings_come_as_json(flask: RunFlask) -> None:
    findings = json.loads(flask("musehub", "doctor", "--json").stdout)
    assert {"what", "verdict", "says"} == set(findings[0])


@pytest.mark.parametrize(
    ("what", "setting"),
    [
        ("database", {"SQLALCHEMY_DATABASE_URI": "postgresql+psycopg2://u:canary@127.0.0.1:1/x"}),
        ("queue", {"MUSEHUB_REDIS_URL": "redis://:canary@127.0.0.1:1/0"}),
        (
            "storage",
            {
                "MUSEHUB_STORAGE": "s3://bucket",
                "MUSEHUB_S3_ENDPOINT": "http://127.0.0.1:1",
                "MUSEHUB_S3_ACCESS_KEY": "access",
                "MUSEHUB_S3_SECRET_KEY": "canary",
            },
        ),
    ],
)
def test_doctor_names_the_part_that_is_away_and_no_secret(
    migrated: RunFlask, what: str, setting: dict[str, str]
) -> None:
    done = migrated("musehub", "doctor", "--json", **setting)
    assert done.returncode == 1, done.stdout + done.stderr
    assert what in {finding["what"] for finding in json.loads(done.stdout) if finding["verdict"] == "wrong"}
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "setting",
    [
        {"SQLALCHEMY_DATABASE_URI": "postgresql+psycopg2://u:p@127.0.0.1:1/x"},
        {"MUSEHUB_REDIS_URL": "redis://127.0.0.1:1/0"},
    ],
)
def test_doctor_says_why_a_server_is_away(migrated: RunFlask, setting: dict[str, str]) -> None:
    (found,) = (line for line in migrated("musehub", "doctor", **setting).stdout.splitlines() if "not answer" in line)
    assert "refused" in found


@pytest.mark.parametrize("command", ["db current", "doctor", "repo create a/b --user-id 1", "sweep", "gc", "verify"])
def test_an_app_without_the_plugin_gets_one_clear_line(command: str) -> None:
    app = Flask("bare")
    app.cli.add_command(musehub)
    result = app.test_cli_runner().invoke(args=["musehub", *command.split()])
    assert "MuseHub().init_app(app, db)" in one_line(Done(result.exit_code, result.stdout, result.stderr))


def test_a_worker_of_an_app_without_the_plugin_says_so_in_one_line(flask_process: RunFlask, tmp_path: Path) -> None:
    bare = tmp_path / "bare.py"
    bare.write_text("from flask import Flask\napp = Flask(__name__)\n")
    assert "MuseHub().init_app(app, db)" in one_line(flask_process("musehub", "worker", app=bare))


def test_a_wrong_setting_is_named_before_any_command_runs(flask: RunFlask) -> None:
    with pytest.raises(ConfigError, match="MUSEHUB_PRESIGN_TTL"):
        flask("musehub", "doctor", MUSEHUB_PRESIGN_TTL="0")


def test_importing_the_commands_imports_little_else() -> None:
    heavy = {"sqlalchemy", "alembic", "minio", "rq", "redis", "flask_sqlalchemy", "msgpack"}
    program = "import sys; before = set(sys.modules); import musehub_plugin.cli; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(done.stdout.split())
