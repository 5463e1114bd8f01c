"""The commands that work on this machine alone: import-git, init, verify, pack, unpack, remote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from musehub_plugin.client.command.options import common, repo_url, report, require_names
from musehub_plugin.client.command.terminal import Terminal
from musehub_plugin.client.errors import WorkdirError
from musehub_plugin.names import bad_branch_name, bad_remote_name

if TYPE_CHECKING:
    from musehub_plugin.client.packing import Packed


@click.command("import-git")
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--into", type=click.Path(path_type=Path), help="The working copy to make, or to bring up to date.")
@click.option("--ref", "refs", multiple=True, help="Bring this branch or tag only; may be given again.")
@click.option("--all", "everything", is_flag=True, help="Bring remote-tracking branches too.")
@click.option("--bare", is_flag=True, help="Make a pack, and no files: fast, for histories of any length.")
@click.option("--no-checkout", is_flag=True, help="Write .muse alone, no files.")
@common
def import_git_command(
    path: Path, into: Path | None, refs: tuple[str, ...], everything: bool, bare: bool, no_checkout: bool, as_json: bool
) -> None:
    """Bring the history of the git repository at PATH into a muse working copy.

    Every branch and tag comes over, with merges and all messages. Symlinks become files that hold their target,
    the executable bit and submodules stay behind, names that muse cannot hold are written with %XX; the result
    counts each. The working copy is a folder of the same name in the current one unless --into is given; a second
    run brings what is new.

    \b
    Example:
        musehub import-git ~/src/engine --into engine
        musehub import-git --bare ~/src/engine --into engine
    """
    from musehub_plugin.client.gitimport import import_git, require_refs
    from musehub_plugin.client.workdir import Workdir
    from musehub_plugin.client.worktree import checkout

    target = into or Path(path.resolve().name.removesuffix(".git") or "imported")
    if into is None and target.resolve() == path.resolve():
        raise click.UsageError("say where to put the working copy: --into DIRECTORY")
    # Before anything is made: a repository that cannot be read leaves nothing behind.
    require_refs(path, refs)
    new = not (target / ".muse").exists()
    workdir = Workdir.create(target, bare=bare) if new else Workdir(target)
    if bare and not workdir.bare:
        raise WorkdirError(f"{target} has files; name another folder for a bare working copy")
    with Terminal() as terminal, workdir.lock():
        before = workdir.head_commit()
        done = import_git(path, workdir, refs=refs, remote_branches=everything, progress=terminal.show)
        head = workdir.head_commit()
        # A bare working copy has none, and gets none.
        no_checkout = no_checkout or workdir.bare
        files = checkout(workdir, head, previous=before) if head is not None and not no_checkout else None
    notes = {
        "symlinks as files": done.symlinks,
        "texts of annotated tags left in git": done.annotated_tags,
        "executable bits left behind": done.executables,
        "submodules left out": done.submodules,
        "paths written with %XX": done.escaped_paths,
        "paths left out": done.skipped_paths,
        "refs left out": done.skipped_refs,
        "commits that became one": done.merged_commits,
        "texts read as Latin-1": done.latin1_texts,
        "dates cut to the year 9999": done.clamped_dates,
        "commits without their parents, since the clone is shallow (git fetch --unshallow)": done.cut_off_commits,
        "files kept, since they are not saved": len(files.kept) if files is not None else 0,
    }
    report(
        as_json,
        {
            **done.as_dict(),
            "directory": os.fspath(target),
            "files": files.written if files is not None else 0,
            "kept_files": files.kept if files is not None else [],
            "unnameable_files": files.unnameable if files is not None else [],
        },
        "\n".join(
            [
                f"{target}: {done.commits} commits ({done.new_commits} new), {done.branches} branches, "
                f"{done.tags} tags; HEAD is {done.head}",
                *(f"  {name}: {count}" for name, count in notes.items() if count),
            ]
        ),
    )
    require_names(files)


def _branch_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    reason = bad_branch_name(value)
    if reason is not None:
        raise click.BadParameter(f"{value!r:.100} {reason}", context, parameter)
    return value


def _remote_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    reason = bad_remote_name(value)
    if reason is not None:
        raise click.BadParameter(f"{value!r:.100} {reason}", context, parameter)
    return value


@click.command("init")
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option(
    "--branch", "-b", default="main", callback=_branch_name, show_default=True, help="The name of the first branch."
)
@common
def init_command(directory: Path, branch: str, as_json: bool) -> None:
    """Make an empty working copy in DIRECTORY (default: here).

    \b
    Example:
        musehub init engine
    """
    from musehub_plugin.client.workdir import Workdir

    workdir = Workdir.create(directory, branch=branch)
    report(
        as_json,
        {"directory": os.fspath(directory), "repo_id": workdir.repo_id, "branch": branch},
        f"{directory}: an empty working copy on {branch}",
    )


@click.command("verify")
@common
def verify_command(as_json: bool) -> None:
    """Re-hash everything in this working copy, and look for what is missing.

    \b
    Example:
        musehub verify || musehub fetch --repair
    """
    from musehub_plugin.client.verifying import verify
    from musehub_plugin.client.workdir import Workdir

    workdir = Workdir.discover(Path.cwd())
    with Terminal() as terminal:
        found = verify(workdir, progress=terminal.show)
    packs = f"{found.pack_count} packs, " if found.pack_count else ""
    report(
        as_json,
        asdict(found),
        f"{found.commit_count} commits, {found.snapshot_count} snapshots, {found.blob_count} blobs, {packs}"
        f"{found.ref_count} refs: {len(found.problems) or 'no'} problems",
    )
    if found.problems:
        more = f", and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        raise WorkdirError(f"{found.problems[0]}{more}; `musehub fetch --repair` brings back what the hub has")


@click.command("unpack")
@common
def unpack_command(as_json: bool) -> None:
    """Turn a bare clone into a working copy with files, which the public muse client reads too.

    \b
    Example:
        musehub unpack
    """
    from musehub_plugin.client.packing import unpack
    from musehub_plugin.client.workdir import Workdir

    workdir = Workdir.discover(Path.cwd())
    with Terminal() as terminal:
        done = unpack(workdir, progress=terminal.show)
    report(
        as_json,
        {
            **_counts(done),
            "files": done.files.written,
            "kept_files": done.files.kept,
            "unnameable_files": done.files.unnameable,
        },
        f"{workdir.root}: {done.commit_count} commits, {done.snapshot_count} snapshots, {done.blob_count} blobs "
        f"unpacked, {done.files.written} files written",
    )
    require_names(done.files)


@click.command("pack")
@common
def pack_command(as_json: bool) -> None:
    """Put everything that the branches reach into one pack, in place of a file for each blob, snapshot and commit.

    It takes a fraction of the space, and a bare clone with many packs gets one. The public muse client does not read
    packs; `musehub unpack` brings the files back.

    \b
    Example:
        musehub pack
    """
    from musehub_plugin.client.packing import pack
    from musehub_plugin.client.workdir import Workdir

    workdir = Workdir.discover(Path.cwd())
    with Terminal() as terminal:
        done = pack(workdir, progress=terminal.show)
    report(
        as_json,
        _counts(done),
        f"{workdir.root}: {done.commit_count} commits, {done.snapshot_count} snapshots, {done.blob_count} blobs in a "
        f"pack of {done.size_bytes:,} bytes",
    )


@click.group("remote")
def remote_group() -> None:
    """Name the hubs that this working copy talks to."""


@remote_group.command("add")
@click.argument("name", callback=_remote_name)
@click.argument("url", callback=repo_url)
@common
def remote_add_command(name: str, url: str, as_json: bool) -> None:
    """Add the remote NAME at URL, or change its URL.

    \b
    Example:
        musehub remote add origin https://hub.example/ada/engine
    """
    from musehub_plugin.client.remoteconfig import remotes, set_remote
    from musehub_plugin.client.workdir import Workdir

    workdir = Workdir.discover(Path.cwd())
    with workdir.lock():
        set_remote(workdir, name, url)
    known = remotes(workdir)
    report(as_json, {"name": name, "url": known[name]}, f"{name}: {known[name]}")


@remote_group.command("list")
@common
def remote_list_command(as_json: bool) -> None:
    """List the remotes.

    \b
    Example:
        musehub remote list
    """
    from musehub_plugin.client.remoteconfig import remotes
    from musehub_plugin.client.workdir import Workdir

    known = remotes(Workdir.discover(Path.cwd()))
    report(as_json, {"remotes": known}, "\n".join(f"{name}: {url}" for name, url in sorted(known.items())))


def _counts(done: Packed) -> Mapping[str, int]:
    return {
        "commits": done.commit_count,
        "snapshots": done.snapshot_count,
        "blobs": done.blob_count,
        "size_bytes": done.size_bytes,
    }
