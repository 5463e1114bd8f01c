"""The pages of accounts and repos. What a repo holds is read from the plugin's tables."""

from __future__ import annotations

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask_login import current_user, login_required
from sqlalchemy import false, or_, select
from werkzeug.wrappers import Response

from . import history
from .tables import Account, Refused, Repo, create_repo, db, find_repo

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def home() -> str:
    """List the repos that the visitor may see."""
    return render_template("home.html", repos=_visible_repos())


@blueprint.route("/-/new", methods=["GET", "POST"])
@login_required
def new_repo() -> str | Response:
    """Make a repo."""
    if request.method == "POST":
        slug = request.form.get("slug", "")
        try:
            create_repo(current_user, slug, is_private="private" in request.form)
        except Refused as error:
            flash(str(error))
        else:
            return redirect(url_for("pages.repo", owner=current_user.handle, slug=slug))
    return render_template("new_repo.html")


@blueprint.get("/<owner>")
def account(owner: str) -> str:
    """List an account's repos."""
    found = db.session.scalar(select(Account).where(Account.handle == owner))
    if found is None:
        abort(404)
    return render_template("account.html", account=found, repos=_visible_repos(found))


@blueprint.get("/<owner>/<slug>")
def repo(owner: str, slug: str) -> str:
    """Show a repo: its branches, latest commits and files."""
    found = find_repo(owner, slug)
    # A private repo is not told from one that does not exist.
    if found is None or (found.is_private and found.account_id != _visitor_id()):
        abort(404)
    branches = history.branches(found.repo_id)
    branch = request.args.get("branch") or ("main" if "main" in branches else next(iter(branches), ""))
    if branches and branch not in branches:
        abort(404)
    commits = history.latest_commits(found.repo_id, branches[branch]) if branches else []
    files = history.files(found.repo_id, commits[0].snapshot_id) if commits else []
    return render_template(
        "repo.html",
        repo=found,
        clone_url=url_for("pages.repo", owner=owner, slug=slug, _external=True),
        branches=branches,
        branch=branch,
        commits=commits,
        files=files,
    )


def _visible_repos(account: Account | None = None) -> list[Repo]:
    visitor = _visitor_id()
    own = false() if visitor is None else Repo.account_id == visitor
    query = select(Repo).join(Account).where(or_(~Repo.is_private, own)).order_by(Account.handle, Repo.slug)
    if account is not None:
        query = query.where(Repo.account_id == account.id)
    return list(db.session.scalars(query))


def _visitor_id() -> int | None:
    return current_user.id if current_user.is_authenticated else None
