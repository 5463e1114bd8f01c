"""`flask --app examples/forge forge ...`: what an administrator of the forge runs."""

from __future__ import annotations

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from sqlalchemy import select

from musehub_plugin.store import migrate

from .tables import Account, Refused, create_account, create_repo, db, issue_token

forge = AppGroup("forge", help="The example forge: tables, accounts, repos.")


def make_tables(app: Flask) -> None:
    """Make the forge's tables, and the plugin's."""
    with app.app_context():
        db.create_all()
        migrate.upgrade(db.engine)


@forge.command("set-up")
def set_up() -> None:
    """Make the tables, the forge's and the plugin's."""
    make_tables(current_app)
    click.echo("The tables are there.")


@forge.command("account")
@click.argument("handle")
@click.password_option()
def add_account(handle: str, password: str) -> None:
    """Make an account and print an API token for it."""
    try:
        account = create_account(handle, password)
    except Refused as error:
        raise click.ClickException(str(error)) from error
    click.echo(issue_token(account, "first token"))


@forge.command("repo")
@click.argument("name", metavar="HANDLE/SLUG")
@click.option("--private", is_flag=True, help="Readable by its owner alone.")
def add_repo(name: str, private: bool) -> None:
    """Make a repo."""
    handle, _, slug = name.partition("/")
    account = db.session.scalar(select(Account).where(Account.handle == handle))
    if account is None:
        raise click.ClickException(f"There is no account named {handle}.")
    try:
        create_repo(account, slug, is_private=private)
    except Refused as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{handle}/{slug} is there.")
