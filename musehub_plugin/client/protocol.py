"""The requests of the fetch and push protocols (the contract's sections 2 and 3), typed and checked.

A hub's answer is a stranger's: what this module returns has the types that it says, and ids that are ids.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from musehub_plugin import ids
from musehub_plugin.client.errors import HubUnreachable
from musehub_plugin.client.transport import HubTransport
from musehub_plugin.names import bad_branch_name

MAX_WANTS: Final = 1_000
MAX_HAVES: Final = 100_000
CAPABILITIES: Final = ("mpacks", "inline", "thin")
"""What this client can do beyond the plain protocol, as far as a hub offers it too."""
# A hub verifies and stores a pushed mpack before it answers.
_UNPACK_TIMEOUT: Final = 600.0


class RemoteRefs(NamedTuple):
    """What a repo's `refs` says.

    Attributes:
        repo_id: the repo's id on the hub.
        default_branch: the branch that a clone checks out.
        branch_heads: `{branch: commit_id}`.
        unusable: names of branches that no working copy could hold; they are left out of `branch_heads`.
        capabilities: what the hub offers beyond the plain protocol.
    """

    repo_id: str
    default_branch: str
    branch_heads: Mapping[str, str]
    unusable: Sequence[str]
    capabilities: Collection[str] = ()


class OfferedMPack(NamedTuple):
    """One of the mpacks that answer a fetch.

    Attributes:
        mpack_id: its id.
        size_bytes: its size.
        source: the URL that it is at, or the bytes themselves; neither is checked yet.
    """

    mpack_id: str
    size_bytes: int
    source: str | bytes


class Negotiated(NamedTuple):
    """Which of the named commits the hub holds, and whether it needs to know no more."""

    ack: frozenset[str]
    ready: bool


class UploadTicket(NamedTuple):
    """Where an mpack goes; None as `url`: the hub has it already."""

    url: str | None
    method: str
    headers: Mapping[str, str]


class Unpacked(NamedTuple):
    """What a push stored, and where the branches are now."""

    branch_heads: Mapping[str, str]
    commit_count: int
    snapshot_count: int
    blob_count: int
    index_job: str | None


def get_refs(hub: HubTransport) -> RemoteRefs:
    """Ask for a repo's branches.

    Raises:
        HubRefused: there is no such repo, or the caller may not read it.
        HubUnreachable: no answer, or one that no hub gives.
    """
    answer = hub.get("refs")
    heads, unusable = _heads(hub, answer)
    default_branch = answer.get("default_branch")
    if not isinstance(default_branch, str) or bad_branch_name(default_branch) is not None:
        default_branch = "main"
    repo_id = answer.get("repo_id")
    offered = answer.get("capabilities")
    capabilities = frozenset(name for name in offered if isinstance(name, str)) if isinstance(offered, list) else ()
    return RemoteRefs(repo_id if isinstance(repo_id, str) else "", default_branch, heads, unusable, capabilities)


def ask_fetch(
    hub: HubTransport, want: Sequence[str], have: Iterable[str], offered: Collection[str] = ()
) -> list[OfferedMPack]:
    """Ask for what leads from `have` to `want`: mpacks, to be applied in this order; none where nothing is lacking.

    Args:
        hub: the repo.
        want: commits that the hub has.
        have: commits that are here, with all that they reach.
        offered: the capabilities that the hub offers; those that this client has too are made use of.

    Raises:
        HubRefused: the hub does not have a want, or its mpack index stays behind for longer than is waited.
        HubUnreachable: no answer, or one that no hub gives.
    """
    body: dict[str, Any] = {"want": list(want), "have": list(have)}
    # A thin mpack starts from what the haves reach.
    capabilities = [name for name in CAPABILITIES if name in offered and (name != "thin" or body["have"])]
    if capabilities:
        body["capabilities"] = capabilities
    answer = hub.post("fetch", body)
    several = answer.get("mpacks")
    if isinstance(several, list) and several:
        return [_offered(hub, each, "url", "id") for each in several]
    if answer.get("mpack_url") is None and answer.get("mpack_id") is None:
        return []
    return [_offered(hub, answer, "mpack_url", "mpack_id")]


def _offered(hub: HubTransport, entry: object, url_key: str, id_key: str) -> OfferedMPack:
    if not isinstance(entry, dict) or not ids.is_id(entry.get(id_key)) or _count(entry, "size_bytes") == 0:
        raise _no_hub(hub, "fetch")
    url, content = entry.get(url_key), entry.get("mpack")
    if url is None and isinstance(content, str):
        # JSON has no bytes.
        try:
            content = base64.b64decode(content, validate=True)
        except binascii.Error:
            raise _no_hub(hub, "fetch") from None
    source = content if url is None else url
    if not isinstance(source, str if url is not None else bytes):
        raise _no_hub(hub, "fetch")
    return OfferedMPack(entry[id_key], _count(entry, "size_bytes"), source)


def negotiate(hub: HubTransport, want: Sequence[str], have: Sequence[str]) -> Negotiated:
    """Ask which commits of `have` the hub holds.

    Raises:
        HubRefused: the hub does not have a want.
        HubUnreachable: no answer, or one that no hub gives.
    """
    answer = hub.post("negotiate", {"want": list(want), "have": list(have)})
    ack = answer.get("ack")
    if not isinstance(ack, list):
        raise _no_hub(hub, "negotiate")
    return Negotiated(frozenset(have).intersection(filter(ids.is_id, ack)), answer.get("ready") is True)


def presign(hub: HubTransport, mpack_id: str, size_bytes: int) -> UploadTicket:
    """Ask where to upload an mpack.

    Raises:
        HubRefused: the caller may not push here, or the mpack is too large.
        HubUnreachable: no answer, or one that no hub gives.
    """
    answer = hub.post("push/presign", {"mpack_id": mpack_id, "size_bytes": size_bytes})
    if answer.get("uploaded") is True:
        return UploadTicket(None, "PUT", {})
    url, method, headers = answer.get("upload_url"), answer.get("method", "PUT"), answer.get("headers", {})
    if not isinstance(url, str) or method not in {"PUT", "POST"} or not isinstance(headers, dict):
        raise _no_hub(hub, "push/presign")
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in headers.items()):
        raise _no_hub(hub, "push/presign")
    return UploadTicket(url, method, headers)


def unpack(
    hub: HubTransport, mpack_id: str, *, branch: str, head: str, expected_head: str | None, force: bool
) -> Unpacked:
    """Have an uploaded mpack stored and a branch moved.

    Args:
        hub: the repo.
        mpack_id: what was uploaded.
        branch: the branch to move or make.
        head: where it shall point.
        expected_head: where it pointed when the push was prepared; None: it was not there.
        force: move it even where that drops commits from it.

    Raises:
        HubRefused: 409: the branch moved, or would lose commits; 422: something in the mpack is wrong.
        HubUnreachable: no answer, or one that no hub gives.
    """
    body = {
        "mpack_id": mpack_id,
        "branch": branch,
        "head_commit_id": head,
        "expected_head": expected_head,
        "force": force,
    }
    answer = hub.post("push/unpack-mpack", body, timeout=_UNPACK_TIMEOUT)
    job = answer.get("index_job")
    return Unpacked(
        _heads(hub, answer)[0],
        _count(answer, "commit_count"),
        _count(answer, "snapshot_count"),
        _count(answer, "blob_count"),
        job if isinstance(job, str) else None,
    )


def _heads(hub: HubTransport, answer: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    heads = answer.get("branch_heads")
    if not isinstance(heads, dict):
        raise _no_hub(hub, "refs")
    usable: dict[str, str] = {}
    unusable: list[str] = []
    for name, head in sorted((str(name), head) for name, head in heads.items()):
        if ids.is_id(head) and bad_branch_name(name) is None:
            usable[name] = head
        else:
            unusable.append(name)
    return usable, unusable


def _count(answer: Mapping[str, Any], key: str) -> int:
    value = answer.get(key)
    return value if isinstance(value, int) and value > 0 else 0


def _no_hub(hub: HubTransport, resource: str) -> HubUnreachable:
    return HubUnreachable(f"the answer of {hub.url}/{resource} is no answer of a muse hub; is the URL right?")
