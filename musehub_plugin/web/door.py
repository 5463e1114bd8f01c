"""The way into every resource of a repo: who is calling, may they, and only then what they sent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, Any

from flask import Request, request

from musehub_plugin.access import Action, Identity, text_id
from musehub_plugin.errors import HubError
from musehub_plugin.hub import Hub, current_hub
from musehub_plugin.store.session import Database
from musehub_plugin.web.body import decode_body, read_body, require_msgpack, spool_body
from musehub_plugin.web.fields import Schema

_SPOOL_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Call:
    """A request that was let in.

    Args:
        repo: what the host's loader or the plugin's own gave; hooks and signals get it as it is.
        repo_id: the text of its id, which is what rows carry.
    """

    hub: Hub
    db: Database
    identity: Identity | None
    repo: Any
    repo_id: str
    fields: dict[str, Any]

    @property
    def pusher(self) -> Identity:
        """Who writes: `Access.require` lets no anonymous caller do that, whatever a host's policy says.

        Raises:
            TypeError: the request was let in to read, not to write.
        """
        if self.identity is None:
            raise TypeError("an anonymous caller was let in to write")
        return self.identity


def enter(owner: str, slug: str, action: Action, schema: Schema | None = None, *, limit: int | None = None) -> Call:
    """Let the current request in, or raise the refusal.

    The body is read first, so that no database connection waits for a slow sender, but nothing is said about it until
    the caller is known to be allowed here: what is wrong with a body must not tell a private repo from none.

    Args:
        owner: from the path.
        slug: from the path.
        action: what the resource does with the repo.
        schema: the fields of the body; None where the resource takes no body.
        limit: bytes of the body that are accepted; None: `MUSEHUB_MAX_BODY`.

    Raises:
        HubError: as `Access.identify`, `Access.require`, `read_body` and `decode_body` say, in this order.
    """
    hub, sent = current_hub(), _current_request()
    body = b""
    refusal: HubError | None = None
    if schema is not None:
        try:
            body = read_body(sent, hub.settings.max_body if limit is None else limit)
        except HubError as error:
            refusal = error
    call = _admit(hub, sent, owner, slug, action, refusal)
    if schema is not None:
        call.fields.update(decode_body(body, sent.headers.get("Content-Type"), schema))
    return call


@contextmanager
def enter_with_file(owner: str, slug: str, action: Action, limit: int) -> Iterator[tuple[Call, IO[bytes]]]:
    """Let the current request in as `enter` does, and give its body as a file of msgpack that nobody has looked into.

    Args:
        owner: from the path.
        slug: from the path.
        action: what the resource does with the repo.
        limit: bytes of the body that are accepted.
    """
    hub, sent = current_hub(), _current_request()
    refusal: HubError | None = None
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
        try:
            spool_body(sent, limit, file)
        except HubError as error:
            refusal = error
        call = _admit(hub, sent, owner, slug, action, refusal)
        require_msgpack(sent.headers.get("Content-Type"))
        yield call, file


def one_connection() -> AbstractContextManager[None]:
    """Ask what a request needs to know on one connection, from who may to what for: the pool looks after it once.

    A host's own policy comes between the two, and may need a connection of the same pool, which may have no second one.
    """
    hub = current_hub()
    return nullcontext() if hub.hooks.policy is not None else hub.database().questions()


def _current_request() -> Request:
    """Return the request itself: each look at it through Flask's proxy takes 2 us, and there are some thirty."""
    sent: Request = request._get_current_object()  # type: ignore[attr-defined]  # the proxy's own method
    return sent


def _admit(hub: Hub, sent: Request, owner: str, slug: str, action: Action, body_refusal: HubError | None) -> Call:
    identity = hub.access.identify(sent)
    repo = hub.access.require(identity, owner, slug, action)
    if body_refusal is not None:
        raise body_refusal
    return Call(hub, hub.database(), identity, repo, text_id(repo.repo_id), {})
