"""Making an mpack of a plan, from what the repo holds."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, TypeVar

from musehub_plugin.besides import PartBeside
from musehub_plugin.blobs import BlobReader, LargeBlob
from musehub_plugin.changespool import PlannedChange
from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.forks import processes_beside
from musehub_plugin.framecache import FrameCache
from musehub_plugin.hub import Hub
from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.manifestlog import difference
from musehub_plugin.memory import map_large_blocks
from musehub_plugin.mpack import BaseBlob, MPackError, MPackReader, MPackWriter
from musehub_plugin.mpack.emitter import SMALL_BESIDE
from musehub_plugin.mpack.layout import BLOB_FRAME_BYTES
from musehub_plugin.mpack.thin import MAX_BASES
from musehub_plugin.mpack.writer import BLOB_LEVEL, NOT_IN_PACK
from musehub_plugin.packedblobs import PackedBlobs
from musehub_plugin.placedblobs import IdSequence
from musehub_plugin.plan import CopiedPack, Plan
from musehub_plugin.plannedchanges import read_changes
from musehub_plugin.signals import report_damage
from musehub_plugin.storage.uploads import open_mpack
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store import manifests
from musehub_plugin.store.fetch_plans import ReadyPack
from musehub_plugin.store.session import Database

# Who needs more blobs than this reads most of each frame anyway, and would push out what others need.
_CACHED_BLOBS = 5_000
# Disk for the frames that these read: in memory each takes 16 MiB more.
_PASSING_BYTES = 64 * 1024 * 1024
# What is made while a client waits, up to so many blobs, for a few clients: level 6 takes three times as long for 5 to
# 10 % fewer bytes.
_QUICK_BLOBS = 500
_QUICK_LEVEL = 3
# Commits, of 60 us each; to start a thread takes 100 us.
_WORTH_A_THREAD = 16

_Piece = TypeVar("_Piece")


def _copy(writer: MPackWriter, hub: Hub, pack: CopiedPack, opened: ExitStack) -> None:
    file = open_mpack(hub.storage, pack.mpack_id)
    if file is None:
        report_damage("mpack-missing", pack.mpack_id, "it is not in storage, and clones begin with it")
        raise StorageUnavailable(f"mpack {pack.mpack_id} is not in storage")
    opened.enter_context(file)
    try:
        writer.copy_pack(MPackReader(file), snapshot_ids=pack.snapshot_ids, commit_ids=pack.commit_ids)
    except (MPackError, ValueError) as error:
        report_damage("mpack-damaged", pack.mpack_id, str(error))
        raise StorageUnavailable(f"mpack {pack.mpack_id} is damaged") from error


class _Leaning:
    """What a thin pack leans on: manifests of the have side, and blobs of theirs that resemble those that are sent.

    Attributes:
        bases: id and manifest of each snapshot, the one that the plan's first one starts from first.
        resembled: for blobs that are sent, one that the have side holds and that probably resembles it.
    """

    def __init__(self, db: Database, repo_id: str, plan: Plan) -> None:
        border_ids = plan.border_ids[:MAX_BASES]
        found: dict[str, Mapping[str, str] | None] = {**plan.border_manifests}
        further = [snapshot_id for snapshot_id in border_ids if snapshot_id not in found]
        found.update(manifests.manifests(db, repo_id, further))
        known = ((snapshot_id, found[snapshot_id]) for snapshot_id in border_ids)
        self.bases = [(snapshot_id, manifest) for snapshot_id, manifest in known if manifest is not None]
        self.resembled: dict[str, str] = {}
        self._places: dict[str, tuple[int, str]] = {}
        sent = set(plan.object_ids)
        for _, change, _ in plan.changes or ():
            for path, object_id in change.changed.items():
                if object_id in sent and object_id not in self._places:
                    for number, (_, manifest) in enumerate(self.bases):
                        if path in manifest:
                            self._places[object_id] = (number, path)
                            self.resembled[object_id] = manifest[path]
                            break

    def base(self, object_id: str, content: bytes | None) -> BaseBlob | None:
        """Return what a blob is to lean on, given the content of the one that it resembles."""
        return None if content is None else BaseBlob(*self._places[object_id], content)


def _planned_blobs(
    blobs: BlobReader, packs: Sequence[str], plan: Plan, leaning: _Leaning | None
) -> Iterator[tuple[str | bytes, bytes | memoryview | LargeBlob, BaseBlob | None]]:
    """Yield a plan's blobs, each with its id and what it is to lean on."""
    if packs and leaning is None:
        for digest, content in PackedBlobs(blobs, packs, plan.object_ids):
            yield digest, content, None
        return
    resembled = {} if leaning is None else leaning.resembled
    for object_id, content, other in blobs.read_beside(plan.object_ids, resembled):
        yield object_id, content, None if leaning is None else leaning.base(object_id, other)


