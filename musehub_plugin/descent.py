"""What each commit changes from its first parent: how pushed snapshots are stored, and which blobs a commit introduces.

A pack has its snapshots each against the one before. History wants them against the first parent's, which mostly is
the one before, sometimes another of the pack, and sometimes one that the repo has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.manifestlog import Difference, ManifestLog, difference
from musehub_plugin.mpack import SnapshotDelta
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.store.manifests import Chain, NewSnapshot, new_snapshot
from musehub_plugin.store.widemanifests import new_wide_snapshot
from musehub_plugin.widelog import WideDifference, WideLog

# Whole manifests that the repo has, kept for the next commit that starts from the same one.
_KEPT_MANIFESTS = 4
# Commits whose manifests have to be read from rows to be compared. One such push is not worth more: its repo's
# history is then read from rows until a repack.
_MAX_COMPARED = 2_000

# Blobs of a commit from which on their ids are kept as digests, and not as text.
_MANY_BLOBS = 4_096

ReadManifest = Callable[[str], Mapping[str, str] | None]


class Descent:
    """The snapshots of a pushed pack and its commits, laid out along history.

    Args:
        records: the pack's commits by id, parents before children.
        positions: where in the pack each of its snapshots is.
        stored_snapshot_ids: the snapshots of parents that the repo has, by the parents' ids.
        chains: how those snapshots are stored that have rows, these and the pack's.
        read: gives a manifest that the repo has.
        log: the manifests passed before, where these follow others of the same pack.
        compared: how many manifests were read for those.

    Attributes:
        log: the manifests passed.
        compared: how many manifests were read for all.
    """

    def __init__(
        self,
        records: Mapping[str, Mapping[str, Any]],
        positions: Mapping[str, int],
        stored_snapshot_ids: Mapping[str, str],
        chains: Mapping[str, Chain],
        read: ReadManifest,
        *,
        log: ManifestLog | WideLog | None = None,
        compared: int = 0,
    ) -> None:
        self._positions = positions
        self._chains = dict(chains)
        self._stored: OrderedDict[str, Mapping[str, str]] = OrderedDict()
        self._read = read
        self.compared = compared
        self._complete = True
        self.log = ManifestLog() if log is None else log
        self._changed: dict[tuple[str | None, str], Collection[str]] = {}
        # Which pairs (base, snapshot) can be compared once the snapshot at a position has been passed.
        self._due: dict[str, list[tuple[str | None, str]]] = {}
        self._bases: dict[str, str | None] = {}
        self._pairs: dict[str, tuple[str | None, str]] = {}
        for commit_id, record in records.items():
            snapshot_id = record["snapshot_id"]
            base_id: str | None = None
            if record["parent_ids"]:
                first = record["parent_ids"][0]
                parent = records.get(first)
                base_id = stored_snapshot_ids.get(first) if parent is None else parent["snapshot_id"]
            pair = (base_id, snapshot_id)
            self._pairs[commit_id] = pair
            self._bases.setdefault(snapshot_id, base_id)
            if base_id == snapshot_id:
                self._changed[pair] = ()
            elif pair not in self._changed:
                self._changed[pair] = ()
                last = max(snapshot_id, base_id or snapshot_id, key=lambda one: positions.get(one, -1))
                if last in positions:
                    self._due.setdefault(last, []).append(pair)
                else:
                    self._due.setdefault("", []).append(pair)

    def snapshots(self, deltas: Iterable[SnapshotDelta]) -> Iterator[NewSnapshot]:
        """Yield the pack's snapshots as they are to be stored, in its order.

        Args:
            deltas: the pack's snapshots, as its reader gives them.
        """
        for pair in self._due.pop("", ()):
            self._compare_stored(pair)
        for delta in deltas:
            if delta.is_wide and not isinstance(self.log, WideLog):
                self.log = WideLog(self.log)
            if delta.full:
                self.log.pass_whole(delta.snapshot_id, delta.changed)
            else:
                self.log.pass_change(delta.snapshot_id, delta.removed, delta.changed)
            yield self._laid_out(delta.snapshot_id)
            for pair in self._due.pop(delta.snapshot_id, ()):
                self._compare(pair)

    def introduced(self) -> dict[str, Collection[str]] | None:
        """Return the blobs that each commit introduces; None where finding out would have cost too much."""
        if not self._complete:
            return None
        return {commit_id: self._changed[pair] for commit_id, pair in self._pairs.items()}

    def _laid_out(self, snapshot_id: str) -> NewSnapshot:
        log = self.log
        base_id = self._bases.get(snapshot_id)
        known = None if base_id is None else self._chains.get(base_id)
        base: tuple[str, Chain] | None = None
        change: Difference | WideDifference = Difference([], {})
        if base_id is not None and known is not None and base_id != snapshot_id:
            if log.reaches(base_id):
                base, change = (base_id, known), log.difference_from(base_id)
            elif base_id not in self._positions:
                manifest = self._stored_manifest(base_id)
                if manifest is not None:
                    base, change = (base_id, known), self._between(manifest, log.manifest)
        if isinstance(log, WideLog):
            made = new_wide_snapshot(snapshot_id, base, change.removed, change.changed, log.manifest)
        else:
            if isinstance(change, WideDifference):
                change = Difference(list(change.removed), dict(change.changed))
            made = new_snapshot(snapshot_id, base, change, log.manifest)
        # A row that is there stays as it is.
        self._chains.setdefault(snapshot_id, made.chain)
        return made

    def _compare(self, pair: tuple[str | None, str]) -> None:
        """Note what a snapshot changes from a base; the later of the two in the pack has just been passed."""
        base_id, snapshot_id = pair
        log = self.log
        changed: Iterable[str] | None
        if base_id is None:
            changed = log.manifest.values()
        elif log.reaches(base_id) and log.is_last(snapshot_id):
            changed = log.difference_from(base_id).changed.values()
        elif log.is_last(snapshot_id):
            manifest = None if base_id in self._positions else self._stored_manifest(base_id)
            # More than what it introduces will do, as long as the commit has it.
            changed = (log.manifest if manifest is None else self._between(manifest, log.manifest).changed).values()
        elif log.reaches(snapshot_id):
            changed = log.difference_to(snapshot_id).changed.values()
        else:
            manifest = None if snapshot_id in self._positions else self._stored_manifest(snapshot_id)
            changed = None if manifest is None else self._between(log.manifest, manifest).changed.values()
        self._settle(pair, changed)

    def _compare_stored(self, pair: tuple[str | None, str]) -> None:
        base_id, snapshot_id = pair
        after = self._stored_manifest(snapshot_id)
        before = {} if base_id is None else self._stored_manifest(base_id)
        if after is None:
            self._settle(pair, None)
        else:
            self._settle(pair, self._between(before or {}, after).changed.values())

    def _settle(self, pair: tuple[str | None, str], changed: Iterable[str] | None) -> None:
        if changed is None:
            self._complete = False
            return
        rest = iter(changed)
        some = list(islice(rest, _MANY_BLOBS))
        # A tuple takes a third of a set's memory.
        is_few = len(some) < _MANY_BLOBS
        self._changed[pair] = tuple(dict.fromkeys(some)) if is_few else _ManyBlobs(chain(some, rest))

    def _between(self, before: Mapping[str, str], after: Mapping[str, str]) -> Difference | WideDifference:
        """Return what one manifest changes from another; either may be too wide for memory."""
        if isinstance(before, dict) and isinstance(after, dict):
            return difference(before, after)
        return (self.log if isinstance(self.log, WideLog) else WideLog(ManifestLog())).between(before, after)

    def _stored_manifest(self, snapshot_id: str) -> Mapping[str, str] | None:
        known = self._stored.get(snapshot_id)
        if known is not None:
            self._stored.move_to_end(snapshot_id)
            return known
        self.compared += 1
        if self.compared > _MAX_COMPARED:
            return None
        manifest = self._read(snapshot_id)
        if manifest is not None:
            self._stored[snapshot_id] = manifest
            if len(self._stored) > _KEPT_MANIFESTS:
                self._stored.popitem(last=False)
        return manifest


class _ManyBlobs(Collection[str]):
    """Ids of blobs, each once, in the order in which they come."""

    def __init__(self, object_ids: Iterable[str]) -> None:
        self._digests = DigestTable()
        for object_id in object_ids:
            self._digests.number(to_digest(object_id))

    def __len__(self) -> int:
        return self._digests.count

    def __iter__(self) -> Iterator[str]:
        for number in range(self._digests.count):
            yield from_digest(self._digests[number])

    def __contains__(self, object_id: object) -> bool:
        return isinstance(object_id, str) and self._digests.find(to_digest(object_id)) is not None
