"""Clone: a new working copy with everything that a hub's repo has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from musehub_plugin.client.errors import HubRefused, HubUnreachable, WorkdirError
from musehub_plugin.client.fetching import Fetched, note_heads, receive
from musehub_plugin.client.protocol import RemoteRefs, get_refs
from musehub_plugin.client.remoteconfig import set_remote
from musehub_plugin.client.transport import HubTransport
from musehub_plugin.client.workdir import MUSE, Workdir
from musehub_plugin.client.worktree import CheckedOut, checkout


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


def clone(hub: HubTransport, target: Path, *, branch: str | None = None, bare: bool = False) -> Cloned:
    """Make a working copy of a hub's repo: every branch here as there, one of them checked out, `origin` set.

    A clone that broke off while its mpack came, or that was killed, goes on where it was when it is called again with
    the same URL and folder. Where it fails otherwise, the folder is as it was.

    Args:
        hub: the repo.
        target: the folder; it must be missing, empty, or hold a clone of the same URL that broke off.
        branch: the branch to check out; None: the repo's default branch, or the first where that has no commits.
        bare: keep the mpacks as they come, and check out no files.

    Raises:
        WorkdirError: the folder is in use, or there is no such branch; the message names those that are.
        HubRefused: there is no such repo, or the caller may not read it.
        HubUnreachable: the hub or its storage did not answer; what came is kept, if anything did.
        BadMPack: what came is not what it says.
    """
    existed = target.exists()
    before = _taken_up(target, hub, bare=bare) if existed else None
    refs = get_refs(hub)
    branch = _chosen(refs, branch)
    try:
        workdir = before or Workdir.create(
            target, repo_id=refs.repo_id or None, branch=branch, bare=bare, clone_of=hub.url
        )
        return _filled(workdir, hub, refs, branch)
    except BaseException as error:
        # Whatever it was, half a clone helps nobody, unless calling again would go on with it.
        if before is None and not (_may_go_on(error) and any((target / MUSE).rglob("*.part"))):
            _clear(target, existed=existed)
        elif isinstance(error, HubUnreachable):
            raise HubUnreachable(f"{error}; what came is kept: run the same command again to go on") from None
        raise


def _taken_up(target: Path, hub: HubTransport, *, bare: bool) -> Workdir | None:
    """Return the clone that broke off in a folder; None where the folder is empty."""
    if target.is_dir():
        Workdir.remove_unborn(target)
        if not any(target.iterdir()):
            return None
    if target.is_dir() and (target / MUSE).is_dir():
        workdir = Workdir(target)
        noted = workdir.unfinished_clone()
        if noted is not None and noted.get("url") == hub.url and workdir.bare == bare:
            return workdir
        if noted is not None:
            kind = "bare clone" if workdir.bare else "clone"
            raise WorkdirError(
                f"{target} holds a {kind} of {noted.get('url', 'a hub')} that broke off; end it by the command that "
                "began it, or remove the folder"
            )
    raise WorkdirError(f"{target} is there and not empty; name another folder")


def _chosen(refs: RemoteRefs, branch: str | None) -> str:
    heads = refs.branch_heads
    if branch is not None and branch not in heads:
        known = ", ".join(sorted(heads)[:20]) or "none"
        raise WorkdirError(f"the repo has no branch {branch!r:.100}; it has: {known}")
    if branch is not None:
        return branch
    return refs.default_branch if not heads or refs.default_branch in heads else min(heads)


def _filled(workdir: Workdir, hub: HubTransport, refs: RemoteRefs, branch: str) -> Cloned:
    """Bring everything into a working copy that is new or broke off, in an order that can break off anywhere."""
    fetched = Fetched(unusable=list(refs.unusable))
    head = refs.branch_heads.get(branch)
    with workdir.lock():
        noted = workdir.unfinished_clone() or {}
        set_remote(workdir, "origin", hub.url, branch)
        receive(workdir, hub, refs, fetched)
        known = workdir.remote_heads("origin")
        for name, commit_id in refs.branch_heads.items():
            if name not in fetched.unusable and workdir.branch_head(name) in {None, known.get(name)}:
                try:
                    workdir.set_branch(name, commit_id)
                except WorkdirError:
                    # Another branch's name is a part of this one's; `note_heads` says so.
                    continue
        note_heads(workdir, refs, "origin", fetched)
        workdir.set_head_branch(branch)
        files = CheckedOut()
        if head is not None and not workdir.bare:
            checked_out = noted.get("checked_out")
            if checked_out is None:
                workdir.note_clone({**noted, "checked_out": head})
            files = checkout(workdir, head, previous=checked_out, progress=hub.progress)
        workdir.note_clone(None)
    return Cloned(workdir, branch, head, fetched, files)


def _may_go_on(error: BaseException) -> bool:
    refused_for_now = isinstance(error, HubRefused) and error.status in {403, 429, 502, 503, 504}
    return refused_for_now or isinstance(error, HubUnreachable | KeyboardInterrupt)


def _clear(target: Path, *, existed: bool) -> None:
    # Here and not above: a clone that succeeds needs none of it.
    import shutil

    if not existed:
        shutil.rmtree(target, ignore_errors=True)
        return
    for entry in target.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def folder_name(url: str) -> str:
    """Return the folder that a clone of a URL goes to by default: the URL's last segment.

    Raises:
        WorkdirError: it can be no folder's name.
    """
    name = url.rstrip("/").rpartition("/")[2]
    if name in {"", ".", "..", MUSE} or "\0" in name:
        raise WorkdirError("name the folder that the clone shall go to")
    return name
