"""Restores the files of a manifest in the working tree, and touches nothing that is not saved.

A manifest is a stranger's: a path that leaves the tree, names `.muse` or cannot be a file is refused before the first
file is written, and no file is written through a symlink that lies in the tree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from musehub_plugin import ids
from musehub_plugin.client.errors import WorkdirError
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.names import unsafe_manifest


@dataclass
class CheckedOut:
    """What a checkout did.

    Attributes:
        written: files written.
        removed: files removed.
        unchanged: files that were right already.
        kept: paths whose files hold something that is not saved; they were left as they are.
    """

    written: int = 0
    removed: int = 0
    unchanged: int = 0
    kept: list[str] = field(default_factory=list)


def checkout(
    workdir: Workdir, commit_id: str, *, previous: str | None = None, progress: Progress = silent
) -> CheckedOut:
    """Make the working tree that of a commit.

    A file is replaced or removed only where it holds what the previous commit has in its place; any other is a change
    that nobody saved, and stays.

    Args:
        workdir: the working copy.
        commit_id: the commit whose files are wanted.
        previous: the commit whose files are there; None: the tree is new, and every file in it is somebody's own.
        progress: told about files done.

    Raises:
        WorkdirError: a path cannot be restored safely, or a blob is missing.
    """
    wanted, before = _manifests(workdir, commit_id, previous)
    tree = _Tree(workdir)
    done = CheckedOut()
    # Removals first: a file may give way to a folder.
    for path in sorted(before.keys() - wanted.keys()):
        # What was checked out was safe; a manifest that was not says nothing about files here.
        if unsafe_manifest([path]) is None and tree.holds(path, before[path]):
            tree.remove(path)
            done.removed += 1
    # In the order of the packs, where there are any; else by path.
    for path, object_id in sorted(wanted.items(), key=lambda item: (workdir.packs.place("objects", item[1]), item[0])):
        progress("files", done.written + done.unchanged + len(done.kept) + 1, len(wanted))
        if tree.holds(path, object_id):
            done.unchanged += 1
        elif tree.is_free(path) or (path in before and tree.holds(path, before[path])):
            tree.write(path, object_id)
            done.written += 1
        else:
            done.kept.append(path)
    return done


def in_the_way(workdir: Workdir, commit_id: str, *, previous: str | None) -> list[str]:
    """Return the paths that `checkout` would leave as they are, since they hold what is not saved; nothing is changed.

    Args:
        workdir: the working copy.
        commit_id: the commit whose files are wanted.
        previous: the commit whose files are there.

    Raises:
        WorkdirError: a path cannot be restored safely, or a blob is missing.
    """
    wanted, before = _manifests(workdir, commit_id, previous)
    tree = _Tree(workdir)
    # A folder that is in the way of a file may only be there for files that go.
    going = {path for path in before.keys() - wanted.keys() if unsafe_manifest([path]) is None}
    going = {path for path in going if tree.holds(path, before[path])}
    return [
        path
        for path, object_id in sorted(wanted.items())
        if before.get(path) != object_id
        and not tree.holds(path, object_id)
        and not (path in before and tree.holds(path, before[path]))
        and not tree.is_free(path, going)
    ]


def _manifests(workdir: Workdir, commit_id: str, previous: str | None) -> tuple[Mapping[str, str], Mapping[str, str]]:
    wanted = _manifest(workdir, commit_id)
    problem = unsafe_manifest(wanted)
    if problem is not None:
        raise WorkdirError(f"commit {commit_id} cannot be checked out: path {problem[0]!r:.200} {problem[1]}")
    return wanted, _manifest(workdir, previous) if previous is not None else {}


def _manifest(workdir: Workdir, commit_id: str) -> Mapping[str, str]:
    return workdir.read_snapshot(ids.PREFIX + workdir.read_commit(commit_id)["snapshot_id"])


class _Tree:
    """The files beside `.muse`, reached through real folders alone."""

    def __init__(self, workdir: Workdir) -> None:
        self._workdir = workdir
        self._folders = {workdir.root}

    def holds(self, path: str, object_id: str) -> bool:
        """Say whether there is a file with a blob's bytes."""
        place = self._workdir.root / path
        if not self._in_real_folder(place) or not _is_file(place):
            return False
        if place.stat().st_size != self._workdir.blob_size(object_id):
            return False
        with place.open("rb") as file:
            return ids.from_digest(hashlib.file_digest(file, "sha256").digest()) == object_id

    def is_free(self, path: str, going: Collection[str] = ()) -> bool:
        """Say whether nothing is in the way of a new file.

        Args:
            path: where it goes.
            going: paths whose files will be gone by then.
        """
        place = self._workdir.root / path
        if os.path.lexists(place):
            return bool(going) and _is_only(place, {self._workdir.root / gone for gone in going})
        for folder in place.parents:
            if folder == self._workdir.root:
                return True
            if os.path.lexists(folder):
                if going and folder.relative_to(self._workdir.root).as_posix() in going:
                    return True
                return self._in_real_folder(folder / "x")
        return False

    def write(self, path: str, object_id: str) -> None:
        place = self._workdir.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if not self._in_real_folder(place):
            raise WorkdirError(f"{place.parent} is a symlink or leads through one; nothing is written there")
        temp = self._workdir.temp_path()
        try:
            with self._workdir.open_blob(object_id) as blob, temp.open("xb") as file:
                shutil.copyfileobj(blob, file, 1 << 20)
            temp.replace(place)
        finally:
            temp.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        """Remove a file, and the folders that it leaves empty."""
        place = self._workdir.root / path
        place.unlink()
        for folder in place.parents:
            if folder == self._workdir.root:
                return
            try:
                folder.rmdir()
            except OSError:
                # Something else is in it.
                return
            self._folders.discard(folder)

    def _in_real_folder(self, place: Path) -> bool:
        """Say whether a path's folder is there and no part of it, below the root, is a symlink."""
        folder = place.parent
        if folder in self._folders:
            return True
        try:
            real = stat.S_ISDIR(folder.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not real or not self._in_real_folder(folder):
            return False
        self._folders.add(folder)
        return True


def _is_only(folder: Path, going: Collection[Path]) -> bool:
    """Say whether a folder holds nothing but files that will be gone."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(child in going or _is_only(child, going) for child in folder.iterdir())


def _is_file(place: Path) -> bool:
    try:
        return stat.S_ISREG(place.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
