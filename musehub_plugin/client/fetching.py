"""Fetch: brings what a remote's branches reach, and notes where they stand. Local branches and files stay."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from musehub_plugin import ids
from musehub_plugin.client.applied import Applied
from musehub_plugin.client.errors import BadMPack, HubRefused, HubUnreachable, WorkdirError
from musehub_plugin.client.keeping import drop_covered, keep_mpack
from musehub_plugin.client.protocol import (
    MAX_WANTS,
    OfferedMPack,
    RemoteRefs,
    ask_fetch,
    get_refs,
)
from musehub_plugin.client.transport import HubTransport
from musehub_plugin.client.workdir import Workdir


@dataclass
class Fetched:
    """What a fetch did.

    Attributes:
        updated: branches of the remote that are new or moved: `{branch: (before, now)}`, before None for new ones.
        pruned: branches that the remote no longer has, whose notes were dropped.
        gone: branches that it no longer has, whose notes stay.
        unusable: branches of the remote that this working copy cannot note, by name.
        new_commits: commits that the working copy did not have.
        new_snapshots: snapshots that it did not have.
        new_blobs: blobs that it did not have.
        received_bytes: size of the mpacks.
    """

    updated: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    pruned: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    new_commits: int = 0
    new_snapshots: int = 0
    new_blobs: int = 0
    received_bytes: int = 0


def fetch(
    workdir: Workdir, hub: HubTransport, *, remote: str = "origin", prune: bool = False, repair: bool = False
) -> Fetched:
    """Bring what a remote's branches reach, and note where they stand in `.muse/remotes`.

    Args:
        workdir: the working copy.
        hub: the remote.
        remote: the remote's name here.
        prune: drop the notes of branches that the remote no longer has.
        repair: bring everything again and write it over what is there, which mends damaged and missing files.

    Raises:
        HubRefused: the hub refused, or was not ready for longer than is waited.
        HubUnreachable: the hub or its storage did not answer.
        BadMPack: what came is not what it says.
        WorkdirError: the working copy is damaged, or in use.
    """
    with workdir.lock():
        refs = get_refs(hub)
        result = Fetched(unusable=list(refs.unusable))
        try:
            receive(workdir, hub, refs, result, repair=repair)
        except HubRefused as refused:
            if refused.status != 404:
                raise
            # A branch may have been deleted since it was named.
            refs = get_refs(hub)
            receive(workdir, hub, refs, result, repair=repair)
        note_heads(workdir, refs, remote, result)
        gone = sorted(workdir.remote_heads(remote).keys() - refs.branch_heads.keys())
        if prune:
            for branch in gone:
                workdir.forget_remote_head(remote, branch)
            result.pruned = gone
        else:
            result.gone = gone
    return result


def receive(workdir: Workdir, hub: HubTransport, refs: RemoteRefs, result: Fetched, *, repair: bool = False) -> None:
    """Bring into a working copy what a remote's branches reach.

    Args:
        workdir: the working copy.
        hub: the remote.
        refs: its branches.
        result: where counts are added.
        repair: bring everything, and write it over what is there.
    """
    if repair:
        workdir.packs.set_unlistable_aside()
    heads = dict.fromkeys(refs.branch_heads.values())
    wants = [head for head in heads if repair or not workdir.has_commit(head)]
    arrived: list[str] = []
    while some := wants[:MAX_WANTS]:
        wants = wants[MAX_WANTS:]
        # What came a moment ago is had, if everything is fetched again or not.
        have = arrived if repair else _common(workdir, hub, some, arrived)
        new: set[str] = set()
        for offered, applied in _receive_packs(workdir, hub, some, have, refs.capabilities, rewrite=repair):
            new.add(offered.mpack_id)
            if applied is not None:
                result.received_bytes += offered.size_bytes
                result.new_commits += applied.new_commits
                result.new_snapshots += applied.new_snapshots
                result.new_blobs += applied.new_blobs
        if repair and workdir.packs.kept:
            fresh = [pack for pack in workdir.packs if pack.mpack_id in new]
            workdir.reach_disk()
            drop_covered(workdir, [pack for pack in workdir.packs if pack.mpack_id not in new], fresh)
        arrived += some
        for head in some:
            if not workdir.has_commit(head):
                raise WorkdirError(f"{hub.url} sent no commit {head}; try `musehub fetch --repair`")


def note_heads(workdir: Workdir, refs: RemoteRefs, remote: str, result: Fetched) -> None:
    """Note where a remote's branches stand; their commits must be there."""
    known = workdir.remote_heads(remote)
    gone = known.keys() - refs.branch_heads.keys()
    for branch, head in refs.branch_heads.items():
        before = known.get(branch)
        if before == head:
            continue
        # A branch that is gone may be in the way of one that is new: `a` of `a/b`.
        for old in gone:
            if old.startswith(branch + "/") or branch.startswith(old + "/"):
                workdir.forget_remote_head(remote, old)
        try:
            workdir.set_remote_head(remote, branch, head)
        except WorkdirError:
            result.unusable.append(branch)
        else:
            result.updated[branch] = (before, head)


