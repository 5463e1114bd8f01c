"""Snapshots of a repo: manifests as rows of changes, in chains of bounded length.

A row that the plugin writes holds what the snapshot changes from the one of its commit's first parent: msgpack of
`[removed paths, paths, their objects' digests joined]`. Where such a chain would get long, or larger than two whole
manifests, the row holds the whole manifest in the same form. Rows written by hand hold it as `{path: object_id}`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgpack
from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    case,
    event,
    exists,
    func,
    literal_column,
    null,
    outerjoin,
    select,
    update,
)
from sqlalchemy.orm import QueryContext, aliased
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.manifestlog import Difference
from musehub_plugin.mpack.overflow import Overflow
from musehub_plugin.store.bulk import insert_rows
from musehub_plugin.store.models import DIGEST_SIZE, MusehubSnapshot, MusehubSnapshotRef
from musehub_plugin.store.prepared import Among, Question
from musehub_plugin.store.session import Database, batches, columns

logger = logging.getLogger(__name__)

# A manifest is read by one statement that follows its chain: some 14 us a row.
MAX_CHAIN = 100
# Manifests of large trees are some 500 KB each; so many are in memory at once.
_MANIFEST_BATCH = 50
# Paths of a manifest that is kept beside the one before, some 10 MB.
_KEPT_PATHS = 20_000
# Bytes of a row's change, some 3,000 paths, that are read together with other rows.
_READ_TOGETHER = 1 << 18
# Changes that stay unpacked, and how large they are: up to 8 MB in all, and mostly less than one.
_KEPT_CHANGES = 500
_KEPT_BYTES = 1 << 12


class StoredSnapshot(NamedTuple):
    """A snapshot as its row has it.

    Attributes:
        base_id: the snapshot that the change is from; None: the empty manifest.
        entry_count: paths in the whole manifest, as the row says.
        packed: what it changes, as `pack_change` has it.
        by_hand: the whole manifest of a row that was written by hand; `packed` is then None. Where both are, the row
            holds more than is read at once.
    """

    base_id: str | None
    entry_count: int
    packed: bytes | None
    by_hand: bytes | None

    @property
    def is_large(self) -> bool:
        """Whether the row holds more than is read at once."""
        return self.packed is None and self.by_hand is None

    @property
    def verified(self) -> bool:
        """Whether a push has found the manifest to hash to the snapshot's id, which nobody did for one by hand."""
        return self.by_hand is None


class Chain(NamedTuple):
    """How far a snapshot's row is from a whole manifest: deltas, and their bytes."""

    length: int
    size_bytes: int

    def with_delta(self, size_bytes: int) -> Chain:
        """Return the chain with another delta of some bytes."""
        return Chain(self.length + 1, self.size_bytes + size_bytes)

    def is_worth(self, entry_count: int) -> bool:
        """Say whether a manifest of so many entries had better be stored so than whole."""
        # A whole manifest takes about 60 bytes an entry.
        return self.length <= MAX_CHAIN and self.size_bytes <= 120 * entry_count


class NewSnapshot(NamedTuple):
    """A verified snapshot that a push brings.

    Attributes:
        base_id: the snapshot that `change` is from; None: the empty manifest.
        change: what it changes.
        entry_count: paths in the whole manifest.
        chain: how far the row will be from a whole manifest.
        packed: `change` as `pack_change` has it.
        spooled: the same in a file, where memory has no room for it; `change` and `packed` are then empty.
    """

    snapshot_id: str
    base_id: str | None
    change: Difference
    entry_count: int
    chain: Chain
    packed: bytes
    spooled: Overflow | None = None


def held_snapshots(db: Database, repo_id: str, snapshot_ids: Iterable[str]) -> set[str]:
    """Return which of `snapshot_ids` the repo holds."""
    return db.found_among(MusehubSnapshotRef.snapshot_id, snapshot_ids, MusehubSnapshotRef.repo_id == repo_id)


def pack_change(change: Difference) -> bytes:
    """Return a change as rows hold it."""
    paths = sorted(change.changed)
    digests = b"".join(to_digest(change.changed[path]) for path in paths)
    return bytes(msgpack.packb([sorted(change.removed), paths, digests]))


def unpack_change(packed: bytes) -> Difference:
    """Return the change that `pack_change` packed."""
    removed, paths, digests = msgpack.unpackb(packed)
    return Difference(
        removed,
        {
            path: from_digest(digests[start : start + DIGEST_SIZE])
            for path, start in zip(paths, range(0, len(digests), DIGEST_SIZE), strict=True)
        },
    )


