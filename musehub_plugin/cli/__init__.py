"""`flask musehub ...`: what operators run.

Found by Flask through an entry point, in every app of the environment, before any app is loaded: so this module
imports next to nothing, and each command says clearly when the plugin is not on the app at hand.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from musehub_plugin.hub import Hub

musehub = AppGroup("musehub", help="Muse hosting: tables, worker, repos, checks.")


def _hub() -> Hub:
    from musehub_plugin.hub import EXTENSION_KEY

    hub: Hub | None = current_app.extensions.get(EXTENSION_KEY)
    if hub is None:
        raise click.ClickException("the plugin is not on this app: call MuseHub().init_app(app, db) in its factory.")
    return hub


def _engine() -> Engine:
    hub = _hub()
    engines = hub.sqlalchemy.engines
    key = hub.settings.bind_key
    if key not in engines:
        name = "SQLALCHEMY_DATABASE_URI" if key is None else f"SQLALCHEMY_BINDS[{key!r}] (MUSEHUB_BIND_KEY)"
        raise click.ClickException(f"no database for the plugin's tables: set {name}.")
    return engines[key]


db = AppGroup("db", help="The plugin's tables: a migration history of their own, apart from the host's.")
musehub.add_command(db)


@db.command("upgrade")
@click.argument("revision", default="head")
def db_upgrade(revision: str) -> None:
    """Bring the tables to REVISION (default: the newest).

    Run it after each upgrade of the plugin, before the new version serves. Safe to run twice.
    """
    from musehub_plugin.store import migrate

    engine = _engine()
    migrate.upgrade(engine, revision)
    click.echo(f"The plugin's tables are at revision {migrate.current(engine)}.")


@db.command("downgrade")
@click.argument("revision")
def db_downgrade(revision: str) -> None:
    """Bring the tables back to REVISION; "base" removes them WITH ALL THEY HOLD."""
    from musehub_plugin.store import migrate

    engine = _engine()
    migrate.downgrade(engine, revision)
    click.echo(f"The plugin's tables are at revision {migrate.current(engine) or 'base (none)'}.")


@db.command("current")
def db_current() -> None:
    """Print the revision that the tables are at, and the newest one."""
    from musehub_plugin.store import migrate

    click.echo(f"{migrate.current(_engine()) or 'none'} (newest: {migrate.head()})")


@db.command("check")
def db_check() -> None:
    """Compare the tables with the models; exit 1 where they differ."""
    from musehub_plugin.store import migrate

    engine = _engine()
    if migrate.current(engine) != migrate.head():
        raise click.ClickException("the tables are not at the newest revision: run flask musehub db upgrade.")
    found = migrate.differences(engine)
    for difference in found:
        click.echo(str(difference), err=True)
    if found:
        raise click.ClickException(f"{len(found)} differences between the tables and the models.")
    click.echo("The tables are as the models say.")


@db.command("stamp")
@click.argument("revision", default="head")
def db_stamp(revision: str) -> None:
    """Record REVISION without running anything, for tables that `create_all` made."""
    from musehub_plugin.store import migrate

    migrate.stamp(_engine(), revision)
    click.echo(f"Stamped as {revision}.")


@musehub.command("worker", with_appcontext=False)
@click.option("--burst", is_flag=True, help="Stop when the queue is empty.")
@click.pass_context
def worker(context: click.Context, burst: bool) -> None:
    """Run background jobs (indexing of what was pushed) until stopped.

    Needs MUSEHUB_REDIS_URL; without it jobs run in the web process and there is nothing to start. Run as many as the
    load asks for, under a supervisor that restarts them.
    """
    from flask.cli import ScriptInfo

    from musehub_plugin.jobs.worker import run_worker

    app = context.ensure_object(ScriptInfo).load_app()
    with app.app_context():
        redis_url = _hub().settings.redis_url
    if not redis_url:
        raise click.ClickException("MUSEHUB_REDIS_URL is not set: jobs run in the web process, no worker is needed.")
    run_worker(app, burst=burst)


repo = AppGroup("repo", help="Repos in the plugin's own table (hosts with a repo_loader use their own).")
musehub.add_command(repo)


@repo.command("create")
@click.argument("name", metavar="OWNER/SLUG")
@click.option("--user-id", required=True, help="The host's id of the account that owns it.")
@click.option("--public/--private", default=False, help="Who may read it. Default: private.")
@click.option("--default-branch", default="main", show_default=True)
def repo_create(name: str, user_id: str, public: bool, default_branch: str) -> None:
    """Create a repo.

    Example: flask musehub repo create alice/songs --user-id 1 --public
    """
    from musehub_plugin.access import is_possible_name
    from musehub_plugin.store.models import MusehubRepo
    from musehub_plugin.store.repos import find_repo

    owner, _, slug = name.partition("/")
    if not (is_possible_name(owner) and is_possible_name(slug)):
        raise click.UsageError(f"{name!r} is not of the form OWNER/SLUG.")
    database = _hub().database()
    if find_repo(database, owner, slug) is not None:
        raise click.ClickException(f"{name} exists.")
    created = MusehubRepo(
        owner=owner,
        slug=slug,
        visibility="public" if public else "private",
        owner_user_id=user_id,
        default_branch=default_branch,
    )
    database.session.add(created)
    database.commit()
    click.echo(f"Created {name} ({created.visibility}), repo_id {created.repo_id}.")


@musehub.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
@with_appcontext
def doctor(as_json: bool) -> None:
    """Check settings, database, object storage and queue; exit 1 where something is wrong."""
    from musehub_plugin.doctor import examine

    findings = examine(_hub())
    if as_json:
        click.echo(json.dumps([finding.__dict__ for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.verdict:<7} {finding.what:<10} {finding.says}")
    if any(finding.verdict == "wrong" for finding in findings):
        sys.exit(1)


