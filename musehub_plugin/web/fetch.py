"""`POST /{owner}/{slug}/fetch`."""

from __future__ import annotations

from dataclasses import asdict

from flask import Response, request

from musehub_plugin.fetch import fetch
from musehub_plugin.hub import current_app_object, current_hub
from musehub_plugin.signals import fetched
from musehub_plugin.web.door import enter
from musehub_plugin.web.fields import fetch_schema
from musehub_plugin.web.negotiation import encode_response


def post_fetch(owner: str, slug: str) -> Response:
    """Answer with the URL of an mpack of what the caller lacks (the contract's section 2)."""
    settings = current_hub().settings
    schema = fetch_schema(max_wants=settings.max_wants, max_haves=settings.max_haves)
    call = enter(owner, slug, "read", schema)
    answer = fetch(call.hub, call.db, call.repo.repo_id, call.fields["want"], call.fields["have"])
    fetched.send(current_app_object(), repo=call.repo, identity=call.identity, answer=answer)
    return encode_response(asdict(answer), request.headers.get("Accept"))
