"""`flask musehub ...`: what operators run.

Found by Flask through an entry point, in every app of the environment, before any app is loaded: so this module
imports next to nothing, and each command says clearly when the plugin is not on the app at hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from musehub_plugin.errors import first_line, sqlstate

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from musehub_plugin.hub import Hub

# PostgreSQL's undefined_table and undefined_column.
_NOT_MIGRATED = frozenset({"42P01", "42703"})


class _Commands(AppGroup):
    """A group whose commands fail in one line, where what failed is a part that the hub needs."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            # Whatever is not known here is raised again.
            reason = _reason(error)
            if reason is None:
                raise
            raise click.ClickException(reason) from None


def _reason(error: Exception) -> str | None:
    """Return one line for an error that an operator can do something about; None for any other."""
    from alembic.util import CommandError
    from redis.exceptions import RedisError
    from sqlalchemy.exc import DBAPIError

    from musehub_plugin.errors import StorageUnavailable

    if isinstance(error, DBAPIError):
        # The driver's own words: the SQLAlchemy text would carry the statement and its parameters.
        said = first_line(error.orig)
        missing = said.startswith(("no such table", "no such column"))
        missing = missing or sqlstate(error.orig) in _NOT_MIGRATED
        return f"the database failed: {said}" + ("; run flask musehub db upgrade." if missing else "")
    if isinstance(error, RedisError):
        return f"Redis failed: {first_line(error)}"
    if isinstance(error, StorageUnavailable):
        return f"object storage failed: {first_line(error)}"
    if isinstance(error, CommandError):
        return f"{first_line(error)}; flask musehub db current prints what there is, and the newest one."
    return None