def _written_by_hand(packed: bytes) -> Difference:
    """Return the whole manifest that a host wrote.

    Raises:
        ValueError: it is no map of texts to texts.
    """
    manifest = msgpack.unpackb(packed)
    if not isinstance(manifest, dict) or {*map(type, manifest), *map(type, manifest.values())} - {str}:
        raise ValueError("no map of paths to ids")
    return Difference([], manifest)


class RowChanges:
    """What rows change, unpacked.

    Args:
        db: the unit of work, by which large rows are read, a statement for each.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        # Of a history with many branches, many snapshots rest on the same rows. By what a row changes and from what:
        # a collection may have it hold the whole manifest meanwhile.
        self._small: dict[tuple[str, str | None], Difference] = {}
        self._large: tuple[tuple[str, str | None], bytes | None] | None = None

    def of(self, snapshot_id: str, row: StoredSnapshot) -> Difference | None:
        """Return what a row changes, not to be changed by others.

        None where it is large and not there as it was, or cannot be read.
        """
        key = snapshot_id, row.base_id
        known = self._small.get(key)
        if known is not None:
            return known
        packed = self._read(*key) if row.packed is None and row.by_hand is None else row.packed
        try:
            if row.by_hand is not None:
                return _written_by_hand(row.by_hand)
            if packed is None:
                return None
            change = unpack_change(packed)
        except (TypeError, ValueError) as error:
            logger.error("the row of snapshot %s cannot be read: %s", snapshot_id, type(error).__name__)
            return None
        if len(packed) <= _KEPT_BYTES:
            if len(self._small) == _KEPT_CHANGES:
                self._small.clear()
            self._small[key] = change
        return change

    def _read(self, snapshot_id: str, base_id: str | None) -> bytes | None:
        if self._large is None or self._large[0] != (snapshot_id, base_id):
            large = select(MusehubSnapshot.delta_blob).where(
                MusehubSnapshot.snapshot_id == snapshot_id, MusehubSnapshot.base_id.is_not_distinct_from(base_id)
            )
            self._large = (snapshot_id, base_id), self._db.execute(large).scalar_one_or_none()
        return self._large[1]


class SnapshotBatch(NamedTuple):
    """Some snapshots that were asked for, with all that their manifests rest on.

    Attributes:
        snapshot_ids: those asked for, in the order given.
        held: which of them the repo holds.
        rows: these and their chains, by id.
    """

    snapshot_ids: Sequence[str]
    held: set[str]
    rows: Mapping[str, StoredSnapshot]


def batches_of(
    db: Database,
    repo_id: str,
    snapshot_ids: Sequence[str],
    size: int,
    at_hand: Callable[[str], bool] | None = None,
) -> Iterator[SnapshotBatch]:
    """Yield snapshots in the order given, with their chains, by two statements a batch at most.

    The chain of a batch ends at the last snapshot of the batch before it, which whoever reads in the order of history
    has at hand.

    Args:
        db: the unit of work.
        repo_id: the repo.
        snapshot_ids: the snapshots.
        size: of a batch.
        at_hand: says of which further snapshots the caller has the manifest, so that a chain may end there.
    """
    before: str | None = None
    for start in range(0, len(snapshot_ids), size):
        batch = snapshot_ids[start : start + size]
        held: set[str] = set()
        rows = _rows_with_chains(db, batch, before, repo_id=repo_id, held=held, at_hand=at_hand)
        yield SnapshotBatch(batch, held.intersection(batch), rows)
        before = batch[-1]


def manifests(db: Database, repo_id: str, snapshot_ids: Sequence[str]) -> Iterator[tuple[str, dict[str, str] | None]]:
    """Yield `(snapshot_id, manifest)` in the order given; None where the repo does not hold the snapshot.

    Two statements for every 50 snapshots, whatever the length of the chains, one for each change of over some 3,000
    paths, and one where large ones come in another order than that of history. What is yielded is the caller's.
    """
    made: dict[str, dict[str, str]] = {}
    # Where the chains of a batch end: the last one of the batch before.
    end: dict[str, dict[str, str]] = {}
    changes = RowChanges(db)
    for batch in batches_of(db, repo_id, snapshot_ids, _MANIFEST_BATCH):
        for snapshot_id in batch.snapshot_ids:
            whole = assembled(snapshot_id, batch.rows, made, changes) if snapshot_id in batch.held else None
            if whole is None and snapshot_id in batch.held and len(snapshot_ids) > 1:
                # It may rest on that one, where that was too large to be kept, or is none.
                whole = manifest(db, repo_id, snapshot_id)
            if whole is not None:
                # Neighbours rest on one another; what lies further back is made again.
                made = {**end, snapshot_id: whole}
            yield snapshot_id, None if whole is None else dict(whole)
        last = batch.snapshot_ids[-1]
        made = {last: made[last]} if last in made else {}
        end = made if sum(map(len, made.values())) <= _KEPT_PATHS else {}


def manifest(db: Database, repo_id: str, snapshot_id: str) -> dict[str, str] | None:
    """Return one manifest; None where the repo does not hold the snapshot."""
    return next(manifests(db, repo_id, [snapshot_id]))[1]


def assembled(
    snapshot_id: str, rows: Mapping[str, StoredSnapshot], made: Mapping[str, dict[str, str]], changes: RowChanges
) -> dict[str, str] | None:
    """Return a manifest by its chain; None where the chain is broken.

    Args:
        snapshot_id: the snapshot.
        rows: it and what it rests on.
        made: manifests that are at hand; not changed.
        changes: unpacks what they change.
    """
    way = chain_of(snapshot_id, rows, made.__contains__)
    if way is None:
        return None
    base_id = way[-1][1].base_id if way else snapshot_id
    result = {} if base_id is None else dict(made[base_id])
    for each, row in reversed(way):
        change = changes.of(each, row)
        if change is None:
            return None
        for path in change.removed:
            result.pop(path, None)
        result.update(change.changed)
    return result


def chain_of(
    snapshot_id: str, rows: Mapping[str, StoredSnapshot], at_hand: Callable[[str], bool]
) -> list[tuple[str, StoredSnapshot]] | None:
    """Return the row of a snapshot and those that it rests on, down to what is at hand; None where one is missing."""
    way: list[tuple[str, StoredSnapshot]] = []
    at: str | None = snapshot_id
    while at is not None and not at_hand(at):
        row = rows.get(at)
        if row is None or len(way) > len(rows):
            return None
        way.append((at, row))
        at = row.base_id
    return way


def _contents(row: ReadOnlyColumnCollection[str, Column[Any]]) -> Sequence[ColumnElement[Any]]:
    """Return what is read of a row besides its ids; of a change that is large, nothing."""
    is_small = func.length(row.delta_blob) <= literal_column(str(_READ_TOGETHER))
    return row.entry_count, case((is_small, row.delta_blob)), row.manifest_blob


def _rows(among: Among) -> Select[Any]:
    """Return the statement for rows of snapshots, and which of them a repo holds."""
    snapshot, ref = columns(MusehubSnapshot), columns(MusehubSnapshotRef)
    is_held = and_(ref.snapshot_id == snapshot.snapshot_id, ref.repo_id == bindparam("repo_id"))
    return (
        select(snapshot.snapshot_id, snapshot.base_id, *_contents(snapshot), ref.repo_id)
        .select_from(outerjoin(MusehubSnapshot.__table__, MusehubSnapshotRef.__table__, is_held))
        .where(among(snapshot.snapshot_id, "snapshot_ids"))
    )


def _followed(wanted: ColumnElement[bool], *held: ColumnElement[Any]) -> Select[Any]:
    """Return the statement for the rows of some snapshots and those that they rest on, each once.

    Each row is looked up by a subquery of its own. Joined to the table, PostgreSQL reads all of that where it is small,
    once for each row of the longest chain: it expects many times more rows than there are.
    """
    table = cast(Table, MusehubSnapshot.__table__)
    first, below, row = table.c, table.alias("below").c, table.alias("row").c
    chain = select(first.snapshot_id, first.base_id).where(wanted).cte("chain", recursive=True)
    base_id = select(below.base_id).where(below.snapshot_id == chain.c.base_id).scalar_subquery()
    # A row that is there already ends it, where rows written by hand rest on one another in a circle.
    chain = chain.union(select(chain.c.base_id, base_id).where(chain.c.base_id.is_not(None)))
    contents = [
        select(column).where(row.snapshot_id == chain.c.snapshot_id).scalar_subquery() for column in _contents(row)
    ]
    return select(chain.c.snapshot_id, chain.c.base_id, *contents, *held)


def _chain(_: Among) -> Select[Any]:
    """Return the statement for the row of a snapshot and those that it rests on, and whether a repo holds the first."""
    snapshot, ref = columns(MusehubSnapshot), columns(MusehubSnapshotRef)
    wanted = bindparam("snapshot_id", type_=snapshot.snapshot_id.type)
    holder = select(ref.repo_id).where(ref.snapshot_id == wanted, ref.repo_id == bindparam("repo_id"))
    return _followed(snapshot.snapshot_id == wanted, holder.scalar_subquery())


def _chains(among: Among) -> Select[Any]:
    """Return the statement for rows of snapshots and those that they rest on, which may be the same."""
    return _followed(among(columns(MusehubSnapshot).snapshot_id, "snapshot_ids"), null())


_ROWS, _CHAIN, _CHAINS = Question(_rows), Question(_chain), Question(_chains)


def _rows_with_chains(
    db: Database,
    snapshot_ids: Iterable[str],
    before: str | None = None,
    *,
    repo_id: str = "",
    held: set[str] | None = None,
    at_hand: Callable[[str], bool] | None = None,
) -> dict[str, StoredSnapshot]:
    """Return rows of snapshots and of all that they rest on, down to what is at hand.

    Args:
        db: the unit of work.
        snapshot_ids: the snapshots.
        before: where a chain may end early.
        repo_id: a repo.
        held: where those of `snapshot_ids` are noted that the repo holds.
        at_hand: says where else a chain may end early.
    """
    found: dict[str, StoredSnapshot] = {}
    holding = set() if held is None else held
    for batch in batches(snapshot_ids):
        if len(batch) == 1:
            _note_rows(found, _chain_rows(db, batch[0], repo_id, holding))
            continue
        # Neighbours in history rest on one another: to follow each of them row by row would find little more.
        rows = _ROWS.ask(db, snapshot_ids=batch, repo_id=repo_id)
        holding.update(row[0] for row in rows if row[-1] is not None)
        _note_rows(found, rows)
        ends = {base_id for _, base_id, *_ in rows} - {row[0] for row in rows} - {None, before}
        if at_hand is not None:
            ends = {base_id for base_id in ends if not at_hand(base_id)}
        if len(ends) == 1:
            _note_rows(found, _chain_rows(db, ends.pop(), repo_id, set()))
        elif ends:
            _note_rows(found, _CHAINS.ask(db, snapshot_ids=sorted(ends)))
    return found


def _chain_rows(db: Database, snapshot_id: str, repo_id: str, held: set[str]) -> Sequence[tuple[Any, ...]]:
    rows = _CHAIN.ask(db, snapshot_id=snapshot_id, repo_id=repo_id)
    # Every row says it of the first.
    if rows and rows[0][-1] is not None:
        held.add(snapshot_id)
    return rows


def _note_rows(found: dict[str, StoredSnapshot], rows: Iterable[tuple[Any, ...]]) -> None:
    for snapshot_id, base_id, entry_count, delta_blob, manifest_blob, _ in rows:
        if delta_blob is None and manifest_blob is not None:
            found[snapshot_id] = StoredSnapshot(None, entry_count, None, manifest_blob)
        else:
            found[snapshot_id] = StoredSnapshot(base_id, entry_count, delta_blob, None)


def chains(db: Database, snapshot_ids: Iterable[str], *, only_changes: bool = False) -> dict[str, Chain]:
    """Return how long the chains of snapshots are.

    Args:
        db: the unit of work.
        snapshot_ids: the snapshots.
        only_changes: leave out those whose rows hold `{path: object_id}`.
    """
    found: dict[str, Chain] = {}
    for batch in batches(set(snapshot_ids)):
        lengths = select(MusehubSnapshot.snapshot_id, MusehubSnapshot.chain_length, MusehubSnapshot.chain_bytes)
        lengths = lengths.where(MusehubSnapshot.snapshot_id.in_(batch))
        if only_changes:
            lengths = lengths.where(MusehubSnapshot.delta_blob.is_not(None))
        found.update((snapshot_id, Chain(length, size)) for snapshot_id, length, size in db.execute(lengths))
    return found


def resting_on(db: Database, snapshot_ids: Iterable[str]) -> list[str]:
    """Return the snapshots whose rows hold what they change from one of `snapshot_ids`, but those among them."""
    bases = set(snapshot_ids)
    found: set[str] = set()
    for batch in batches(bases):
        found.update(
            db.execute(select(MusehubSnapshot.snapshot_id).where(MusehubSnapshot.base_id.in_(batch))).scalars()
        )
    return sorted(found - bases)


def new_snapshot(
    snapshot_id: str, base: tuple[str, Chain] | None, change: Difference, manifest: Mapping[str, str]
) -> NewSnapshot:
    """Return a snapshot as it is to be stored: as a delta, or whole where its chain would get too long.

    Args:
        snapshot_id: its id.
        base: the snapshot that `change` is from and how long its chain is; None: the empty manifest.
        change: what it changes.
        manifest: all of it.
    """
    if base is not None:
        packed = pack_change(change)
        chain = base[1].with_delta(len(packed))
        if chain.is_worth(len(manifest)):
            return NewSnapshot(snapshot_id, base[0], change, len(manifest), chain, packed)
    change = Difference([], dict(manifest))
    return NewSnapshot(snapshot_id, None, change, len(manifest), Chain(0, 0), pack_change(change))


def add_snapshots(db: Database, repo_id: str, new: Sequence[NewSnapshot]) -> None:
    """Insert verified snapshots and this repo's hold on them. A base must be there, or be among them."""
    insert_rows(
        db,
        MusehubSnapshot,
        ("snapshot_id", "base_id", "delta_blob", "entry_count", "chain_length", "chain_bytes"),
        [
            (snapshot.snapshot_id, snapshot.base_id, snapshot.packed, snapshot.entry_count, *snapshot.chain)
            for snapshot in new
        ],
        {"directories": []},
    )
    hold_snapshots(db, repo_id, (snapshot.snapshot_id for snapshot in new))