def _write_history(
    writer: MPackWriter,
    db: Database,
    repo_id: str,
    plan: Plan,
    leaning: _Leaning | None = None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Write a plan's snapshots and commits."""
    spool, blobs = plan.spooled, plan.object_ids
    is_alone = plan.begins_with is None and leaning is None
    if is_alone and spool is not None and not spool.is_wide and isinstance(blobs, IdSequence):
        places = array("I", [NOT_IN_PACK]) * spool.objects.count
        for place, number in enumerate(blobs.order):
            places[number] = place
        writer.add_numbered_snapshots(_noticed(spool.numbered(), alive), spool.objects, places)
    else:
        _write_named_snapshots(writer, db, repo_id, plan, leaning, alive)
    for record in commit_store.records(db, repo_id, plan.commit_ids):
        writer.add_commit(record)
        alive()


def _write_named_snapshots(
    writer: MPackWriter,
    db: Database,
    repo_id: str,
    plan: Plan,
    leaning: _Leaning | None,
    alive: Callable[[], None],
) -> None:
    changes: Iterable[PlannedChange] = plan.changes or plan.spooled or read_changes(db, repo_id, plan.snapshot_ids)
    for position, (snapshot_id, change, derivable) in enumerate(changes):
        if leaning is not None and position == 0:
            # The first of a plan is given whole.
            change = difference(leaning.bases[0][1], dict(change.changed))
        writer.add_snapshot_delta(
            snapshot_id,
            change.removed,
            change.changed,
            derivable=derivable,
            start=0 if leaning is not None and position == 0 else None,
        )
        alive()


def _history_beside(db: Database, repo_id: str, plan: Plan) -> PartBeside | None:
    """Have a plan's snapshots and commits written beside the blobs; None where that does not pay, or is not safe."""
    handles = None if plan.spooled is None else plan.spooled.handles
    if handles is None or plan.begins_with is not None or not db.may_fork:
        return None
    if not processes_beside():
        return None

    def write(own: Database, file: IO[bytes]) -> None:
        with MPackWriter(file, blobs=map(to_digest, plan.object_ids)) as writer:
            _write_history(writer, own, repo_id, plan)

    return PartBeside(db, write, handles)


def _noticed(pieces: Iterable[_Piece], alive: Callable[[], None]) -> Iterator[_Piece]:
    for piece in pieces:
        yield piece
        alive()


class HashingFile:
    """A file to write to that knows the SHA-256 of what went through: `digest`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Append `data`.

        Raises:
            OSError: there is no room for it.
        """
        self.digest.update(data)
        return self._file.write(data)


def write_mpack(
    file: IO[bytes],
    hub: Hub,
    db: Database,
    repo_id: str,
    plan: Plan,
    *,
    thin: bool = False,
    packs: Sequence[str] = (),
    threads: int = 0,
    beside: bool = False,
    most_bytes: int | None = None,
    alive: Callable[[], None] = lambda: None,
) -> ReadyPack:
    """Write the mpack of a plan, in bounded memory; return what it is.

    Args:
        file: where it goes; only appended to.
        hub: the app's plugin.
        db: the unit of work; only read.
        repo_id: the repo.
        plan: what goes into it.
        thin: whether it may lean on what the have side holds.
        packs: mpacks of the repo that hold most of what goes into it, as `PackedBlobs` takes them.
        threads: how many compress beside this one.
        beside: have a process of its own write snapshots and commits meanwhile, where there are many and a fork is
            safe. The bytes are the same.
        most_bytes: that the blobs may have; None: any number.
        alive: called every so often: whoever holds a lease on this work extends it.

    Raises:
        HistoryDamaged: a commit or snapshot is not there.
        NotIndexed: a blob is nowhere to be found yet.
        StorageUnavailable: object storage did not answer.
        TooManyBytes: the blobs have more than `most_bytes`, or nobody knows how many.
    """
    map_large_blocks()
    out = HashingFile(file)
    frames = hub.frames if len(plan.object_ids) <= _CACHED_BLOBS else FrameCache(_PASSING_BYTES, passing=True)
    with (
        ExitStack() as opened,
        BlobReader(
            db,
            hub.storage,
            repo_id,
            retry_after=hub.settings.retry_after,
            frames=frames,
            most_bytes=most_bytes,
        ) as blobs,
    ):
        part = _history_beside(db, repo_id, plan) if beside and not thin else None
        if part is not None:
            opened.enter_context(part)
        leaning = _Leaning(db, repo_id, plan) if thin else None
        if leaning is not None and not leaning.bases:
            leaning = None
        is_quick = len(plan.object_ids) <= _QUICK_BLOBS
        # Blobs are compressed while history is written, where there is so much of it that a thread pays.
        is_beside = threads == 0 and is_quick and len(plan.commit_ids) >= _WORTH_A_THREAD
        writer = opened.enter_context(
            MPackWriter(
                out,
                threads=1 if is_beside else threads,
                largest_beside=SMALL_BESIDE if is_beside else BLOB_FRAME_BYTES,
                level=_QUICK_LEVEL if is_quick else BLOB_LEVEL,
                bases=() if leaning is None else leaning.bases,
            )
        )
        if plan.begins_with is not None:
            _copy(writer, hub, plan.begins_with, opened)
        for object_id, content, base in _planned_blobs(blobs, packs, plan, leaning):
            if isinstance(content, LargeBlob):
                with content:
                    writer.add_blob_stream(object_id, content.size, _noticed(content.chunks(), alive), base=base)
            else:
                writer.add_blob(object_id, content, base=base)
            alive()
        history = None if part is None else part.finished(alive)
        if history is None:
            _write_history(writer, db, repo_id, plan, leaning, alive)
        else:
            writer.take_history(history)
        summary = writer.finish()
    return ReadyPack(
        mpack_id=from_digest(out.digest.digest()),
        size_bytes=summary.size_bytes,
        commit_count=summary.commit_count,
        snapshot_count=summary.snapshot_count,
        blob_count=summary.blob_count,
    )
