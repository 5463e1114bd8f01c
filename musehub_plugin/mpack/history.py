"""Commits as columns: what their content determines is left out, and parents are distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from musehub_plugin import ids
from musehub_plugin.mpack.bounded import Columns
from musehub_plugin.mpack.digestlist import DigestList
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.mpack.extra import decode_extra, encode_extra
from musehub_plugin.mpack.limits import Limits, MPackError

COLUMNS = 11
COMMITS_PER_FRAME = 4096
_RAW_TARGET = 1 << 20
_MAX_STEP = 1 << 40
_TEXTS = ("branch", "message", "author", "committed_at")


class IdRule(IntEnum):
    """Where a commit's id comes from."""

    COMMITTED_AT = 0
    AUTHOR = 1
    STORED = 2


_RULES = tuple(IdRule)


def id_rule(commit_id: str, parent_ids: Sequence[str], record: Mapping[str, Any]) -> IdRule:
    """Say which of the two rules gives a commit its id; `STORED` where neither does."""
    snapshot_id, message = record["snapshot_id"], record["message"]
    if commit_id == ids.commit_id(parent_ids, snapshot_id, message, record["committed_at"]):
        return IdRule.COMMITTED_AT
    if commit_id == ids.commit_id(parent_ids, snapshot_id, message, record["author"]):
        return IdRule.AUTHOR
    return IdRule.STORED


class CommitEncoder:
    """Collects commits into frames.

    Args:
        emit: called with the raw bytes of a frame and the number of commits in it.
        limits: sizes that no commit may exceed.
    """

    def __init__(self, emit: Callable[[bytes, int], None], limits: Limits) -> None:
        self._emit = emit
        self._limits = limits
        self._bounds = [
            (name, limits.max_message_size if name == "message" else limits.max_text_size) for name in _TEXTS
        ]
        self._commits = DigestTable()
        self._reset()

    def _reset(self) -> None:
        self._rules: list[int] = []
        self._stored = bytearray()
        self._outside: dict[bytes, int] = {}
        self._parent_counts: list[int] = []
        self._parents: list[int] = []
        self._snapshots: list[int] = []
        self._texts: dict[str, list[str]] = {name: [] for name in _TEXTS}
        self._extras: list[bytes] = []
        self._last_snapshot = -1
        self._raw_estimate = 0

    def copied(self, digests: bytes) -> None:
        """Count commits as added before, 32 bytes of each id; their frames are written by who copies them."""
        self._commits.extend(digests)

    def _outside_index(self, digest: bytes) -> int:
        return self._outside.setdefault(digest, len(self._outside))

    def add(self, record: Mapping[str, Any], snapshots: DigestTable) -> None:
        """Append a commit.

        Args:
            record: all core fields, and any further ones.
            snapshots: the pack's snapshots.

        Raises:
            ValueError: a field is missing, of the wrong type, or over a limit; or the commit is there already.
        """
        commit_id, parent_ids, snapshot_id = record["commit_id"], record["parent_ids"], record["snapshot_id"]
        ordinal = self._commits.count
        try:
            digest, snapshot_digest, *parents = map(ids.to_digest, (commit_id, snapshot_id, *parent_ids))
        except ValueError as error:
            raise ValueError(f"commit {ordinal}: {error}") from None
        if len(parents) > self._limits.max_parents:
            raise ValueError(f"commit {commit_id} has over {self._limits.max_parents} parents")
        size = 0
        for name, bound in self._bounds:
            text = record[name]
            if not isinstance(text, str):
                raise ValueError(f"commit {commit_id}: {name} is no string")
            encoded = len(text) if text.isascii() else len(text.encode())
            if encoded > bound:
                raise ValueError(f"commit {commit_id}: {name} is over {bound} bytes")
            size += encoded
        extra = encode_extra(record, self._limits)

        # Looked up before the commit itself is there: a parent that it shares its id with is outside like a later one.
        known = [self._commits.find(parent) for parent in parents]
        if self._commits.number(digest) != ordinal:
            raise ValueError(f"commit {commit_id} was added before")
        rule = id_rule(commit_id, parent_ids, record)
        self._rules.append(rule)
        if rule == IdRule.STORED:
            self._stored += digest
        self._parent_counts.append(len(parents))
        for parent, at in zip(parents, known, strict=True):
            self._parents.append(-self._outside_index(parent) if at is None else ordinal - at)
        snapshot = snapshots.find(snapshot_digest)
        if snapshot is None:
            self._snapshots.append(2 * self._outside_index(snapshot_digest) + 1)
        else:
            self._snapshots.append(2 * (snapshot - self._last_snapshot - 1))
            self._last_snapshot = snapshot
        for name, column in self._texts.items():
            column.append(record[name])
        self._extras.append(extra)
        self._raw_estimate += size + len(extra) + 80 + 40 * len(parents)
        if len(self._rules) >= COMMITS_PER_FRAME or self._raw_estimate >= _RAW_TARGET:
            self.flush()

    def __len__(self) -> int:
        return self._commits.count

    def flush(self) -> None:
        """Emit what is collected, if anything."""
        if not self._rules:
            return
        columns = [
            self._rules,
            bytes(self._stored),
            b"".join(self._outside),
            self._parent_counts,
            self._parents,
            self._snapshots,
            *self._texts.values(),
            self._extras,
        ]
        self._emit(msgpack.packb(columns), len(self._rules))
        self._reset()


