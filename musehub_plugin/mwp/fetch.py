"""A fetch by the released `muse` command: the same plan as any fetch, with the history itself in the answer.

The command refuses answers of more than 64 MiB. Whether a fetch would be one is told from rows before any blob is
read, and again while it is written out, since rows that a host wrote by hand may not know the sizes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any, Final

import msgpack

from musehub_plugin.blobs import BlobReader
from musehub_plugin.errors import HistoryDamaged, TooLarge
from musehub_plugin.hub import Hub
from musehub_plugin.ids import PREFIX, to_hex
from musehub_plugin.mwp.records import sent_from_record
from musehub_plugin.plan import Plan, plan_delta
from musehub_plugin.signals import reached
from musehub_plugin.storage.temporary import temporary_room
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store import contents, manifests, repos
from musehub_plugin.store.session import Database

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of an answer that the command reads."""
_SPOOL_BYTES: Final = 8 * 1024 * 1024
_NOTHING: Final = Plan((), (), ())


class AnswerTooLarge(TooLarge):
    """The command would not read the answer: the caller has to use another one."""

    code = "answer-too-large"

    def __init__(self) -> None:
        super().__init__("This history is more than muse reads at once.", limit=MAX_ANSWER)


def fetched_history(
    hub: Hub, db: Database, repo_id: str, want: Sequence[str], have: Sequence[str]
) -> tuple[IO[bytes], Plan]:
    """Return the answer to a fetch as a file of msgpack at its start, which the caller closes, and what is in it.

    Args:
        hub: the app's plugin.
        db: the unit of work; only read.
        repo_id: the repo.
        want: ids of commits, at least one.
        have: ids of commits that the client holds with all their history.

    Raises:
        NotFound: the repo does not hold a want.
        AnswerTooLarge: the command would not read it.
        NeedsMusehub: a commit has no form that the command can hold.
        Unavailable: a needed blob is not indexed yet.
        HistoryDamaged: a commit or snapshot that the answer needs is not there.
        StorageUnavailable: object storage did not answer, or there is no room for the answer.
    """
    plan = plan_delta(db, repo_id, want, have, hub.graphs) or _NOTHING
    reached("mwp.planned")
    entries = manifests.entry_total(db, repo_id, plan.snapshot_ids)
    # An entry takes an id of 64 characters, a path of one or more, and their lengths.
    if entries * 68 + contents.blob_bytes(db, repo_id, plan.object_ids) > MAX_ANSWER:
        raise AnswerTooLarge
    with temporary_room(), ExitStack() as unfinished:
        file = unfinished.enter_context(tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES))
        out = _Answer(file)
        out.write_header(4)
        _write_commits(out, db, repo_id, plan)
        out.write("objects")
        out.write_list_header(len(plan.object_ids))
        with BlobReader(db, hub.storage, repo_id, retry_after=hub.settings.retry_after) as blobs:
            for object_id, content in blobs.read(plan.object_ids):
                out.write({"object_id": to_hex(object_id), "content": content, "path": ""})
        out.write("branch_heads")
        out.write(bare_heads(repos.branch_heads(db, repo_id)))
        file.seek(0)
        unfinished.pop_all()
        return file, plan
    raise AssertionError("unreachable")  # an ExitStack may swallow exceptions, this one does not


def _write_commits(out: _Answer, db: Database, repo_id: str, plan: Plan) -> None:
    made_at: dict[str, str] = {}
    out.write("commits")
    out.write_list_header(len(plan.commit_ids))
    for record in commit_store.records(db, repo_id, plan.commit_ids):
        out.write(sent_from_record(record, repo_id))
        made_at.setdefault(record["snapshot_id"], record["committed_at"])
    out.write("snapshots")
    out.write_list_header(len(plan.snapshot_ids))
    for snapshot_id, manifest in manifests.manifests(db, repo_id, plan.snapshot_ids):
        if manifest is None:
            raise HistoryDamaged(f"repo {repo_id}: snapshot {snapshot_id} is not stored")
        out.write(
            {
                "snapshot_id": to_hex(snapshot_id),
                "manifest": {path: object_id.removeprefix(PREFIX) for path, object_id in manifest.items()},
                # Of the first commit that has it: when the row was made is another repo's business, too.
                "created_at": made_at[snapshot_id],
            }
        )


def bare_heads(heads: Mapping[str, str]) -> dict[str, str]:
    """Return branches by name with the commits' bare ids."""
    return {name: to_hex(commit_id) for name, commit_id in heads.items()}


class _Answer:
    """A msgpack map that is written value by value and may not grow past what the command reads."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._packer = msgpack.Packer()
        self._left = MAX_ANSWER

    def write_header(self, pairs: int) -> None:
        """Begin a map."""
        self._append(self._packer.pack_map_header(pairs))

    def write_list_header(self, length: int) -> None:
        """Begin a list."""
        self._append(self._packer.pack_array_header(length))

    def write(self, value: Any) -> None:
        """Append a value."""
        self._append(self._packer.pack(value))

    def _append(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise AnswerTooLarge
        self._file.write(data)
