"""The command `musehub`: the client's library on the command line.

Exit codes: 0 done; 1 failed, with one line on stderr that says what to do; 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from musehub_plugin._version import __version__
from musehub_plugin.client import (
    ClientError,
    HubTransport,
    Workdir,
    WorkdirError,
    checkout,
    clone,
    fetch,
    import_git,
    push,
    remote_url,
    remotes,
    set_remote,
    verify,
)
from musehub_plugin.client.clone import folder_name
from musehub_plugin.client.errors import printable
from musehub_plugin.client.gitlog import GitRepository

_MAX_TOKEN = 16 * 1024


def main() -> None:
    """Run the command and exit with its code."""
    try:
        musehub(prog_name="musehub")
    except ClientError as error:
        _fail(str(error))
    except OSError as error:
        # A full disk, missing permissions: the system's own words, and the file that they are about.
        about = f": {error.filename}" if error.filename else ""
        _fail(printable(f"{error.strerror or error}{about}"))


def _fail(text: str) -> None:
    click.echo(f"musehub: error: {text}", err=True)
    sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="musehub")
def musehub() -> None:
    """Clone, fetch and push muse repos, and bring git histories to muse.

    A repo of a hub is named by its URL, https://HOST/OWNER/NAME. A private one, and every push, needs a token: set
    MUSEHUB_TOKEN, or give --token-file.

    \b
    Put a git history on a hub:
        musehub import-git ~/src/engine --into engine
        cd engine
        musehub push --set https://hub.example/ada/engine --all

    \b
    Get it back:
        musehub clone https://hub.example/ada/engine
    """


_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
_token_option = click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the bearer token from this file instead of MUSEHUB_TOKEN.",
)


@musehub.command("clone")
@click.argument("url")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--branch", "-b", help="Check out this branch instead of the default one.")
@_token_option
@_json_option
def clone_command(url: str, directory: Path | None, branch: str | None, token_file: Path | None, as_json: bool) -> None:
    """Make a working copy of the repo at URL, with all of its history.

    Every branch of the repo becomes a local one; the default branch is checked out. The folder is the URL's last
    part unless DIRECTORY is given.

    \b
    Example:
        musehub clone https://hub.example/ada/engine
    """
    with _Terminal() as terminal:
        hub = HubTransport(url, token=_token(token_file), progress=terminal.show)
        cloned = clone(hub, directory or Path(folder_name(hub.url)), branch=branch)
    _report(
        as_json,
        {
            "directory": os.fspath(cloned.workdir.root),
            "branch": cloned.branch,
            "head": cloned.head,
            "branches": sorted(cloned.fetched.updated),
            "skipped_branches": cloned.fetched.unusable,
            "commits": cloned.fetched.new_commits,
            "snapshots": cloned.fetched.new_snapshots,
            "blobs": cloned.fetched.new_blobs,
            "received_bytes": cloned.fetched.received_bytes,
            "files": cloned.files.written,
        },
        f"{cloned.workdir.root}: {cloned.fetched.new_commits} commits, {cloned.files.written} files on "
        f"{cloned.branch}" + ("" if cloned.head else " (the repo is empty)"),
    )


@musehub.command("fetch")
@click.argument("remote", default="origin")
@click.option("--prune", is_flag=True, help="Forget branches that the remote no longer has.")
@click.option("--repair", is_flag=True, help="Bring everything again and write it over damaged or missing files.")
@_token_option
@_json_option
def fetch_command(remote: str, prune: bool, repair: bool, token_file: Path | None, as_json: bool) -> None:
    """Bring what is new at REMOTE (default: origin).

    Branches of the remote are noted under .muse/remotes; local branches and files stay as they are.

    \b
    Example:
        musehub fetch
    """
    workdir = Workdir.discover(Path.cwd())
    with _Terminal() as terminal:
        hub = HubTransport(remote_url(workdir, remote), token=_token(token_file), progress=terminal.show)
        fetched = fetch(workdir, hub, remote=remote, prune=prune, repair=repair)
    lines = [
        f"{remote}/{branch}: {'new' if before is None else before[7:19]} -> {now[7:19]}"
        for branch, (before, now) in fetched.updated.items()
    ]
    lines += [f"{remote}/{branch}: gone" for branch in fetched.pruned]
    lines += [f"{remote}/{printable(branch, 200)}: skipped, no file can hold it" for branch in fetched.unusable]
    _report(
        as_json,
        {
            "remote": remote,
            "updated": {branch: {"before": old, "now": new} for branch, (old, new) in fetched.updated.items()},
            "pruned": fetched.pruned,
            "skipped_branches": fetched.unusable,
            "commits": fetched.new_commits,
            "snapshots": fetched.new_snapshots,
            "blobs": fetched.new_blobs,
            "received_bytes": fetched.received_bytes,
        },
        "\n".join(lines) or f"{remote}: nothing new",
    )


@musehub.command("push")
@click.argument("remote", default="origin")
@click.argument("branch", required=False)
@click.option("--all", "push_all", is_flag=True, help="Push every local branch.")
@click.option("--force", is_flag=True, help="Move the branch even where that drops commits from it on the hub.")
@click.option("--set", "url", metavar="URL", help="Add REMOTE with this URL first, or change its URL.")
@_token_option
@_json_option
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
    if push_all and branch is not None:
        raise click.UsageError("name a branch, or push --all of them, not both")
    workdir = Workdir.discover(Path.cwd())
    if url is not None:
        set_remote(workdir, remote, url)
    branches = [branch] if branch is not None else None
    if push_all:
        head = workdir.head_branch()
        # HEAD's branch goes first: a new repo's first branch is what its page shows.
        branches = sorted(workdir.branches(), key=lambda name: (name != head, name))
        if not branches:
            raise WorkdirError("there is nothing to push: no branch has commits")
    with _Terminal() as terminal:
        hub = HubTransport(remote_url(workdir, remote), token=_token(token_file), progress=terminal.show)
        pushed = push(workdir, hub, remote=remote, branches=branches, force=force)
    lines = [
        f"{remote}/{done.branch}: {'new' if done.before is None else done.before[7:19]} -> {done.head[7:19]}"
        for done in pushed.branches
    ]
    _report(
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


@musehub.command("import-git")
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--into", type=click.Path(path_type=Path), help="The working copy to make, or to bring up to date.")
@click.option("--ref", "refs", multiple=True, help="Bring this branch or tag only; may be given again.")
@click.option("--all", "everything", is_flag=True, help="Bring remote-tracking branches too.")
@click.option("--no-checkout", is_flag=True, help="Write .muse alone, no files.")
@_json_option
def import_git_command(
    path: Path, into: Path | None, refs: tuple[str, ...], everything: bool, no_checkout: bool, as_json: bool
) -> None:
    """Bring the history of the git repository at PATH into a muse working copy.

    Every branch and tag comes over, with merges and all messages. Symlinks become files that hold their target,
    the executable bit and submodules stay behind, names that muse cannot hold are written with %XX; the result
    counts each. The working copy is a folder of the same name in the current one unless --into is given; a second
    run brings what is new.

    \b
    Example:
        musehub import-git ~/src/engine --into engine
    """
    target = into or Path(path.resolve().name.removesuffix(".git") or "imported")
    if into is None and target.resolve() == path.resolve():
        raise click.UsageError("say where to put the working copy: --into DIRECTORY")
    # Before anything is made: a repository that cannot be read leaves nothing behind.
    GitRepository(path)
    new = not (target / ".muse").exists()
    workdir = Workdir.create(target) if new else Workdir(target)
    with _Terminal() as terminal, workdir.lock():
        before = workdir.head_commit()
        done = import_git(path, workdir, refs=refs, remote_branches=everything, progress=terminal.show)
        head = workdir.head_commit()
        files = checkout(workdir, head, previous=before) if head is not None and not no_checkout else None
    notes = {
        "symlinks as files": done.symlinks,
        "executable bits left behind": done.executables,
        "submodules left out": done.submodules,
        "paths written with %XX": done.escaped_paths,
        "paths left out": done.skipped_paths,
        "refs left out": done.skipped_refs,
        "commits that became one": done.merged_commits,
        "texts read as Latin-1": done.latin1_texts,
        "dates cut to the year 9999": done.clamped_dates,
        "files kept, since they are not saved": len(files.kept) if files is not None else 0,
    }
    _report(
        as_json,
        {
            **done.as_dict(),
            "directory": os.fspath(target),
            "files": files.written if files is not None else 0,
            "kept_files": files.kept if files is not None else [],
        },
        "\n".join(
            [
                f"{target}: {done.commits} commits ({done.new_commits} new), {done.branches} branches, "
                f"{done.tags} tags; HEAD is {done.head}",
                *(f"  {name}: {count}" for name, count in notes.items() if count),
            ]
        ),
    )


@musehub.command("init")
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--branch", "-b", default="main", show_default=True, help="The name of the first branch.")
@_json_option
def init_command(directory: Path, branch: str, as_json: bool) -> None:
    """Make an empty working copy in DIRECTORY (default: here).

    \b
    Example:
        musehub init engine
    """
    workdir = Workdir.create(directory, branch=branch)
    _report(
        as_json,
        {"directory": os.fspath(directory), "repo_id": workdir.repo_id, "branch": branch},
        f"{directory}: an empty working copy on {branch}",
    )


@musehub.command("verify")
@_json_option
def verify_command(as_json: bool) -> None:
    """Re-hash everything in this working copy, and look for what is missing.

    \b
    Example:
        musehub verify || musehub fetch --repair
    """
    workdir = Workdir.discover(Path.cwd())
    with _Terminal() as terminal:
        found = verify(workdir, progress=terminal.show)
    _report(
        as_json,
        asdict(found),
        f"{found.commit_count} commits, {found.snapshot_count} snapshots, {found.blob_count} blobs, "
        f"{found.ref_count} refs: {len(found.problems) or 'no'} problems",
    )
    if found.problems:
        more = f", and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        raise WorkdirError(f"{found.problems[0]}{more}; `musehub fetch --repair` brings back what the hub has")


@musehub.group("remote")
def remote_group() -> None:
    """Name the hubs that this working copy talks to."""


@remote_group.command("add")
@click.argument("name")
@click.argument("url")
@_json_option
def remote_add_command(name: str, url: str, as_json: bool) -> None:
    """Add the remote NAME at URL, or change its URL.

    \b
    Example:
        musehub remote add origin https://hub.example/ada/engine
    """
    workdir = Workdir.discover(Path.cwd())
    set_remote(workdir, name, url)
    known = remotes(workdir)
    _report(as_json, {"name": name, "url": known[name]}, f"{name}: {known[name]}")


@remote_group.command("list")
@_json_option
def remote_list_command(as_json: bool) -> None:
    """List the remotes.

    \b
    Example:
        musehub remote list
    """
    known = remotes(Workdir.discover(Path.cwd()))
    _report(as_json, {"remotes": known}, "\n".join(f"{name}: {url}" for name, url in sorted(known.items())))


def _token(file: Path | None) -> str | None:
    """Return the bearer token of the file, else of MUSEHUB_TOKEN; None where there is none."""
    if file is None:
        text = os.environ.get("MUSEHUB_TOKEN", "")
    else:
        with file.open("rb") as opened:
            text = opened.read(_MAX_TOKEN + 1).decode("utf-8", "replace")
    token = text.strip()
    # What it holds is not shown, not even where it is wrong.
    if len(token) > _MAX_TOKEN or not token.isascii() or any(not "!" <= char <= "~" for char in token):
        raise ClientError("the token must be one line of printable ASCII without spaces")
    return token or None


def _report(as_json: bool, result: Mapping[str, Any], text: str) -> None:
    if as_json:
        click.echo(json.dumps(result, sort_keys=True))
    elif text:
        # Names and paths are somebody else's text: none of it may steer the terminal.
        click.echo("".join(char if char.isprintable() or char == "\n" else "?" for char in text))


class _Terminal:
    """Progress on stderr where that is a terminal; silent otherwise."""

    _PAUSE = 0.1

    def __init__(self) -> None:
        self._shown = False
        self._next = 0.0
        self._speaks = sys.stderr.isatty()

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)

    def show(self, stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if not self._speaks or now < self._next:
            return
        self._next = now + self._PAUSE
        self._shown = True
        part = f"{done:,} of {total:,}" if total else f"{done:,}"
        click.echo(f"\r\x1b[K{stage}: {part}", nl=False, err=True)