class ReadCommit(NamedTuple):
    """A commit as a pack has it.

    Attributes:
        record: the commit as it was written.
        digest: the 32 bytes of its id.
        rule: where its id comes from.
        outside_parents: those of its parents that are named by their ids: none of the commits before it, mostly.
        outside_snapshot: its snapshot is named by its id: none of the pack's, mostly.
    """

    record: dict[str, Any]
    digest: bytes
    rule: IdRule
    outside_parents: Sequence[str]
    outside_snapshot: bool


class CommitDecoder:
    """Turns frames of commits back into records.

    Args:
        snapshots: the ids of the pack's snapshots.
        limits: what is accepted.
        folder: where the ids of commits are kept that memory has no room for.
    """

    def __init__(self, snapshots: DigestList, limits: Limits, folder: Path | None = None) -> None:
        self._snapshots = snapshots
        self._limits = limits
        self._digests = DigestList(folder)

    def decode(self, raw: bytes, count: int, where: str) -> Iterator[ReadCommit]:
        """Yield the commits of one frame; frames must come in file order.

        Args:
            raw: the frame's raw bytes.
            count: commits that it must hold.
            where: which frame it is, for errors.

        Raises:
            MPackError: the frame is malformed, refers to what there is not, or exceeds a limit.
        """
        limits = self._limits
        columns = Columns(raw, where, COLUMNS)
        rules = columns.integers("id rule", count=count, low=0, high=max(IdRule))
        stored = columns.digests("stored id", count=rules.count(IdRule.STORED))
        outside = columns.digests("outside id")
        parent_counts = columns.integers("parent count", count=count, low=0, high=limits.max_parents)
        parents = columns.integers("parent", count=sum(parent_counts), low=-_MAX_STEP, high=_MAX_STEP)
        snapshots = columns.integers("snapshot", count=count, low=-_MAX_STEP, high=_MAX_STEP)
        branches = columns.strings("branch", count=count, max_bytes=limits.max_text_size)
        messages = columns.strings("message", count=count, max_bytes=limits.max_message_size)
        authors = columns.strings("author", count=count, max_bytes=limits.max_text_size)
        dates = columns.strings("committed_at", count=count, max_bytes=limits.max_text_size)
        extras = columns.binaries("further fields", count=count, max_bytes=limits.max_extra_size)
        columns.finish()

        from_digest, commit_digest, digests = ids.from_digest, ids.commit_digest, self._digests
        parent_steps = iter(parents)
        last_snapshot = -1
        stored_start = 0
        snapshot_count = len(self._snapshots)
        first = len(digests)
        # The ids of this frame's commits, as many as writers put into one: most parents are among them.
        commit_ids: list[str] = []
        for row in range(count):
            parent_ids: list[str] = []
            outside_parents: list[str] = []
            for step in islice(parent_steps, parent_counts[row]):
                if 0 < step <= row and row - step < len(commit_ids):
                    parent_ids.append(commit_ids[row - step])
                    continue
                parent_ids.append(self._parent(step, first + row, outside, where))
                if step <= 0:
                    outside_parents.append(parent_ids[-1])
            step = snapshots[row]
            if step & 1:
                snapshot_id = _outside_id(outside, step >> 1, where, first + row)
            else:
                last_snapshot += 1 + (step >> 1)
                if not 0 <= last_snapshot < snapshot_count:
                    raise MPackError(
                        f"{where}: commit {first + row} refers to snapshot {last_snapshot} of {snapshot_count}"
                    )
                snapshot_id = from_digest(self._snapshots[last_snapshot])
            rule = _RULES[rules[row]]
            if rule is IdRule.STORED:
                digest = stored[stored_start : stored_start + 32]
                stored_start += 32
            else:
                last = authors[row] if rule is IdRule.AUTHOR else dates[row]
                digest = commit_digest(parent_ids, snapshot_id, messages[row], last)
            if not digests.add(digest):
                raise MPackError(f"{where}: commit {first + row} is in the pack twice")
            commit_id = from_digest(digest)
            if row < COMMITS_PER_FRAME:
                commit_ids.append(commit_id)
            record: dict[str, Any] = {
                "commit_id": commit_id,
                "parent_ids": parent_ids,
                "snapshot_id": snapshot_id,
                "branch": branches[row],
                "message": messages[row],
                "author": authors[row],
                "committed_at": dates[row],
            }
            if extras[row]:
                record.update(decode_extra(extras[row], f"{where}: commit {first + row}", limits))
            yield ReadCommit(record, digest, rule, outside_parents, bool(step & 1))

    def finish(self) -> None:
        """Check that no commit came twice.

        Raises:
            MPackError: one did.
        """
        twice = self._digests.first_repeat()
        if twice is not None:
            raise MPackError(f"commits: commit {twice} is in the pack twice")

    def _parent(self, step: int, ordinal: int, outside: bytes, where: str) -> str:
        if step <= 0:
            return _outside_id(outside, -step, where, ordinal)
        if step > ordinal:
            raise MPackError(f"{where}: commit {ordinal} has a parent {step} before it")
        return ids.from_digest(self._digests[ordinal - step])


def _outside_id(outside: bytes, index: int, where: str, ordinal: int) -> str:
    if not 0 <= index < len(outside) // 32:
        raise MPackError(f"{where}: commit {ordinal} refers to outside id {index} of {len(outside) // 32}")
    return ids.from_digest(outside[32 * index : 32 * index + 32])
