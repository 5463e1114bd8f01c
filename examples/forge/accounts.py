"""Signing up, logging in, and API tokens."""

from __future__ import annotations

from functools import cache

from flask import Blueprint, Flask, abort, flash, redirect, render_template, request, url_for
from flask_login import LoginManager, current_user, login_required, login_user, logout_user
from sqlalchemy import select
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.wrappers import Response

from .tables import Account, ApiToken, Refused, create_account, db, issue_token

blueprint = Blueprint("accounts", __name__, url_prefix="/-")

login_manager = LoginManager()
login_manager.login_view = "accounts.log_in"
login_manager.login_message = "Log in first."


def init_app(app: Flask) -> None:
    """Add sessions and their pages to the app."""
    login_manager.init_app(app)
    app.register_blueprint(blueprint)


@login_manager.user_loader
def load_account(account_id: str) -> Account | None:
    """Return the account of a session."""
    return db.session.get(Account, int(account_id))


@blueprint.route("/sign-up", methods=["GET", "POST"])
def sign_up() -> str | Response:
    """Make an account and log in."""
    if request.method == "POST":
        try:
            account = create_account(request.form.get("handle", ""), request.form.get("password", ""))
        except Refused as error:
            flash(str(error))
        else:
            login_user(account)
            return redirect(url_for("pages.home"))
    return render_template("sign_up.html")


@blueprint.route("/log-in", methods=["GET", "POST"])
def log_in() -> str | Response:
    """Log in by name and password."""
    if request.method == "POST":
        account = db.session.scalar(select(Account).where(Account.handle == request.form.get("handle", "")))
        password = request.form.get("password", "")
        if account is None:
            # As much work as for an account that is there, so that the time does not tell.
            check_password_hash(_nobodys_hash(), password)
        elif account.password_is(password):
            login_user(account)
            return redirect(url_for("pages.home"))
        flash("Name or password is wrong.")
    return render_template("log_in.html")


@blueprint.post("/log-out")
def log_out() -> Response:
    """End the session."""
    logout_user()
    return redirect(url_for("pages.home"))


@blueprint.route("/tokens", methods=["GET", "POST"])
@login_required
def tokens() -> str:
    """List the account's tokens; POST makes one and shows it."""
    new_token = issue_token(current_user, request.form.get("label", "")) if request.method == "POST" else None
    issued = db.session.scalars(select(ApiToken).where(ApiToken.account_id == current_user.id).order_by(ApiToken.id))
    return render_template("tokens.html", tokens=issued.all(), new_token=new_token)


@blueprint.post("/tokens/<int:token_id>/revoke")
@login_required
def revoke(token_id: int) -> Response:
    """Make a token worthless at once."""
    token = db.session.get(ApiToken, token_id)
    if token is None or token.account_id != current_user.id:
        abort(404)
    db.session.delete(token)
    db.session.commit()
    return redirect(url_for("accounts.tokens"))


@cache
def _nobodys_hash() -> str:
    return generate_password_hash("nobody's password")
