"""The commands that talk to a hub: clone, fetch, pull, push, ls-remote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from musehub_plugin.client.command.options import common, connection, repo_url, report, require_names, token_option
from musehub_plugin.client.command.terminal import Terminal
from musehub_plugin.client.errors import WorkdirError, printable

if TYPE_CHECKING:
    from musehub_plugin.client.fetching import Fetched


@click.command("clone")
@click.argument("url", callback=repo_url)
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--branch", "-b", help="Check out this branch instead of the default one.")
@click.option("--bare", is_flag=True, help="Keep the packs as they come, and no files: for mirrors and CI.")
@token_option
@common
def clone_command(
    url: str, directory: Path | None, branch: str | None, bare: bool, token_file: Path | None, as_json: bool
) -> None:
    """Make a working copy of the repo at URL, with all of its history.

    Every branch of the repo becomes a local one; the default branch is checked out. The folder is the URL's last
    part unless DIRECTORY is given. A clone that broke off goes on when the same command is run again.

    \b
    Examples:
        musehub clone https://hub.example/ada/engine
        musehub clone --bare https://hub.example/ada/engine mirror
    """
    with Terminal() as terminal:
        hub = connection(url, token_file, terminal.show)
        # After the hub was asked, as everywhere below.
        from musehub_plugin.client.cloning import clone, folder_name

        cloned = clone(hub, directory or Path(folder_name(hub.url)), branch=branch, bare=bare)
    fetched = cloned.fetched
    if bare:
        text = f"{cloned.workdir.root}: {fetched.new_commits} commits in {_size(fetched.received_bytes)} of packs"
    else:
        text = (
            f"{cloned.workdir.root}: {fetched.new_commits} commits, "
            f"{cloned.files.written + cloned.files.unchanged} files on {cloned.branch}"
        )
    if not cloned.head:
        text += " (the repo is empty)"
    if cloned.files.kept:
        text += f"\n  files not written, since others are in their places: {len(cloned.files.kept)}"
    if fetched.unusable:
        text += f"\n  branches skipped, since no file can hold their names: {len(fetched.unusable)}"
    report(
        as_json,
        {
            "directory": os.fspath(cloned.workdir.root),
            "branch": cloned.branch,
            "bare": bare,
            "head": cloned.head,
            "branches": sorted(cloned.workdir.branches()),
            "skipped_branches": fetched.unusable,
            **_received(fetched),
            "files": cloned.files.written + cloned.files.unchanged,
            "kept_files": cloned.files.kept,
            "unnameable_files": cloned.files.unnameable,
        },
        text,
    )
    require_names(cloned.files)


@click.command("fetch")
@click.argument("remote", default="origin")
@click.option("--prune", is_flag=True, help="Forget branches that the remote no longer has.")
@click.option("--repair", is_flag=True, help="Bring everything again and write it over damaged or missing files.")
@token_option
@common
def fetch_command(remote: str, prune: bool, repair: bool, token_file: Path | None, as_json: bool) -> None:
    """Bring what is new at REMOTE (default: origin).

    Branches of the remote are noted under .muse/remotes; local branches and files stay as they are.

    \b
    Example:
        musehub fetch
    """
    from musehub_plugin.client.remoteconfig import remote_url
    from musehub_plugin.client.workdir import Workdir

    workdir = Workdir.discover(Path.cwd())
    with Terminal() as terminal:
        hub = connection(remote_url(workdir, remote), token_file, terminal.show)
        from musehub_plugin.client.fetching import fetch

        fetched = fetch(workdir, hub, remote=remote, prune=prune, repair=repair)
    report(as_json, _fetched(remote, fetched), "\n".join(_lines(remote, fetched)) or f"{remote}: nothing new")


@click.command("pull")
@click.argument("remote", default="origin")
@click.option("--all", "every_branch", is_flag=True, help="Move every branch forward, and make those that are new.")
@click.option("--force", is_flag=True, help="Move a branch even where that drops commits from it here.")
@token_option
@common
def pull_command(remote: str, every_branch: bool, force: bool, token_file: Path | None, as_json: bool) -> None:
    """Fetch from REMOTE (default: origin), and move the current branch and its files forward.

    Branches that have gone apart are not merged, and files with changes that are not saved are not touched: it says
    so, and leaves everything as it is. With --force a branch follows the remote's wherever that went; files that are
    not saved stop it all the same.

    \b
    Examples:
        musehub pull
        musehub pull --all --force
    """
    from musehub_plugin.client.remoteconfig import remote_url
    from musehub_plugin.client.workdir import Workdir

    workdir = Workdir.discover(Path.cwd())
    with Terminal() as terminal:
        hub = connection(remote_url(workdir, remote), token_file, terminal.show)
        from musehub_plugin.client.pulling import pull

        pulled = pull(workdir, hub, remote=remote, every_branch=every_branch, force=force)
    files = pulled.files
    lines = [f"{branch}: {_moved(before, now)}" for branch, (before, now) in pulled.moved.items()]
    lines += [f"{branch}: has commits that {remote} lacks, not moved" for branch in pulled.ahead]
    if files.written or files.removed:
        lines.append(f"{files.written} files written, {files.removed} removed")
    report(
        as_json,
        {
            **_fetched(remote, pulled.fetched),
            "moved": {branch: {"before": old, "now": new} for branch, (old, new) in pulled.moved.items()},
            "ahead": pulled.ahead,
            "files": files.written,
            "removed_files": files.removed,
            "unnameable_files": files.unnameable,
        },
        "\n".join(lines) or f"{remote}: nothing new",
    )
    require_names(files)


@click.command("push")
@click.argument("remote", default="origin")
@click.argument("branch", required=False)
@click.option("--all", "push_all", is_flag=True, help="Push every local branch.")
@click.option("--force", is_flag=True, help="Move the branch even where that drops commits from it on the hub.")
@click.option(
    "--set", "url", callback=repo_url, metavar="URL", help="Add REMOTE with this URL first, or change its URL."
)
@token_option
@common
def push_command(
    remote: str,
    branch: str | None,
    push_all: bool,
    force: bool,
    url: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Send BRANCH (default: the one that is checked out) to REMOTE (default: origin).

    Only what the hub lacks is sent. A branch that has commits there which the local one lacks is not moved, unless
    with --force.

    \b
    Examples:
        musehub push
        musehub push --set https://hub.example/ada/engine --all
    """
    from musehub_plugin.client.remoteconfig import remote_url, set_remote
    from musehub_plugin.client.workdir import Workdir

    if push_all and branch is not None:
        raise click.UsageError("name a branch, or push --all of them, not both")
    workdir = Workdir.discover(Path.cwd())
    if url is not None:
        with workdir.lock():
            set_remote(workdir, remote, url)
    branches = [branch] if branch is not None else None
    if push_all:
        head = workdir.head_branch()
        # HEAD's branch goes first: a new repo's first branch is what its page shows.
        branches = sorted(workdir.branches(), key=lambda name: (name != head, name))
        if not branches:
            raise WorkdirError("there is nothing to push: no branch has commits")
    with Terminal() as terminal:
        hub = connection(remote_url(workdir, remote), token_file, terminal.show)
        from musehub_plugin.client.pushing import push

        pushed = push(workdir, hub, remote=remote, branches=branches, force=force)
    lines = [f"{remote}/{done.branch}: {_moved(done.before, done.head)}" for done in pushed.branches]
    report(
        as_json,
        {
            "remote": remote,
            "branches": [asdict(done) for done in pushed.branches],
            "commits": pushed.commit_count,
            "snapshots": pushed.snapshot_count,
            "blobs": pushed.blob_count,
            "sent_bytes": pushed.sent_bytes,
        },
        "\n".join(lines) or f"{remote}: has everything already",
    )


