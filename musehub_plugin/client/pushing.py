"""Push: sends what a hub lacks of local branches, and moves the branches there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from musehub_plugin.client.building import BuiltMPack, built_mpack
from musehub_plugin.client.errors import ClientError, WorkdirError
from musehub_plugin.client.history import History
from musehub_plugin.client.negotiating import common_commits
from musehub_plugin.client.protocol import MAX_WANTS, RemoteRefs, get_refs, presign, unpack
from musehub_plugin.client.transport import HubTransport
from musehub_plugin.client.workdir import Workdir


class NotFastForwardError(ClientError):
    """A push would drop commits from a branch of the hub; nothing was sent."""


@dataclass(frozen=True)
class PushedBranch:
    """One branch of a push.

    Attributes:
        branch: its name.
        before: where it was on the hub; None: it is new there.
        head: where it is now.
    """

    branch: str
    before: str | None
    head: str


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        branches: those that moved; none: the hub had everything.
        commit_count: commits sent.
        snapshot_count: snapshots sent.
        blob_count: blobs sent.
        sent_bytes: size of the mpack.
    """

    branches: Sequence[PushedBranch]
    commit_count: int = 0
    snapshot_count: int = 0
    blob_count: int = 0
    sent_bytes: int = 0


def push(
    workdir: Workdir,
    hub: HubTransport,
    *,
    remote: str = "origin",
    branches: Sequence[str] | None = None,
    force: bool = False,
) -> Pushed:
    """Send local branches to a remote, all in one mpack.

    Args:
        workdir: the working copy.
        hub: the remote.
        remote: the remote's name here.
        branches: the branches to push, the first one first; None: HEAD's.
        force: move a branch even where that drops commits from it on the hub.

    Raises:
        NotFastForwardError: a branch on the hub has commits that the local one lacks.
        HubRefused: the hub refused; 409: a branch moved in between.
        HubUnreachable: the hub or its storage did not answer.
        WorkdirError: there is no such branch, or something that it reaches is missing.
    """
    with workdir.lock():
        heads = _local_heads(workdir, branches)
        refs = get_refs(hub)
        history = History(workdir)
        moves = [
            PushedBranch(branch, refs.branch_heads.get(branch), head)
            for branch, head in heads.items()
            if refs.branch_heads.get(branch) != head
        ]
        if not force:
            for move in moves:
                _require_fast_forward(workdir, history, move, remote)
        if not moves:
            _note(workdir, remote, refs.branch_heads, heads)
            return Pushed([])
        held = _held(workdir, hub, refs)
        with built_mpack(workdir, history, [move.head for move in moves], held, hub.progress) as pack:
            return _send(workdir, hub, remote, moves, pack, force=force)


def _send(
    workdir: Workdir,
    hub: HubTransport,
    remote: str,
    moves: Sequence[PushedBranch],
    pack: BuiltMPack,
    *,
    force: bool,
) -> Pushed:
    ticket = presign(hub, pack.mpack_id, pack.summary.size_bytes)
    if ticket.url is not None:
        hub.upload("push/presign", ticket.url, pack.path, method=ticket.method, headers=ticket.headers)
    for move in moves:
        # The first stores the mpack; to the others the hub has it already, and moves their branch alone.
        done = unpack(hub, pack.mpack_id, branch=move.branch, head=move.head, expected_head=move.before, force=force)
        _note(workdir, remote, done.branch_heads, {move.branch: move.head})
    summary = pack.summary
    return Pushed(moves, summary.commit_count, summary.snapshot_count, summary.blob_count, summary.size_bytes)


def _local_heads(workdir: Workdir, branches: Sequence[str] | None) -> dict[str, str]:
    if branches is None:
        branch = workdir.head_branch()
        if branch is None:
            raise WorkdirError("HEAD is on no branch; name the branch to push")
        branches = [branch]
    heads: dict[str, str] = {}
    for branch in branches:
        head = workdir.branch_head(branch)
        if head is None:
            known = ", ".join(sorted(workdir.branches())[:20]) or "none has commits"
            raise WorkdirError(f"there is no branch {branch!r:.100} to push; there are: {known}")
        heads[branch] = head
    return heads


def _require_fast_forward(workdir: Workdir, history: History, move: PushedBranch, remote: str) -> None:
    if move.before is None:
        return
    if not workdir.has_commit(move.before) or not history.is_ancestor(move.before, move.head):
        raise NotFastForwardError(
            f"{move.branch} on {remote} has commits that your {move.branch} lacks; `musehub fetch {remote}` and merge "
            f"them, or drop them with `musehub push --force {remote} {move.branch}`"
        )


def _held(workdir: Workdir, hub: HubTransport, refs: RemoteRefs) -> list[str]:
    """Return commits of the working copy that the hub has, with all that they reach."""
    there = list(dict.fromkeys(refs.branch_heads.values()))
    here = [head for head in there if workdir.has_commit(head)]
    if len(here) == len(there):
        return here
    # Commits that others pushed may stand on commits that both sides have.
    return common_commits(workdir, hub, there[:MAX_WANTS], extra=here)


def _note(workdir: Workdir, remote: str, there: Mapping[str, str], pushed: Mapping[str, str]) -> None:
    for branch, head in pushed.items():
        if there.get(branch) == head:
            workdir.set_remote_head(remote, branch, head)
