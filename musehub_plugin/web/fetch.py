"""`POST /{owner}/{slug}/fetch`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Response, request

from musehub_plugin.blobs import NotIndexed
from musehub_plugin.errors import Unavailable
from musehub_plugin.fetch import BuildByJob, FetchAnswer, fetch
from musehub_plugin.hub import current_app_object, current_hub
from musehub_plugin.jobs.queue import rearm, request_build
from musehub_plugin.signals import fetched
from musehub_plugin.web.door import Call, enter, one_connection
from musehub_plugin.web.fields import fetch_schema
from musehub_plugin.web.negotiation import encode_response

# Nothing will change before somebody has looked at it.
_RETRY_AFTER_FAILURE = 300


def post_fetch(owner: str, slug: str) -> Response:
    """Answer with the URL of an mpack of what the caller lacks (the contract's section 2)."""
    settings = current_hub().settings
    schema = fetch_schema(max_wants=settings.max_wants, max_haves=settings.max_haves)
    with one_connection():
        call = enter(owner, slug, "read", schema)
        with rearming(call):
            answer = fetch(
                call.hub,
                call.db,
                call.repo_id,
                call.fields["want"],
                call.fields["have"],
                call.fields["capabilities"],
            )
    fetched.send(current_app_object(), repo=call.repo, identity=call.identity, answer=answer)
    return encode_response(_members(answer), request.headers.get("Accept"))


def _members(answer: FetchAnswer) -> dict[str, Any]:
    """Return an answer as it is sent: what only a capability brings is left out where it is not there."""
    members = vars(answer).copy()
    if answer.mpack is None:
        del members["mpack"]
    if answer.mpacks is None:
        del members["mpacks"]
    else:
        members["mpacks"] = [
            {name: value for name, value in vars(pack).items() if name not in {"url", "mpack"} or value is not None}
            for pack in answer.mpacks
        ]
    return members


@contextmanager
def rearming(call: Call) -> Iterator[None]:
    """Have index jobs that a fetch waits for put on the queue again, and say so where one has failed for good.

    Raises:
        Unavailable: a blob that the fetch needs is not indexed yet, or will not be.
    """
    try:
        yield
    except BuildByJob as error:
        request_build(call.hub, call.db, error.build)
        raise
    except NotIndexed:
        if rearm(call.hub, call.db, call.repo_id):
            raise Unavailable(
                "A pushed mpack of this repo could not be indexed. The operator has to look at it.",
                code="index-failed",
                retry_after=_RETRY_AFTER_FAILURE,
            ) from None
        raise