@click.command("ls-remote")
@click.argument("remote", metavar="[REMOTE|URL]", default="origin")
@token_option
@common
def ls_remote_command(remote: str, token_file: Path | None, as_json: bool) -> None:
    """List the branches of a remote (default: origin), or of the repo at a URL, and where they stand.

    \b
    Examples:
        musehub ls-remote
        musehub ls-remote https://hub.example/ada/engine
    """
    from musehub_plugin.client.protocol import get_refs
    from musehub_plugin.client.remoteconfig import remote_url
    from musehub_plugin.client.workdir import Workdir

    if "://" in remote:
        repo_url(click.get_current_context(), None, remote)
        url = remote
    else:
        url = remote_url(Workdir.discover(Path.cwd()), remote)
    with Terminal() as terminal:
        refs = get_refs(connection(url, token_file, terminal.show))
    report(
        as_json,
        {
            "repo_id": refs.repo_id,
            "default_branch": refs.default_branch,
            "branches": dict(refs.branch_heads),
            "skipped_branches": list(refs.unusable),
        },
        "\n".join(f"{head}  {branch}" for branch, head in refs.branch_heads.items()),
    )


def _received(fetched: Fetched) -> Mapping[str, Any]:
    return {
        "commits": fetched.new_commits,
        "snapshots": fetched.new_snapshots,
        "blobs": fetched.new_blobs,
        "received_bytes": fetched.received_bytes,
    }


def _fetched(remote: str, fetched: Fetched) -> Mapping[str, Any]:
    return {
        "remote": remote,
        "updated": {branch: {"before": old, "now": new} for branch, (old, new) in fetched.updated.items()},
        "pruned": fetched.pruned,
        "skipped_branches": fetched.unusable,
        **_received(fetched),
    }


def _lines(remote: str, fetched: Fetched) -> list[str]:
    lines = [f"{remote}/{branch}: {_moved(before, now)}" for branch, (before, now) in fetched.updated.items()]
    lines += [f"{remote}/{branch}: gone" for branch in fetched.pruned]
    return lines + [f"{remote}/{printable(branch, 200)}: skipped, no file can hold it" for branch in fetched.unusable]


def _moved(before: str | None, now: str) -> str:
    return f"{'new' if before is None else before[7:19]} -> {now[7:19]}"


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count:,} bytes"
