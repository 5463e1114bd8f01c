"""The way into every resource of a repo: who is calling, may they, and only then what they sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import request

from musehub_plugin.access import Action, Identity, text_id
from musehub_plugin.errors import HubError
from musehub_plugin.hub import Hub, current_hub
from musehub_plugin.store.session import Database
from musehub_plugin.web.body import decode_body, read_body
from musehub_plugin.web.fields import Schema


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


def enter(owner: str, slug: str, action: Action, schema: Schema | None = None) -> Call:
    """Let the current request in, or raise the refusal.

    The body is read first, so that no database connection waits for a slow sender, but nothing is said about it until
    the caller is known to be allowed here: what is wrong with a body must not tell a private repo from none.

    Args:
        owner: from the path.
        slug: from the path.
        action: what the resource does with the repo.
        schema: the fields of the body; None where the resource takes no body.

    Raises:
        HubError: as `Access.identify`, `Access.require`, `read_body` and `decode_body` say, in this order.
    """
    hub = current_hub()
    body = b""
    body_refusal: HubError | None = None
    if schema is not None:
        try:
            body = read_body(request, hub.settings.max_body)
        except HubError as error:
            body_refusal = error
    identity = hub.access.identify(request)
    repo = hub.access.require(identity, owner, slug, action)
    if body_refusal is not None:
        raise body_refusal
    fields = {} if schema is None else decode_body(body, request.headers.get("Content-Type"), schema)
    return Call(hub, hub.database(), identity, repo, text_id(repo.repo_id), fields)
