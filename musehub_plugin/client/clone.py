"""Clone: a new working copy with everything that a hub's repo has."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from musehub_plugin.client.checkout import CheckedOut, checkout
from musehub_plugin.client.errors import WorkdirError
from musehub_plugin.client.fetch import Fetched, note_heads, receive
from musehub_plugin.client.protocol import get_refs
from musehub_plugin.client.remotes import set_remote
from musehub_plugin.client.transport import HubTransport
from musehub_plugin.client.workdir import MUSE, Workdir


@dataclass
class Cloned:
    """What a clone made.

    Attributes:
        workdir: the new working copy.
        branch: the branch that is checked out.
        head: its commit; None where the repo is empty.
        fetched: what came.
        files: what was written into the working tree.
    """

    workdir: Workdir
    branch: str
    head: str | None
    fetched: Fetched
    files: CheckedOut


def clone(hub: HubTransport, target: Path, *, branch: str | None = None) -> Cloned:
    """Make a working copy of a hub's repo: every branch here as there, one of them checked out, `origin` set.

    Args:
        hub: the repo.
        target: the folder; it must be missing or empty. Where the clone fails it is as it was.
        branch: the branch to check out; None: the repo's default branch, or the first where that has no commits.

    Raises:
        WorkdirError: the folder is in use, or there is no such branch; the message names those that are.
        HubRefused: there is no such repo, or the caller may not read it.
        HubUnreachable: the hub or its storage did not answer.
        BadMPack: what came is not what it says.
    """
    existed = target.exists()
    if existed and (not target.is_dir() or any(target.iterdir())):
        raise WorkdirError(f"{target} is there and not empty; name another folder")
    refs = get_refs(hub)
    heads = refs.branch_heads
    if branch is not None and branch not in heads:
        known = ", ".join(sorted(heads)[:20]) or "none"
        raise WorkdirError(f"the repo has no branch {branch!r:.100}; it has: {known}")
    if branch is None:
        branch = refs.default_branch
        if heads and branch not in heads:
            branch = min(heads)
    try:
        workdir = Workdir.create(target, repo_id=refs.repo_id or None, branch=branch)
        set_remote(workdir, "origin", hub.url, branch)
        fetched = Fetched(unusable=list(refs.unusable))
        with workdir.lock():
            receive(workdir, hub, refs, fetched)
            note_heads(workdir, refs, "origin", fetched)
            for name in fetched.updated:
                workdir.set_branch(name, heads[name])
            head = heads.get(branch)
            files = checkout(workdir, head) if head is not None else CheckedOut()
        return Cloned(workdir, branch, head, fetched, files)
    except BaseException:
        # Whatever it was, half a clone helps nobody; an interruption from the keyboard is no exception.
        if existed:
            for entry in target.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        else:
            shutil.rmtree(target, ignore_errors=True)
        raise


def folder_name(url: str) -> str:
    """Return the folder that a clone of a URL goes to by default: the URL's last segment.

    Raises:
        WorkdirError: it can be no folder's name.
    """
    name = url.rstrip("/").rpartition("/")[2]
    if name in {"", ".", "..", MUSE} or "\0" in name:
        raise WorkdirError("name the folder that the clone shall go to")
    return name