def hold_snapshots(db: Database, repo_id: str, snapshot_ids: Iterable[str]) -> None:
    """Note that a repo holds snapshots."""
    rows = ((snapshot_id,) for snapshot_id in snapshot_ids)
    insert_rows(db, MusehubSnapshotRef, ("snapshot_id",), rows, {"repo_id": repo_id})


def turn_into_deltas(db: Database, snapshots: Sequence[NewSnapshot]) -> None:
    """Have rows that hold `{path: object_id}` hold what they change, where that hashes to their ids.

    A row that others rest on stays as it is: what it would rest on may be one of them, in another repo's history.
    """
    resting = aliased(MusehubSnapshot)
    for snapshot in snapshots:
        db.change(
            update(MusehubSnapshot)
            .where(
                MusehubSnapshot.snapshot_id == snapshot.snapshot_id,
                MusehubSnapshot.delta_blob.is_(None),
                ~exists().where(resting.base_id == snapshot.snapshot_id),
            )
            .values(
                base_id=snapshot.base_id,
                delta_blob=snapshot.packed,
                manifest_blob=None,
                directories=[],
                chain_length=snapshot.chain.length,
                chain_bytes=snapshot.chain.size_bytes,
            )
            .execution_options(synchronize_session=False)
        )


def entry_total(db: Database, repo_id: str, snapshot_ids: Iterable[str]) -> int:
    """Return how many entries some manifests of a repo have together, as far as rows say."""
    entries = 0
    for batch in batches(set(snapshot_ids)):
        entries += int(
            db.execute(
                select(func.coalesce(func.sum(MusehubSnapshot.entry_count), 0))
                .join(MusehubSnapshotRef, MusehubSnapshotRef.snapshot_id == MusehubSnapshot.snapshot_id)
                .where(MusehubSnapshotRef.repo_id == repo_id, MusehubSnapshot.snapshot_id.in_(batch))
            ).scalar_one()
        )
    return entries


