"""Pull: fetches, and moves local branches forward to where the remote's are. Nothing is merged, nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass, field

from musehub_plugin.client.errors import ClientError, WorkdirError
from musehub_plugin.client.fetching import Fetched, fetch
from musehub_plugin.client.history import History
from musehub_plugin.client.transport import HubTransport
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.client.worktree import CheckedOut, checkout, in_the_way


class DivergedError(ClientError):
    """A local branch has commits that the remote's lacks, and the other way round; it was not moved."""


@dataclass
class Pulled:
    """What a pull did.

    Attributes:
        fetched: what came.
        moved: local branches that are new or moved: `{branch: (before, now)}`, before None for new ones.
        ahead: local branches that have commits which the remote lacks; there is something to push.
        files: what was done in the working tree.
    """

    fetched: Fetched
    moved: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    ahead: list[str] = field(default_factory=list)
    files: CheckedOut = field(default_factory=CheckedOut)


def pull(
    workdir: Workdir, hub: HubTransport, *, remote: str = "origin", every_branch: bool = False, force: bool = False
) -> Pulled:
    """Fetch, and move the local branch forward to the remote's; the files of the working tree follow.

    Args:
        workdir: the working copy.
        hub: the remote.
        remote: the remote's name here.
        every_branch: move every branch forward that can be, and make those that are new.
        force: move a branch even where that drops commits from it here; the commits stay in `.muse`.

    Raises:
        DivergedError: HEAD's branch can only be merged.
        WorkdirError: files that are not saved are in the way; or the remote has no such branch.
        HubRefused: as `fetch`.
        HubUnreachable: as `fetch`.
        BadMPack: as `fetch`.
    """
    result = Pulled(fetch(workdir, hub, remote=remote))
    with workdir.lock():
        gone = set(result.fetched.gone)
        there = {branch: head for branch, head in workdir.remote_heads(remote).items() if branch not in gone}
        current = workdir.head_branch()
        if current is None and not every_branch:
            raise WorkdirError("HEAD is on no branch; `musehub fetch` brings what is new without moving anything")
        if current is not None and current not in there and not every_branch:
            known = ", ".join(sorted(there)[:20]) or "none"
            raise WorkdirError(f"{remote} has no branch {current!r:.100}; it has: {known}")
        history = History(workdir)
        # Without `every_branch` there is a current one, and it is there.
        for branch in sorted(there) if every_branch else [str(current)]:
            before, head = workdir.branch_head(branch), there[branch]
            if before == head:
                continue
            if before is None or force or history.is_ancestor(before, head):
                _move(workdir, hub, result, branch, (before, head), is_current=branch == current)
            elif branch == current and not history.is_ancestor(head, before):
                raise DivergedError(
                    f"your {branch} and that of {remote} have gone apart; merge them, or drop your commits from it "
                    f"with `musehub pull --force {remote}`: what is new there has been fetched"
                )
            else:
                result.ahead.append(branch)
    return result


def _move(
    workdir: Workdir,
    hub: HubTransport,
    result: Pulled,
    branch: str,
    move: tuple[str | None, str],
    *,
    is_current: bool,
) -> None:
    before, head = move
    if is_current and not workdir.bare:
        blocked = in_the_way(workdir, head, previous=before)
        if blocked:
            more = f" and {len(blocked) - 1} more" if len(blocked) > 1 else ""
            raise WorkdirError(f"{blocked[0]!r:.200}{more} holds changes that are not saved; save or move them first")
        # Files first: where this is killed in between, another pull finds them right and moves the branch.
        result.files = checkout(workdir, head, previous=before, progress=hub.progress)
    workdir.set_branch(branch, head)
    result.moved[branch] = move
