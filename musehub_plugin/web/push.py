"""`POST /{owner}/{slug}/push/presign` and `POST /{owner}/{slug}/push/unpack-mpack`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Response, request

from musehub_plugin.hub import current_app_object
from musehub_plugin.jobs.queue import request_index, request_repack
from musehub_plugin.push import BranchUpdate, presign, unpack
from musehub_plugin.signals import pushed
from musehub_plugin.store.jobs import index_job_id
from musehub_plugin.web.door import enter
from musehub_plugin.web.fields import UNPACK_SCHEMA, presign_schema
from musehub_plugin.web.negotiation import encode_response

# What fits the column; whether it is too much is the push's to say, with the limit.
_PRESIGN_SCHEMA = presign_schema(max_size=2**63 - 1)


def post_presign(owner: str, slug: str) -> Response:
    """Answer with where to upload an mpack, or that this repo has it."""
    call = enter(owner, slug, "write", _PRESIGN_SCHEMA)
    ticket = presign(
        call.hub,
        call.db,
        call.repo_id,
        call.pusher.user_id,
        call.fields["mpack_id"],
        call.fields["size_bytes"],
    )
    answer: dict[str, Any] = {"uploaded": True}
    if ticket is not None:
        answer = {
            "uploaded": False,
            "upload_url": ticket.upload.url,
            "method": ticket.upload.method,
            "headers": dict(ticket.upload.headers),
            "expires_at": ticket.expires_at,
        }
    return encode_response(answer, request.headers.get("Accept"))


def post_unpack(owner: str, slug: str) -> Response:
    """Verify and store an uploaded mpack, move the branch, and have the mpack indexed."""
    call = enter(owner, slug, "write", UNPACK_SCHEMA)
    mpack_id = call.fields["mpack_id"]
    change = BranchUpdate(
        branch=call.fields["branch"],
        head_commit_id=call.fields["head_commit_id"],
        expected_head=call.fields["expected_head"],
        force=call.fields["force"],
    )
    done = unpack(call.hub, call.db, call.repo_id, call.pusher.user_id, mpack_id, change)
    indexed = done.indexed or request_index(call.hub, call.db, mpack_id)
    if done.indexed:
        request_repack(call.hub, call.repo_id)
    pushed.send(
        current_app_object(),
        repo=call.repo,
        identity=call.identity,
        branch=change.branch,
        head_commit_id=change.head_commit_id,
        result=done,
    )
    answer = {**asdict(done), "indexed": indexed, "index_job": index_job_id(mpack_id)}
    return encode_response(answer, request.headers.get("Accept"))