def make_whole(db: Database, snapshot_ids: Sequence[str]) -> None:
    """Have rows hold their whole manifests, so that what they rested on can be removed."""
    changes = RowChanges(db)
    for start in range(0, len(snapshot_ids), _MANIFEST_BATCH):
        batch = snapshot_ids[start : start + _MANIFEST_BATCH]
        rows = _rows_with_chains(db, batch)
        for snapshot_id in batch:
            whole = assembled(snapshot_id, rows, {}, changes)
            if whole is None:
                continue
            db.change(
                update(MusehubSnapshot)
                .where(MusehubSnapshot.snapshot_id == snapshot_id)
                .values(base_id=None, delta_blob=pack_change(Difference([], whole)), chain_length=0, chain_bytes=0)
                .execution_options(synchronize_session=False)
            )


def directories(manifest: Iterable[str]) -> list[str]:
    """Return every folder that a manifest's paths imply, sorted."""
    found: set[str] = set()
    for path in manifest:
        cut = path.rfind("/")
        while cut > 0 and path[:cut] not in found:
            found.add(path[:cut])
            cut = path.rfind("/", 0, cut)
    return sorted(found)


@event.listens_for(MusehubSnapshot, "load", restore_load_context=True)
def _show_whole(snapshot: MusehubSnapshot, context: QueryContext) -> None:
    """Let a host that loads the entity see what the row stands for: the whole manifest, and its folders."""
    if snapshot.__dict__.get("manifest_blob", b"") is not None or snapshot.__dict__.get("delta_blob") is None:
        return
    db = Database(context.session)
    rows = _rows_with_chains(db, [snapshot.snapshot_id])
    whole = assembled(snapshot.snapshot_id, rows, {}, RowChanges(db))
    if whole is not None:
        set_committed_value(snapshot, "manifest_blob", msgpack.packb(dict(sorted(whole.items()))))
        set_committed_value(snapshot, "directories", directories(whole))
