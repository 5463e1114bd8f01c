"""Bare working copies: turning packs into files, and files into a pack."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

from musehub_plugin.client.apply import LooseStore, apply_to
from musehub_plugin.client.building import built_mpack
from musehub_plugin.client.errors import WorkdirError
from musehub_plugin.client.history import History
from musehub_plugin.client.keeping import drop_covered, keep_mpack
from musehub_plugin.client.packindex import KINDS
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.client.worktree import CheckedOut, checkout


@dataclass(frozen=True)
class Packed:
    """What packing or unpacking did.

    Attributes:
        commit_count: commits that were turned into the other form.
        snapshot_count: snapshots.
        blob_count: blobs.
        size_bytes: size of the packs.
        files: what was done in the working tree, where there was none.
    """

    commit_count: int
    snapshot_count: int
    blob_count: int
    size_bytes: int
    files: CheckedOut = field(default_factory=CheckedOut)


def unpack(workdir: Workdir, *, progress: Progress = silent) -> Packed:
    """Turn packs into a file for each entity, which the public muse client reads, and check out a bare working copy.

    Where it breaks off the packs are still there, and a second call completes it.

    Args:
        workdir: the working copy.
        progress: told about blobs, snapshots and commits written.

    Raises:
        WorkdirError: the working copy keeps no packs.
        BadMPack: a pack is damaged; `musehub fetch --repair` brings it again.
    """
    with workdir.lock():
        if not workdir.packs.kept and not workdir.bare:
            raise WorkdirError(f"{workdir.root} keeps no packs; there is nothing to unpack")
        # The oldest first: what a pack leans on came before it.
        packs = list(workdir.packs)[::-1]
        counts = {kind: sum(1 for _ in workdir.packs.ids(kind)) for kind in KINDS}
        size = sum(pack.path.stat().st_size for pack in packs)
        for pack in packs:
            with pack.path.open("rb") as file:
                apply_to(LooseStore(workdir), file, progress=progress, folder=workdir.temp_folder)
        files = CheckedOut()
        head = workdir.head_commit()
        if workdir.bare and head is not None:
            files = checkout(workdir, head, progress=progress)
        if workdir.bare:
            workdir.end_bareness()
        workdir.reach_disk()
        drop_packs(workdir)
    return Packed(counts["commits"], counts["snapshots"], counts["objects"], size, files)


def pack(workdir: Workdir, *, progress: Progress = silent) -> Packed:
    """Turn a working copy into one that keeps one pack of all that its refs reach, beside the files of its tree.

    What no branch, tag or remote branch reaches stays as it is. The public muse client does not read packs. Where it
    breaks off everything is still there, and a second call completes it.

    Args:
        workdir: the working copy; one that keeps packs already gets one in place of many.
        progress: told about what is packed, verified and removed.

    Raises:
        WorkdirError: something that the refs reach is missing, or there are no commits.
    """
    with workdir.lock():
        heads = sorted({*workdir.branches().values(), *workdir.tags().values(), *workdir.all_remote_heads()})
        if not heads:
            raise WorkdirError(f"{workdir.root} has no commits to pack")
        before = list(workdir.packs)
        with built_mpack(workdir, History(workdir), heads, [], progress) as built:
            # Its own work is checked like a stranger's: what was files is removed on the strength of it.
            keep_mpack(workdir, built.path, built.mpack_id, progress=progress)
        new = next(each for each in workdir.packs if each.mpack_id == built.mpack_id)
        workdir.reach_disk()
        done = 0
        for kind in KINDS[::-1]:
            # Where a file system loses its place in a folder as files go, what it passes over stays, and does no harm.
            for entity_id in workdir.loose_ids(kind):
                if new.index.has(kind, entity_id):
                    workdir.remove_loose(kind, entity_id)
                    done += 1
                    progress("removing", done, None)
        drop_covered(workdir, [each for each in before if each.mpack_id != new.mpack_id], [new])
        summary = built.summary
    return Packed(summary.commit_count, summary.snapshot_count, summary.blob_count, summary.size_bytes)


def drop_packs(workdir: Workdir) -> None:
    """Remove all packs; their content must be there as files."""
    workdir.packs.forget()
    if not workdir.packs.kept:
        return
    # Out of the way at once: half of the packs would be a damaged working copy.
    gone = workdir.temp_path()
    workdir.packs.folder.rename(gone)
    shutil.rmtree(gone)
