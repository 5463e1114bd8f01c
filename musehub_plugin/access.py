"""Who is calling and what they may do: the one place that decides.

A host answers two questions through hooks, "who sent this request" and "may they do this", and may answer a
third, "which repo has this name". `Access` asks them in an order that gives nothing away: bad credentials are
refused before any lookup, a write by an anonymous caller is refused before any lookup, and a repo that the
caller may not read is refused exactly as one that does not exist.

Nothing is remembered: not on `flask.g`, which some test set-ups share between requests, and not across
requests, so that a revoked grant ends with the request that was under way.

Owner and slug are compared exactly: case matters, no Unicode normalisation, no redirect to another spelling.
A host whose names work otherwise folds them in its own repo loader.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID

from werkzeug import exceptions as http

from musehub_plugin.errors import Forbidden, RepoNotFound, Unauthenticated

if TYPE_CHECKING:
    from flask import Request

logger = logging.getLogger(__name__)

Action = Literal["read", "write", "admin"]

PUBLIC = "public"
"""The one visibility that everybody may read; every other value means the owner alone."""

MAX_NAME = 255
"""Characters of an owner or slug: what the repo table's columns hold."""

# What `first_or_404()` or `abort(403)` raises in a host's hook: answered as it is, it would tell private from missing.
_REFUSALS = (http.Unauthorized, http.Forbidden, http.NotFound, http.Gone)

# Control characters and halves of surrogate pairs: Unicode's categories Cc and Cs, which no version of it adds to.
_IMPOSSIBLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff/]")


@dataclass(frozen=True)
class Identity:
    """Who is calling.

    Args:
        user_id: the host's stable id of the account, as text; compared with a repo's `owner_user_id`.
        handle: the name that people read; never compared.
        is_admin: for the host's own access policy; the default policy gives it no meaning.

    Raises:
        TypeError: `user_id` is no `str`. An `int` would never equal the text of an `owner_user_id`, and the
            owner would be locked out without a word.
        ValueError: `user_id` is empty.
    """

    user_id: str
    handle: str = ""
    is_admin: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.user_id, str):
            raise TypeError(f"Identity.user_id must be a str, not {type(self.user_id).__name__}")
        if not self.user_id:
            raise ValueError("Identity.user_id must not be empty")


class InvalidCredentials(Exception):
    """Raised by an identity loader: credentials are present and bad; the caller gets a 401.

    The message is for the host's own tests and logs; it is never sent and the plugin never logs it.
    """


HostId = str | int | UUID
"""An id in a host's own tables; the plugin knows it by its text."""

MAX_HOST_ID = 64
"""Characters of a repo's id: what the columns hold."""


def text_id(value: object) -> str:
    """Return the text of a host's id: hosts number their rows, or give them UUIDs.

    Raises:
        TypeError: `value` is neither text, a whole number nor a UUID.
        ValueError: its text is empty or too long.
    """
    if isinstance(value, bool) or not isinstance(value, HostId):
        raise TypeError(f"an id must be a str, an int or a UUID, not {type(value).__name__}")
    text = str(value)
    if not 0 < len(text) <= MAX_HOST_ID:
        raise ValueError(f"an id must have 1 to {MAX_HOST_ID} characters, not {len(text)}")
    return text


class Repo(Protocol):
    """What the plugin reads of a repo, its own model or a host's object.

    A `deleted_at` that is there and not None makes the repo as good as missing.
    """

    @property
    def repo_id(self) -> HostId:
        """The id whose text every `...Ref` row carries, at most 64 characters."""
        ...

    @property
    def owner(self) -> str:
        """The first part of the repo's path."""
        ...

    @property
    def slug(self) -> str:
        """The second part of the repo's path."""
        ...

    @property
    def visibility(self) -> str:
        """`public`, or anything else for private."""
        ...

    @property
    def owner_user_id(self) -> HostId | None:
        """The `Identity.user_id` of the owner; None: nobody's."""
        ...


IdentityLoader = Callable[["Request"], Identity | None]
"""Hook: who sent this request. None is anonymous; `InvalidCredentials` makes a 401."""

