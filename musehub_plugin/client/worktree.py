"""Restores the files of a manifest in the working tree, and touches nothing that is not saved.

A manifest is a stranger's: a path that leaves the tree, names `.muse` or cannot be a file is refused before the first
file is written, and no file is written through a symlink that lies in the tree.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from musehub_plugin import ids
from musehub_plugin.client.errors import WorkdirError
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.names import unsafe_in_order, unsafe_manifest

# Bytes of an entry's place in the packs, where entries are sorted by it: number, frame, offset and size.
_PLACE: Final = 80
_PLACED_AT_ONCE: Final = 1 << 15
# Some 400 bytes each; they are looked at again where they are needed.
_KNOWN_FOLDERS: Final = 1 << 14
# What a file system answers about a name that it cannot have: it is too long, or of characters that are none there.
_NO_NAME: Final = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})


@dataclass
class CheckedOut:
    """What a checkout did.

    Attributes:
        written: files written.
        removed: files removed.
        unchanged: files that were right already.
        kept: paths whose files hold something that is not saved; they were left as they are.
        unnameable: paths that the file system has no names for; all others were written.
    """

    written: int = 0
    removed: int = 0
    unchanged: int = 0
    kept: list[str] = field(default_factory=list)
    unnameable: list[str] = field(default_factory=list)


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
    for path, object_id in _gone(before, wanted):
        # What was checked out was safe; a manifest that was not says nothing about files here.
        if unsafe_manifest([path]) is None and tree.holds(path, object_id):
            tree.remove(path)
            done.removed += 1
    for path, object_id in _as_read_fastest(workdir, wanted):
        progress("files", done.written + done.unchanged + len(done.kept) + len(done.unnameable) + 1, len(wanted))
        if tree.holds(path, object_id):
            done.unchanged += 1
        elif tree.is_free(path) or tree.holds(path, before.get(path)):
            try:
                tree.write(path, object_id)
            except OSError as error:
                if error.errno not in _NO_NAME:
                    raise
                # One file is no reason to be without all others.
                done.unnameable.append(path)
            else:
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

    def goes(path: str) -> bool:
        object_id = before.get(path)
        return (
            object_id is not None
            and path not in wanted
            and unsafe_manifest([path]) is None
            and tree.holds(path, object_id)
        )

    return [
        path
        for path, object_id in _by_path(wanted)
        if before.get(path) != object_id
        and not tree.holds(path, object_id)
        and not tree.holds(path, before.get(path))
        and not tree.is_free(path, goes)
    ]


def _by_path(manifest: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Return the entries of a manifest, sorted by path; a wide one has them so."""
    return sorted(manifest.items()) if isinstance(manifest, dict) else manifest.items()


def _gone(before: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield those entries of a manifest whose paths another lacks, sorted by path."""
    there = (path for path, _ in _by_path(wanted))
    following = next(there, None)
    for path, object_id in _by_path(before):
        while following is not None and following < path:
            following = next(there, None)
        if following != path:
            yield path, object_id


def _as_read_fastest(workdir: Workdir, wanted: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Return the entries of a manifest in the order of the packs, where there are any; else by path."""
    if isinstance(wanted, dict):
        return sorted(wanted.items(), key=lambda item: (workdir.packs.place("objects", item[1]), item[0]))
    return _by_place(workdir, wanted) if any(workdir.packs) else wanted.items()


def _by_place(workdir: Workdir, wanted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the entries of a wide manifest in the order of the packs."""
    from musehub_plugin.mpack.pages import PageFile, SortedPages

    placed = SortedPages(PageFile(workdir.temp_folder))
    rest = iter(wanted.items())
    while some := list(islice(rest, _PLACED_AT_ONCE)):
        places = ("".join(map("{:20}".format, workdir.packs.place("objects", object_id))) for _, object_id in some)
        placed.update(
            {
                f"{place:{_PLACE}}{path}".encode(): ids.to_hex(object_id).encode()
                for place, (path, object_id) in zip(places, some, strict=True)
            }
        )
    for key, digits in placed.items():
        yield key[_PLACE:].decode(), ids.PREFIX + digits.decode()


def _manifests(workdir: Workdir, commit_id: str, previous: str | None) -> tuple[Mapping[str, str], Mapping[str, str]]:
    wanted = _manifest(workdir, commit_id)
    problem = unsafe_manifest(wanted) if isinstance(wanted, dict) else unsafe_in_order(wanted)
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

    def holds(self, path: str, object_id: str | None) -> bool:
        """Say whether there is a file with a blob's bytes; there is none with those of None."""
        if object_id is None:
            return False
        place = self._workdir.root / path
        if not self._in_real_folder(place) or not _is_file(place):
            return False
        if place.stat().st_size != self._workdir.blob_size(object_id):
            return False
        with place.open("rb") as file:
            return ids.from_digest(hashlib.file_digest(file, "sha256").digest()) == object_id

    def is_free(self, path: str, goes: Callable[[str], bool] | None = None) -> bool:
        """Say whether nothing is in the way of a new file.

        Args:
            path: where it goes.
            goes: says of a path whether its file will be gone by then.
        """
        place = self._workdir.root / path
        if os.path.lexists(place):
            return goes is not None and self._is_only(place, goes)
        for folder in place.parents:
            if folder == self._workdir.root:
                return True
            if os.path.lexists(folder):
                if goes is not None and goes(self._path(folder)):
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
            if os.path.lexists(place):
                # Muse knows no modes: who made a script executable did so here, and wants it to stay so.
                temp.chmod(stat.S_IMODE(place.lstat().st_mode) & 0o777)
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
        except OSError as error:
            if not _is_missing(error):
                raise
            return False
        if not real or not self._in_real_folder(folder):
            return False
        if len(self._folders) >= _KNOWN_FOLDERS:
            self._folders = {self._workdir.root}
        self._folders.add(folder)
        return True

    def _path(self, place: Path) -> str:
        return place.relative_to(self._workdir.root).as_posix()

    def _is_only(self, folder: Path, goes: Callable[[str], bool]) -> bool:
        """Say whether a folder will be gone, since it holds files that will be gone, and nothing else."""
        if folder.is_symlink() or not folder.is_dir():
            return False
        children = list(folder.iterdir())
        return bool(children) and all(goes(self._path(child)) or self._is_only(child, goes) for child in children)


def _is_file(place: Path) -> bool:
    try:
        return stat.S_ISREG(place.lstat().st_mode)
    except OSError as error:
        if not _is_missing(error):
            raise
        return False


def _is_missing(error: OSError) -> bool:
    """Say whether an error means that there is no such file, and never was."""
    return isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno in _NO_NAME
