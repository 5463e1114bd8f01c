"""`GET /{owner}/{slug}/refs` and `POST /{owner}/{slug}/negotiate`."""

from __future__ import annotations

from dataclasses import asdict

from flask import Response, request

from musehub_plugin.hub import current_hub
from musehub_plugin.refs import negotiate, refs
from musehub_plugin.web.door import enter, one_connection
from musehub_plugin.web.fields import fetch_schema
from musehub_plugin.web.negotiation import encode_response


def get_refs(owner: str, slug: str) -> Response:
    """Answer with the branches, or 304 where they are those that the caller knows."""
    with one_connection():
        call = enter(owner, slug, "read")
        found = refs(call.db, call.repo)
    response = encode_response(
        asdict(found),
        request.headers.get("Accept"),
        # Kept by the caller's own cache alone, and asked about each time: branches move.
        cache_control="private, no-cache",
    )
    response.add_etag()
    response.make_conditional(request)
    return response


def post_negotiate(owner: str, slug: str) -> Response:
    """Answer which of the caller's commits the repo holds."""
    settings = current_hub().settings
    schema = fetch_schema(max_wants=settings.max_wants, max_haves=settings.max_haves)
    call = enter(owner, slug, "read", schema)
    answer = negotiate(call.hub, call.db, call.repo_id, call.fields["want"], call.fields["have"])
    return encode_response(asdict(answer), request.headers.get("Accept"))
