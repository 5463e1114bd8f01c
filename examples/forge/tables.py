"""The forge's tables: accounts, API tokens and repos; what the plugin asks them."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import TypeVar

from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, UniqueConstraint, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from werkzeug.security import check_password_hash, generate_password_hash

from musehub_plugin import Identity

# A name is a part of a path, and "-" is where the forge's own pages are.
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,38}")
MIN_PASSWORD = 10


class Base(DeclarativeBase):
    """The forge's declarative base."""


db = SQLAlchemy(model_class=Base)


_T = TypeVar("_T", bound=Base)


class Refused(ValueError):
    """What was asked for cannot be; the text is for the person who asked."""


class Account(Base, UserMixin):
    """Somebody who owns repos."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    handle: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]

    def password_is(self, password: str) -> bool:
        """Say whether `password` is the account's."""
        return check_password_hash(self.password_hash, password)


class ApiToken(Base):
    """What a client shows instead of a password. The token itself is not kept, only its SHA-256."""

    __tablename__ = "api_token"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    label: Mapped[str]
    token_hash: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    account: Mapped[Account] = relationship()


class Repo(Base):
    """A repo. The plugin reads `repo_id`, `owner`, `slug`, `visibility` and `owner_user_id` of it."""

    __tablename__ = "repo"
    __table_args__ = (UniqueConstraint("account_id", "slug"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    slug: Mapped[str]
    is_private: Mapped[bool] = mapped_column(default=False)
    account: Mapped[Account] = relationship()

    @property
    def repo_id(self) -> str:
        """The id by which the plugin files what the repo holds: any text that never changes."""
        return str(self.id)

    @property
    def owner(self) -> str:
        """The first part of the repo's path."""
        return self.account.handle

    @property
    def visibility(self) -> str:
        """`public` or `private`."""
        return "private" if self.is_private else "public"

    @property
    def owner_user_id(self) -> str:
        """The `Identity.user_id` of the owner."""
        return str(self.account_id)


def find_repo(owner: str, slug: str) -> Repo | None:
    """Return the repo that has this path: the plugin's `repo_loader`, and the pages' own."""
    return db.session.scalar(select(Repo).join(Account).where(Account.handle == owner, Repo.slug == slug))


def find_token(token_hash: str) -> Identity | None:
    """Return whose token has this SHA-256: what the plugin's `token_identity` asks."""
    token = db.session.scalar(select(ApiToken).where(ApiToken.token_hash == token_hash))
    return Identity(str(token.account.id), token.account.handle) if token else None


def create_account(handle: str, password: str) -> Account:
    """Add an account.

    Raises:
        Refused: the name or the password cannot be, or the name is taken.
    """
    _check_name(handle)
    if len(password) < MIN_PASSWORD:
        raise Refused(f"A password needs at least {MIN_PASSWORD} characters.")
    account = Account(handle=handle, password_hash=generate_password_hash(password))
    return _added(account, f"The name {handle} is taken.")


def create_repo(account: Account, slug: str, *, is_private: bool = False) -> Repo:
    """Add a repo, empty until something is pushed to it.

    Raises:
        Refused: the name cannot be, or the account has a repo of this name.
    """
    _check_name(slug)
    return _added(Repo(account=account, slug=slug, is_private=is_private), f"You have a repo named {slug} already.")


def issue_token(account: Account, label: str) -> str:
    """Add an API token and return it: the only time that it can be seen."""
    token = f"forge_{secrets.token_urlsafe(32)}"
    token_hash = hashlib.sha256(token.encode()).hexdigest()
    db.session.add(ApiToken(account=account, label=label[:80] or "token", token_hash=token_hash))
    db.session.commit()
    return token


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise Refused("A name has 1 to 39 of a-z, 0-9, - and _, and begins with a letter or a digit.")


def _added(row: _T, taken: str) -> _T:
    db.session.add(row)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        raise Refused(taken) from None
    return row