RepoLoader = Callable[[str, str], Any]
"""Hook: the repo that `(owner, slug)` names, an object as `Repo` describes it, or None; `abort(404)` is None too."""

AccessPolicy = Callable[[Identity | None, Action, Any], bool]
"""Hook: whether `(identity, action, repo)` is allowed. Only `True` itself allows; `abort(403)` refuses."""


@dataclass
class Hooks:
    """The host's answers. They belong to a hub and may be set until its first request."""

    load_identity: IdentityLoader | None = None
    load_repo: RepoLoader | None = None
    policy: AccessPolicy | None = None


def default_policy(identity: Identity | None, action: Action, repo: Repo) -> bool:
    """Allow reading a public repo to all, and everything to the repo's owner."""
    if action == "read" and repo.visibility == PUBLIC:
        return True
    owner = repo.owner_user_id
    return identity is not None and owner is not None and identity.user_id == str(owner)


def is_possible_name(name: str) -> bool:
    """Say whether any repo could have `name` as its owner or slug.

    What is refused here never reaches the database, which would raise on some of it (NUL, lone surrogates)
    instead of finding nothing.
    """
    if not name or len(name) > MAX_NAME or name in {".", ".."} or name != name.strip():
        return False
    return _IMPOSSIBLE.search(name) is None


class Access:
    """Decides, by a host's hooks, who may do what.

    Args:
        hooks: the host's hooks; read at each request.
        load_repo: finds repos where the host has no loader of its own.
    """

    def __init__(self, hooks: Hooks, load_repo: RepoLoader) -> None:
        self._hooks = hooks
        self._load_repo = load_repo

    def identify(self, request: Request) -> Identity | None:
        """Return who sent `request`; None is anonymous, as is everybody where the host has no identity
        loader.

        Raises:
            Unauthenticated: credentials are present and bad. The answer is one constant, whatever was wrong.
            TypeError: the hook returned something else than an `Identity` or None.
        """
        if self._hooks.load_identity is None:
            return None
        try:
            identity = self._hooks.load_identity(request)
        except InvalidCredentials:
            raise Unauthenticated("The credentials are not valid.", code="invalid-credentials") from None
        if identity is not None and not isinstance(identity, Identity):
            kind = type(identity).__name__
            raise TypeError(f"the identity loader returned {kind}, not an Identity or None")
        return identity

    def require(self, identity: Identity | None, owner: str, slug: str, action: Action) -> Any:
        """Return the repo `owner/slug` if `identity` may do `action` with it.

        Call it before the request's body is looked at, so that a body error tells nothing about a repo.

        Args:
            identity: what `identify` returned for this request.
            owner: the first part of the path, decoded, otherwise as it was sent.
            slug: the second part of the path.
            action: `read`, `write` or `admin`.

        Raises:
            Unauthenticated: an anonymous caller wants more than to read; the same for every name.
            RepoNotFound: the repo is missing, deleted or not the caller's to read; one constant answer.
            Forbidden: the caller may read the repo, but not do this.
        """
        if action != "read" and identity is None:
            raise Unauthenticated("This needs credentials.")
        repo = self.find(owner, slug)
        if repo is None:
            raise RepoNotFound
        if not self._may(identity, "read", repo):
            raise RepoNotFound
        if action != "read" and not self._may(identity, action, repo):
            raise Forbidden("You may read this repo, but not do this.")
        return repo

    def find(self, owner: str, slug: str) -> Any:
        """Return the repo of that name whoever asks, or None: for operators, not for requests."""
        if not (is_possible_name(owner) and is_possible_name(slug)):
            return None
        try:
            repo = (self._hooks.load_repo or self._load_repo)(owner, slug)
        except _REFUSALS:
            return None
        if repo is None or getattr(repo, "deleted_at", None) is not None:
            return None
        return repo

    def _may(self, identity: Identity | None, action: Action, repo: Any) -> bool:
        try:
            answer = (self._hooks.policy or default_policy)(identity, action, repo)
        except _REFUSALS:
            return False
        if answer is True:
            return True
        if answer is not False:
            # A coroutine, a row or the text "no" is truthy; guessing would let somebody in.
            logger.warning("The access policy returned %s, not a bool: refused.", type(answer).__name__)
        return False