def _common(workdir: Workdir, hub: HubTransport, want: Sequence[str], arrived: Sequence[str]) -> Sequence[str]:
    if workdir.holds_nothing():
        return arrived
    # Not for a new clone, which starts the sooner.
    from musehub_plugin.client.negotiating import common_commits

    return common_commits(workdir, hub, want, extra=arrived)


def _receive_packs(
    workdir: Workdir,
    hub: HubTransport,
    want: Sequence[str],
    have: Sequence[str],
    capabilities: Collection[str],
    *,
    rewrite: bool,
) -> Iterator[tuple[OfferedMPack, Applied | None]]:
    """Bring the mpacks that lead from `have` to `want`, and yield each when it is applied; None: it was here before."""
    parts: set[Path] = set()
    applied: set[str] = set()
    capabilities = set(capabilities)
    idle = 0
    while True:
        hub.progress("planning", 0, None)
        offered = ask_fetch(hub, want, have, capabilities)
        current = {workdir.partial_path(each.mpack_id) for each in offered}
        for part in parts - current:
            # The plan is another one by now.
            part.unlink(missing_ok=True)
        parts = current
        try:
            for each in offered:
                if each.mpack_id in applied:
                    continue
                part = workdir.partial_path(each.mpack_id)
                came = _size_of(part)
                yield each, _received(workdir, hub, each, part, rewrite=rewrite)
                applied.add(each.mpack_id)
                idle = 0
            break
        except HubRefused as refused:
            # The URL has expired, or its mpack was replaced by a better one: another is asked for, as long as
            # something came by the last one, and once where nothing did.
            idle = idle + 1 if _size_of(part) == came else 0
            if idle > 1 or refused.status not in {403, 404}:
                raise
        except BadMPack:
            if "thin" not in capabilities or not have:
                raise
            # What it starts from may be damaged here, and then a whole one does without.
            capabilities.remove("thin")
    # Only now: until all is here, a fetch that broke off brings none of them again.
    for part in parts:
        part.unlink(missing_ok=True)


def _received(
    workdir: Workdir, hub: HubTransport, offered: OfferedMPack, part: Path, *, rewrite: bool
) -> Applied | None:
    """Bring one mpack, verify it and take it in."""
    if not rewrite and workdir.packs.holds(offered.mpack_id):
        return None
    if isinstance(offered.source, str):
        hub.download("fetch", offered.source, part, mpack_id=offered.mpack_id, size=offered.size_bytes)
    else:
        if len(offered.source) != offered.size_bytes or ids.blob_id(offered.source) != offered.mpack_id:
            raise HubUnreachable(f"{hub.url} sent something else than the mpack {offered.mpack_id}")
        part.write_bytes(offered.source)
    workdir.rewrite = rewrite
    try:
        if workdir.packs.kept:
            return keep_mpack(workdir, part, offered.mpack_id, progress=hub.progress)
        # Not for a bare clone, as above.
        from musehub_plugin.client.apply import apply_mpack

        return apply_mpack(workdir, part, progress=hub.progress)
    except BadMPack:
        # Whatever it is, it is not gone on with.
        part.unlink(missing_ok=True)
        raise
    finally:
        workdir.rewrite = False


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