musehub = _Commands("musehub", help="Muse hosting: tables, worker, repos, checks.")


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
    current = migrate.current(engine)
    if current is not None and not migrate.is_known(current):
        raise click.ClickException(f"the tables are at {current}, which a newer version of the plugin made.")
    if current != migrate.head():
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
    """Run background jobs until stopped: index and repack what was pushed, make the packs of large fetches.

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
@click.option("--default-branch", default="main", show_default=True, help="The branch to check out after a clone.")
@click.option("--json", "as_json", is_flag=True, help="Print the repo as one JSON object.")
def repo_create(name: str, user_id: str, public: bool, default_branch: str, as_json: bool) -> None:
    """Create a repo.

    Example: flask musehub repo create alice/songs --user-id 1 --public
    """
    from musehub_plugin.names import bad_branch_name
    from musehub_plugin.store.models import MusehubRepo
    from musehub_plugin.store.repos import find_repo

    owner, slug = _owner_and_slug(name)
    if not user_id:
        raise click.UsageError("--user-id is empty: nobody would own the repo.")
    reason = bad_branch_name(default_branch)
    if reason is not None:
        raise click.UsageError(f"branch {default_branch!r} {reason}.")
    hub = _hub()
    database = hub.database()
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
    if as_json:
        shown = {"name": name, "repo_id": created.repo_id, "visibility": created.visibility}
        click.echo(json.dumps({**shown, "default_branch": created.default_branch}))
    else:
        click.echo(f"Created {name} ({created.visibility}), repo_id {created.repo_id}.")
    if hub.hooks.load_repo is not None:
        click.echo("warning: this host has a repo_loader; what it does not find, nobody does.", err=True)


@repo.command("delete")
@click.argument("name", metavar="OWNER/SLUG")
@click.option("--json", "as_json", is_flag=True, help="Print what was deleted as one JSON object.")
def repo_delete(name: str, as_json: bool) -> None:
    """Delete a repo: it is closed at once, and gc removes what it held once MUSEHUB_GC_GRACE has passed."""
    from musehub_plugin.store.repos import delete_repo

    owner, slug = _owner_and_slug(name)
    hub = _hub()
    database = hub.database()
    if not delete_repo(database, owner, slug):
        raise click.ClickException(f"there is no repo {name}.")
    database.commit()
    if as_json:
        click.echo(json.dumps({"name": name, "gc_grace": hub.settings.gc_grace}))
    else:
        click.echo(f"Deleted {name}: flask musehub gc removes what it held, from {hub.settings.gc_grace} seconds on.")


def _owner_and_slug(name: str) -> tuple[str, str]:
    from musehub_plugin.access import is_possible_name

    owner, _, slug = name.partition("/")
    if not (is_possible_name(owner) and is_possible_name(slug)):
        raise click.UsageError(f"{name!r} is not of the form OWNER/SLUG.")
    return owner, slug


@musehub.command("sweep")
def sweep_command() -> None:
    """Put jobs that the queue has lost on it again.

    Workers do this by themselves; run it from a timer where no worker runs all the time.
    """
    from musehub_plugin.jobs.queue import sweep

    hub = _hub()
    click.echo(f"{sweep(hub, hub.database())} jobs were due.")


@musehub.command("gc")
@click.option("--dry-run", is_flag=True, help="Only count what would be removed.")
@click.option(
    "--grace", type=click.IntRange(min=1), help="Seconds for which garbage stays, instead of MUSEHUB_GC_GRACE."
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def gc_command(dry_run: bool, grace: int | None, as_json: bool) -> None:
    """Remove what nobody needs: expired uploads, packs made for fetches, unreachable commits, deleted repos.

    Safe to run beside pushes and fetches, to interrupt, and to run again. Run it daily from a timer.
    """
    from musehub_plugin.gc import collect

    hub = _hub()
    if grace is not None and grace < hub.settings.least_grace and not dry_run:
        raise click.UsageError(
            f"--grace must be at least {hub.settings.least_grace}: what it removes may be asked for by URLs that "
            "are out (MUSEHUB_PRESIGN_TTL, MUSEHUB_UPLOAD_TTL), or be worked on (MUSEHUB_JOB_LEASE)."
        )
    done = collect(hub, hub.database(), dry_run=dry_run, grace=grace, progress=_progress("gc"))
    if as_json:
        click.echo(json.dumps(done.__dict__))
        return
    verb = "Would remove" if dry_run else "Removed"
    click.echo(
        f"{verb} {done.commits} commits, {done.snapshots} snapshots and {done.blobs} blobs that no branch reaches, "
        f"{done.repos} deleted repos, {done.mpacks} pushed packs, {done.fetch_packs} packs made for fetches, "
        f"{done.uploads} expired uploads."
    )
    if done.leftovers:
        click.echo(f"Removed {done.leftovers} files that killed writers left half written.")
    if done.busy_repos or done.kept_files:
        click.echo(f"Left for the next time: {done.busy_repos} busy repos, {done.kept_files} files.")


@musehub.command("repack")
@click.argument("names", metavar="[OWNER/SLUG]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All repos that hold commits.")
@click.option("--whole", is_flag=True, help="Make everything anew, however well it is packed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a repo.")
def repack_command(names: tuple[str, ...], every: bool, whole: bool, as_json: bool) -> None:
    """Make few big packs of a repo's many pushes, so that a clone is ready before anyone asks.

    Workers do it after pushes by themselves. Run it by hand after an upgrade or an import, and from a timer where
    there is no worker. Safe beside pushes and fetches, to interrupt, and to run again.
    """
    from musehub_plugin.errors import HubError, for_operators
    from musehub_plugin.repack import repack
    from musehub_plugin.store.garbage import repos_with_history

    hub = _hub()
    if every == bool(names):
        raise click.UsageError("name repos, or say --all.")
    repo_ids = {name: _repo_id(hub, name) for name in names}
    if every:
        repo_ids = {repo_id: repo_id for repo_id in repos_with_history(hub.database())}
    failed = False
    for name, repo_id in repo_ids.items():
        try:
            done = repack(hub, hub.database(), repo_id, whole=whole, progress=_progress(f"repack {name}"))
        except HubError as error:
            hub.database().rollback()
            click.echo(f"{name}: {for_operators(error)}", err=True)
            failed = True
            continue
        if as_json:
            click.echo(json.dumps({"repo": name, **done.__dict__}))
        else:
            click.echo(
                f"{name}: {done.made} packs made; a clone is {done.clone_packs} packs of {done.size_bytes:,} bytes; "
                f"{done.retired} packs are needed no more; {done.seconds:.1f} s"
            )
    if failed:
        sys.exit(1)


def _repo_id(hub: Hub, name: str) -> str:
    from musehub_plugin.access import text_id

    found = hub.access.find(*_owner_and_slug(name))
    if found is None:
        raise click.ClickException(f"there is no repo {name}.")
    return text_id(found.repo_id)


@musehub.command("verify")
@click.argument("name", metavar="[OWNER/SLUG]", required=False)
@click.option("--repair", is_flag=True, help="Mend what can be mended from what is left.")
@click.option("--after", default="", metavar="MPACK_ID", help="Go on after this mpack, where a run was interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
def verify_command(name: str | None, repair: bool, after: str, as_json: bool) -> None:
    """Hash everything in storage and follow every repo's history; exit 1 where something is wrong and stays so.

    Reads every byte: run it at quiet times. Interrupted, it says what it has found and how to go on.
    """
    from musehub_plugin.ids import is_id
    from musehub_plugin.scrub import Scrubbed, scrub

    if after and not is_id(after):
        raise click.UsageError(f"--after {after!r:.100} is no mpack's id, sha256: and 64 hex digits.")
    hub = _hub()
    repo_id = None if name is None else _repo_id(hub, name)
    done = Scrubbed()
    interrupted = False
    try:
        scrub(hub, hub.database(), repo_id=repo_id, repair=repair, after=after, progress=_progress("verify"), done=done)
    except KeyboardInterrupt:
        interrupted = True
    if as_json:
        click.echo(json.dumps(done.as_dict()))
    else:
        for problem in done.problems:
            mended = " (repaired)" if problem.repaired else ""
            click.echo(f"{problem.kind} {problem.subject}: {problem.says}{mended}")
        click.echo(
            f"Looked at {done.mpacks} mpacks ({done.bytes:,} bytes), {done.repos} repos, {done.commits} commits, "
            f"{done.snapshots} snapshots, {done.blobs} blobs: {len(done.problems)} problems, "
            f"{done.unrepaired} of them left."
        )
    if interrupted:
        last = done.last_mpack or after
        raise click.ClickException("interrupted; " + (f"go on with --after {last}" if last else "begin again"))
    if done.unrepaired:
        sys.exit(1)


def _progress(command: str) -> Callable[[str], None]:
    """Return a function that shows on one line of a terminal what is being looked at."""
    # A process that is started with stderr closed has none.
    if sys.stderr is None or not sys.stderr.isatty():
        return lambda _: None
    return lambda what: click.echo(f"\r\x1b[K{command}: {what:.90}\r", nl=False, err=True)


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
