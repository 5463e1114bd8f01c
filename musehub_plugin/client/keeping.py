"""Packs that a working copy keeps as they came: taking them in, checking them, and letting go of those not needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from musehub_plugin import ids
from musehub_plugin.client.applied import Applied
from musehub_plugin.client.errors import BadMPack, WorkdirError
from musehub_plugin.client.held import Held
from musehub_plugin.client.packcheck import check_pack
from musehub_plugin.client.packindex import KINDS
from musehub_plugin.client.packs import Pack
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.mpack import Limits, MPackError, MPackReader
from musehub_plugin.mpack.thin import FEATURE


def keep_mpack(
    workdir: Workdir, source: Path, mpack_id: str, *, limits: Limits | None = None, progress: Progress = silent
) -> Applied:
    """Take an mpack into a bare working copy as it is, once all of it is verified; no ref is moved.

    Every pack that is kept stands by itself, but for the objects, snapshots and parents that it names. So what is kept
    of a thin one is a whole one that is made of it.

    Args:
        workdir: the working copy.
        source: the mpack's file, on the working copy's file system; it is moved.
        mpack_id: its id, which its bytes are known to have.
        limits: what is accepted.
        progress: told about blobs, snapshots and commits verified.

    Raises:
        BadMPack: as `apply_mpack`; the file stays where it was.
    """
    if _is_thin(workdir, source, limits):
        # Not for a clone, as nothing is there that a thin pack could start from.
        from musehub_plugin.client.building import whole_mpack

        try:
            with whole_mpack(workdir, source) as whole:
                return keep_mpack(workdir, whole.path, whole.mpack_id, limits=limits, progress=progress)
        except (MPackError, ValueError) as error:
            raise BadMPack(f"the mpack is malformed: {error}") from None
    builder, applied = check_pack(workdir, source, limits=limits, progress=progress)
    workdir.packs.add(source, mpack_id, builder)
    return applied


def _is_thin(workdir: Workdir, source: Path, limits: Limits | None) -> bool:
    try:
        with source.open("rb") as file:
            return FEATURE in MPackReader(file, limits=limits, bases=Held(workdir), folder=workdir.temp_folder).needs
    except MPackError as error:
        raise BadMPack(f"the mpack is malformed: {error}") from None


def pack_problems(workdir: Workdir, pack: Pack, progress: Progress = silent) -> list[str]:
    """Hash a pack and everything in it, compare its index with it, and return a line for each thing that is wrong.

    Args:
        workdir: the working copy that holds it.
        pack: the pack.
        progress: told about blobs, snapshots and commits verified.
    """
    try:
        with pack.path.open("rb") as file:
            found = ids.from_digest(hashlib.file_digest(file, "sha256").digest())
        if found != pack.mpack_id:
            return [f"pack {pack.path.name} hashes to {found}"]
        builder, _ = check_pack(workdir, pack.path, progress=progress, is_held=True)
        digest = hashlib.sha256()
        for part in builder.parts():
            digest.update(part)
        # Asked for, it is made where it is missing.
        _ = pack.index
        with pack.index_path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() != digest.digest():
                return [f"the index of pack {pack.path.name} is damaged; delete {pack.index_path}: it is made again"]
    except BadMPack as error:
        return [f"pack {pack.path.name}: {error}"]
    except WorkdirError as error:
        return [str(error)]
    return []


def drop_covered(workdir: Workdir, packs: Iterable[Pack], by: Sequence[Pack]) -> None:
    """Remove those packs that hold nothing but what others hold too.

    Args:
        workdir: the working copy.
        packs: the packs to look at.
        by: the others, which were verified, and are on disk.
    """
    for each in packs:
        covered = all(
            any(other.index.has(kind, entity_id) for other in by)
            for kind in KINDS
            for entity_id in each.index.ids(kind)
        )
        if covered:
            workdir.packs.remove(each)
