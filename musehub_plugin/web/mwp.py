"""The resources of a repo as the released `muse` command wants them: `musehub_plugin.mwp` says what is different.

Who is calling and what they may do is settled where it is for the plugin's own resources; so are the limits, but for
those that the command's habits need wider. Answers are msgpack or JSON by `Accept`, but a fetch is always msgpack, and
an error always JSON: the command shows its user the first 400 characters of it as they are, and finds what it says in
`detail`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, Final
from urllib.parse import quote

from flask import Response, request
from werkzeug.wsgi import FileWrapper

from musehub_plugin import refs
from musehub_plugin.access import Action
from musehub_plugin.config import Settings
from musehub_plugin.errors import Conflict, Invalid, TooLarge
from musehub_plugin.fetch import FetchAnswer
from musehub_plugin.hub import current_app_object, current_hub
from musehub_plugin.ids import to_hex
from musehub_plugin.jobs.queue import request_repack
from musehub_plugin.mwp.bundle import MAX_DELTA, SentPush, sent_objects
from musehub_plugin.mwp.fetch import AnswerTooLarge, bare_heads, fetched_history
from musehub_plugin.mwp.push import push
from musehub_plugin.mwp.staging import lacking_objects, stage
from musehub_plugin.signals import fetched, pushed
from musehub_plugin.web.body import JSON_TYPE
from musehub_plugin.web.door import Call, enter, enter_with_file
from musehub_plugin.web.fetch import rearming
from musehub_plugin.web.fields import Ids, Schema, Text
from musehub_plugin.web.negotiation import MSGPACK_TYPE, answer_headers, encode_response
from musehub_plugin.web.problems import problem_headers, problem_members

DOMAIN: Final = "code"
_CHUNK: Final = 64 * 1024
_SENT_WHOLE: Final = 1024 * 1024
# msgpack of a bare id takes 66 bytes; JSON may have a few spaces more.
_BYTES_PER_ID: Final = 80


def get_refs(owner: str, slug: str) -> Response:
    """Answer with the branches, or 304 where they are those that the caller knows."""
    call = enter(owner, slug, "read")
    known = refs.refs(call.db, call.repo)
    answer = {
        "repo_id": known.repo_id,
        "domain": DOMAIN,
        "default_branch": known.default_branch,
        "branch_heads": bare_heads(known.branch_heads),
    }
    response = encode_response(answer, _accept(), cache_control="private, no-cache")
    response.add_etag()
    response.make_conditional(request)
    return response


def post_negotiate(owner: str, slug: str) -> Response:
    """Answer which of the caller's commits the repo holds.

    Where the caller holds all that it wants, `ready` is false and there is no base: that is what the command expects.
    """
    call = _enter_with_ids(owner, slug, "read", _fetch_schema(current_hub().settings))
    want, have = call.fields["want"], call.fields["have"]
    found = refs.negotiate(call.hub, call.db, call.repo_id, want, have)
    has_all = set(have).issuperset(want)
    answer = {
        "ack": [to_hex(commit_id) for commit_id in found.ack],
        "common_base": None if has_all or found.common_base is None else to_hex(found.common_base),
        "ready": found.ready and not has_all,
    }
    return encode_response(answer, _accept())


def post_fetch(owner: str, slug: str) -> Response:
    """Answer with what the caller lacks: commits, snapshots and blobs, in the body."""
    call = _enter_with_ids(owner, slug, "read", _fetch_schema(current_hub().settings))
    try:
        with rearming(call):
            file, plan = fetched_history(call.hub, call.db, call.repo_id, call.fields["want"], call.fields["have"])
    except AnswerTooLarge as error:
        settings = call.hub.settings
        # By what the hub is reached is known from the settings alone: a Host header is anybody's.
        hub = settings.public_url or "https://HUB"
        url = f"{hub}{settings.url_prefix}/{quote(owner)}/{quote(slug)}"
        detail = f"This history is more than the 64 MiB that muse reads at once: use `musehub clone {url}`."
        raise TooLarge(detail, limit=error.extra["limit"], code=error.code) from None
    size = file.seek(0, 2)
    file.seek(0)
    answer = FetchAnswer(
        mpack_url=None,
        mpack_id=None,
        commit_count=len(plan.commit_ids),
        snapshot_count=len(plan.snapshot_ids),
        blob_count=len(plan.object_ids),
        object_count=len(plan.object_ids),
        size_bytes=size,
        expires_at=None,
    )
    fetched.send(current_app_object(), repo=call.repo, identity=call.identity, answer=answer)
    return _file_response(file, size)


def _file_response(file: IO[bytes], size: int) -> Response:
    if size <= _SENT_WHOLE:
        with file:
            response = Response(file.read(), content_type=MSGPACK_TYPE)
    else:
        # Closing the response closes the file.
        response = Response(FileWrapper(file, _CHUNK), content_type=MSGPACK_TYPE, direct_passthrough=True)
        response.content_length = size
    response.headers.update(answer_headers())
    return response


def post_filter_objects(owner: str, slug: str) -> Response:
    """Answer which blobs a push would have to send: what the repo holds, or the caller has sent, is not needed."""
    call = _enter_with_ids(owner, slug, "write", {"object_ids": _ids(current_hub().settings)})
    lacking = lacking_objects(call.db, call.repo_id, call.pusher.user_id, call.fields["object_ids"])
    return encode_response({"missing": [to_hex(object_id) for object_id in lacking]}, _accept())


def post_presign(owner: str, slug: str) -> Response:
    """Answer that every blob is to be sent to `push/objects`.

    The command would PUT a blob to a URL without saying its size or its hash to anybody, so that no store could
    refuse other bytes.
    """
    schema: Schema = {"object_ids": _ids(current_hub().settings), "direction": Text(limit=16, default="put")}
    call = _enter_with_ids(owner, slug, "write", schema)
    if call.fields["direction"] != "put":
        raise Invalid("direction: only put is offered; a fetch brings its blobs along.")
    inline = [to_hex(object_id) for object_id in call.fields["object_ids"]]
    return encode_response({"presigned": {}, "inline": inline}, _accept())


def post_objects(owner: str, slug: str) -> Response:
    """Keep blobs for the push that will name them."""
    with enter_with_file(owner, slug, "write", current_hub().settings.mwp_max_body) as (call, file):
        received = stage(call.hub, call.db, call.repo_id, call.pusher.user_id, sent_objects(file))
    return encode_response({"stored": received.stored, "skipped": received.skipped}, _accept())


def post_push(owner: str, slug: str) -> Response:
    """Store commits and snapshots with the blobs that were sent for them, and move the branch."""
    with enter_with_file(owner, slug, "write", current_hub().settings.mwp_max_body) as (call, file):
        sent = SentPush(file, call.hub.settings)
        try:
            done = push(call.hub, call.db, call.repo_id, call.pusher, sent)
        except Conflict as error:
            raise _conflict_for_muse(error, sent.branch) from None
    request_repack(call.hub, call.repo_id)
    pushed.send(
        current_app_object(),
        repo=call.repo,
        identity=call.identity,
        branch=sent.branch,
        head_commit_id=done.head_commit_id,
        result=done.result,
    )
    message = f"pushed {done.result.commit_count} commit(s) to '{sent.branch}'"
    if sent.dropped_deltas:
        message += f"; {sent.dropped_deltas} without a structured_delta of more than {MAX_DELTA} bytes"
    answer = {
        "ok": True,
        "message": message,
        "branch_heads": bare_heads(done.result.branch_heads),
        "remote_head": to_hex(done.head_commit_id),
    }
    return encode_response(answer, _accept())


def problem_for_muse(
    status: int,
    code: str,
    detail: str,
    *,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem as the command understands it: JSON with `detail` first; the other members are as ever."""
    members = problem_members(status, code, detail, extra)
    body = {"detail": members.pop("detail"), **members}
    return encode_response(body, JSON_TYPE, status=int(status), headers=problem_headers(status, headers))


def _conflict_for_muse(error: Conflict, branch: str) -> Conflict:
    detail = error.detail
    if error.code == "non-fast-forward":
        detail = f"non-fast-forward push to '{branch}' - use force=true to overwrite"
    return Conflict(detail, code=error.code, extra={"branch_heads": bare_heads(error.extra.get("branch_heads", {}))})


def _enter_with_ids(owner: str, slug: str, action: Action, schema: Schema) -> Call:
    settings = current_hub().settings
    limit = max(settings.max_body, _BYTES_PER_ID * settings.mwp_max_ids)
    return enter(owner, slug, action, schema, limit=limit)


def _fetch_schema(settings: Settings) -> Schema:
    return {
        "want": Ids(limit=settings.max_wants, minimum=1, bare=True),
        "have": Ids(limit=settings.mwp_max_ids, default=(), bare=True),
    }


def _ids(settings: Settings) -> Ids:
    return Ids(limit=settings.mwp_max_ids, bare=True)


def _accept() -> str | None:
    return request.headers.get("Accept")
