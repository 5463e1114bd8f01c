"""The plugin's tables.

Commits, snapshots and objects are stored once for the whole hub; the `...Ref` tables say which repo holds which, and
every read goes through them. There are no foreign keys: repos may live in the host's own tables, rows are
content-addressed and arrive in bulk, and the ref tables are made to be partitioned.

Ids are `sha256:...` strings in Python and 32 bytes in the database: a third of the text's size in every row and index.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import current_app, has_app_context
from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from musehub_plugin.ids import PREFIX, to_digest

DIGEST_SIZE = 32


class Id(TypeDecorator[str]):
    """An id: `sha256:` + 64 hex digits in Python, its 32 bytes in the database."""

    impl = LargeBinary(DIGEST_SIZE)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """Return the 32 bytes of `value`; ValueError where it is no id."""
        return None if value is None else to_digest(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Return the id of the stored bytes."""
        return _id_of(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], str | None]:
        """Return what gives the id of stored bytes: SQLAlchemy's own way to it takes four times as long."""
        return _id_of


def _id_of(value: bytes | memoryview | None) -> str | None:
    return None if value is None else PREFIX + value.hex()


class IdList(TypeDecorator[list[str]]):
    """A list of ids in order: their bytes, one after the other, in the database."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> bytes | None:
        """Return the ids' bytes joined; ValueError where one is no id."""
        return None if value is None else b"".join(to_digest(item) for item in value)

    def process_result_value(self, value: Any, dialect: Dialect) -> list[str] | None:
        """Return the ids in their order."""
        return _ids_of(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], list[str] | None]:
        """Return what gives the ids of stored bytes, by the short way as for `Id`."""
        return _ids_of


def _ids_of(value: bytes | memoryview | None) -> list[str] | None:
    if value is None:
        return None
    digits = value.hex()
    return [PREFIX + digits[at : at + 2 * DIGEST_SIZE] for at in range(0, len(digits), 2 * DIGEST_SIZE)]


class _ReadInUtc(FunctionElement[datetime]):
    """A moment as the database is asked for it."""

    inherit_cache = True
    name = "read_in_utc"


@compiles(_ReadInUtc)
def _as_it_is(element: _ReadInUtc, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(_ReadInUtc, "postgresql")
def _in_utc(element: _ReadInUtc, compiler: SQLCompiler, **options: Any) -> str:
    return f"timezone('UTC', {compiler.process(element.clauses, **options)})"


class Instant(TypeDecorator[datetime]):
    """A moment with its time zone; what comes back naive is UTC.

    SQLite keeps no time zone. PostgreSQL gives moments in the session's, where the first day of the year 1 or the last
    one of 9999, which a commit may say, can be one of a year that Python does not know.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC; a naive one is taken to be UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return what is selected for a column."""
        read = _ReadInUtc(column)
        read.type = self
        return read

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _BindInfo(dict[str, Any]):
    """`MetaData.info` that answers `bind_key` from the app at hand.

    Flask-SQLAlchemy's session looks there to choose an engine. The tables are shared by every app of the process while
    `MUSEHUB_BIND_KEY` is one app's setting, so a fixed value would route one app's rows into another's database.
    """

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (key == "bind_key" and self._bind_key() is not None)

    def __getitem__(self, key: str) -> Any:
        return self._bind_key() if key == "bind_key" else super().__getitem__(key)

    @staticmethod
    def _bind_key() -> str | None:
        if not has_app_context():
            return None
        hub = current_app.extensions.get("musehub")
        return None if hub is None else hub.settings.bind_key


class Base(DeclarativeBase):
    """The plugin's declarative base, with a `MetaData` of its own: the host's `create_all` leaves it be."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "pk": "pk_%(table_name)s",
        },
        # Not empty: `MetaData` does not take an empty one.
        info=_BindInfo(package="musehub_plugin"),
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _new_repo_id() -> str:
    return str(uuid.uuid4())


def _slug_of_row(context: DefaultExecutionContext) -> str:
    parameters: dict[str, Any] = context.get_current_parameters()  # type: ignore[no-untyped-call]  # untyped there
    return str(parameters["slug"])


# A host's own repo ids are opaque text.
RepoId = String(64)


class MusehubRepo(Base):
    """A repo, where the host does not keep repos in tables of its own (`repo_loader`)."""

    __tablename__ = "musehub_repo"
    __table_args__ = (
        # A deleted repo frees its name (ATTACKS S19).
        Index(
            "uq_musehub_repo_owner_slug",
            "owner",
            "slug",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
            sqlite_where=text("deleted_at IS NULL"),
        ),
    )

    repo_id: Mapped[str] = mapped_column(RepoId, primary_key=True, default=_new_repo_id)
    owner: Mapped[str] = mapped_column(String(255))
    slug: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(255), default=_slug_of_row)
    visibility: Mapped[str] = mapped_column(String(32), default="private")
    owner_user_id: Mapped[str | None] = mapped_column(String(255))
    default_branch: Mapped[str] = mapped_column(String(255), default="main")
    created_at: Mapped[datetime] = mapped_column(Instant, default=_now)
    deleted_at: Mapped[datetime | None] = mapped_column(Instant)


class MusehubBranch(Base):
    """A branch of a repo and the commit that it points at."""

    __tablename__ = "musehub_branch"

    repo_id: Mapped[str] = mapped_column(RepoId, primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    head_commit_id: Mapped[str] = mapped_column(Id)
    updated_at: Mapped[datetime] = mapped_column(Instant, default=_now, onupdate=_now)
    previous_head_id: Mapped[str | None] = mapped_column(Id)
    """Where it pointed before: whoever follows the branch will ask for what came since."""


class MusehubCommit(Base):
    """A commit, once for the hub.

    The id covers parents (sorted), snapshot, message and one of `committed_at` or `author`. All else is what the first
    repo to push it said; what each repo itself said is in its `MusehubCommitRef.own_fields`.
    """

    __tablename__ = "musehub_commit"

    commit_id: Mapped[str] = mapped_column(Id, primary_key=True)
    branch: Mapped[str] = mapped_column(Text, default="")
    parent_ids: Mapped[list[str]] = mapped_column(IdList, default=list)
    message: Mapped[str] = mapped_column(Text, default="")
    author: Mapped[str] = mapped_column(Text, default="")
    timestamp: Mapped[datetime] = mapped_column(Instant, default=_now)
    snapshot_id: Mapped[str] = mapped_column(Id)


class MusehubCommitRef(Base):
    """A repo holds a commit."""

    __tablename__ = "musehub_commit_ref"

    repo_id: Mapped[str] = mapped_column(RepoId, primary_key=True)
    commit_id: Mapped[str] = mapped_column(Id, primary_key=True, index=True)
    unreachable_since: Mapped[datetime | None] = mapped_column(Instant)
    """When garbage collection first found that no branch of the repo reaches it; null while one does."""
    own_fields: Mapped[bytes | None] = mapped_column(LargeBinary)
    """msgpack of what this repo's push said beyond the id (see `store.commits`); null: as the commit's row says."""


class MusehubCommitGraph(Base):
    """The shape of history, without its text: parents, and a generation of 1 + the highest parent's."""

    __tablename__ = "musehub_commit_graph"

    commit_id: Mapped[str] = mapped_column(Id, primary_key=True)
    parent_ids: Mapped[list[str]] = mapped_column(IdList, default=list)
    generation: Mapped[int] = mapped_column(BigInteger, default=1)
    snapshot_id: Mapped[str | None] = mapped_column(Id)


class MusehubSnapshot(Base):
    """A manifest, once for the hub.

    It is whole in `manifest_blob`, as rows written by hand have it, or it is in `delta_blob`: what it changes from
    the snapshot `base_id`, or from the empty manifest where there is none (`store.manifests` has the encoding). Whoever
    loads the entity finds the whole manifest in `manifest_blob` either way; a statement for the column alone does not.
    """

    __tablename__ = "musehub_snapshot"
    __table_args__ = (
        # Few rows are asked for by it, and only before a base is removed: those that have one.
        Index(
            None,
            "base_id",
            postgresql_where=text("base_id IS NOT NULL"),
            sqlite_where=text("base_id IS NOT NULL"),
        ),
    )

    snapshot_id: Mapped[str] = mapped_column(Id, primary_key=True)
    directories: Mapped[list[str]] = mapped_column(JSON, default=list)
    manifest_blob: Mapped[bytes] = mapped_column(LargeBinary, nullable=True)
    entry_count: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(Instant, default=_now)
    base_id: Mapped[str | None] = mapped_column(Id)
    delta_blob: Mapped[bytes | None] = mapped_column(LargeBinary)
    chain_length: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """Deltas between this row and a whole manifest."""
    chain_bytes: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """Size of these deltas, this row's counted."""


class MusehubSnapshotRef(Base):
    """A repo holds a snapshot."""

    __tablename__ = "musehub_snapshot_ref"

    # The id goes first: that finds both "does this repo hold it" and "does any repo still hold it".
    snapshot_id: Mapped[str] = mapped_column(Id, primary_key=True)
    repo_id: Mapped[str] = mapped_column(RepoId, primary_key=True)


class MusehubObject(Base):
    """A blob, once for the hub."""

    __tablename__ = "musehub_object"

    object_id: Mapped[str] = mapped_column(Id, primary_key=True)
    path: Mapped[str] = mapped_column(Text, default="")
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    storage_uri: Mapped[str] = mapped_column(Text, default="")
    content_cache: Mapped[bytes | None] = mapped_column(LargeBinary)


class MusehubObjectRef(Base):
    """A repo holds a blob: made only from bytes that were uploaded to that repo and hashed (ATTACKS S04, S08)."""

    __tablename__ = "musehub_object_ref"

    object_id: Mapped[str] = mapped_column(Id, primary_key=True)
    repo_id: Mapped[str] = mapped_column(RepoId, primary_key=True)


class MusehubMPackIndex(Base):
    """Which mpack holds an entity, and where; frame, offset and size are null in rows written by hand."""

    __tablename__ = "musehub_mpack_index"
    __table_args__ = (Index(None, "mpack_id"),)

    entity_id: Mapped[str] = mapped_column(Id, primary_key=True)
    mpack_id: Mapped[str] = mapped_column(Id, primary_key=True)
    entity_type: Mapped[str] = mapped_column(String(16), default="object")
    frame: Mapped[int | None] = mapped_column(Integer)
    frame_offset: Mapped[int | None] = mapped_column(BigInteger)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)


class MusehubGraphSegment(Base):
    """A part of a repo's history, packed for the planner (`musehub_plugin.commitgraph` has the encoding).

    It repeats what other rows say and may be missing: then the planner reads those. A repo's segments follow one
    another by `first_commit`, and are complete: a parent of a commit in one is in it or in one before it.
    """

    __tablename__ = "musehub_graph_segment"

    repo_id: Mapped[str] = mapped_column(RepoId, primary_key=True)
    first_commit: Mapped[int] = mapped_column(Integer, primary_key=True)
    segment_id: Mapped[str] = mapped_column(Id)
    """The hash of `data`: what was read once need not be read again."""
    commit_count: Mapped[int] = mapped_column(Integer)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class MusehubFetchPlan(Base):
    """One mpack of the ready answer to a fetch: `pack_count` rows of one key make the answer."""

    __tablename__ = "musehub_fetch_plan"
    __table_args__ = (Index(None, "repo_id"), Index(None, "used_at"), Index(None, "mpack_id"))

    plan_key: Mapped[str] = mapped_column(Id, primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    repo_id: Mapped[str] = mapped_column(RepoId)
    pack_count: Mapped[int] = mapped_column(Integer)
    mpack_id: Mapped[str] = mapped_column(Id)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    commit_count: Mapped[int] = mapped_column(Integer)
    snapshot_count: Mapped[int] = mapped_column(Integer)
    blob_count: Mapped[int] = mapped_column(Integer)
    content: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The mpack itself, where it is small and travels in the answer; null: it is in object storage."""
    created_at: Mapped[datetime] = mapped_column(Instant, default=_now)
    used_at: Mapped[datetime] = mapped_column(Instant, default=_now)
    """When it was last answered, to the minute."""


class MusehubBuild(Base):
    """Somebody is making the mpack of a plan, until `lease_until`: others wait for it (ATTACKS S91, R24)."""

    __tablename__ = "musehub_build"

    plan_key: Mapped[str] = mapped_column(Id, primary_key=True)
    repo_id: Mapped[str] = mapped_column(RepoId)
    holder: Mapped[str] = mapped_column(String(64))
    lease_until: Mapped[datetime] = mapped_column(Instant)
    request: Mapped[bytes | None] = mapped_column(LargeBinary)
    """What was asked for, where a job makes it."""


class MusehubClonePack(Base):
    """One of the mpacks that together hold the default branch's history up to a commit, `position` after `position`."""

    __tablename__ = "musehub_clone_pack"

    repo_id: Mapped[str] = mapped_column(RepoId, primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    head_commit_id: Mapped[str] = mapped_column(Id)
    """This mpack and those before it hold all that this commit reaches, and nothing else."""
    mpack_id: Mapped[str] = mapped_column(Id, index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    commit_count: Mapped[int] = mapped_column(Integer)
    snapshot_count: Mapped[int] = mapped_column(Integer)
    blob_count: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(Instant, default=_now)


class MusehubMPack(Base):
    """A pushed mpack that object storage keeps."""

    __tablename__ = "musehub_mpack"

    mpack_id: Mapped[str] = mapped_column(Id, primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    commit_count: Mapped[int] = mapped_column(Integer, default=0)
    snapshot_count: Mapped[int] = mapped_column(Integer, default=0)
    blob_count: Mapped[int] = mapped_column(Integer, default=0)
    storage_uri: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(Instant, default=_now)


class MusehubJob(Base):
    """Work to be done in the background: the record of it, which Redis is not.

    `state` is `pending`, `running` (until `lease_until`; then it counts as pending), `done` or `failed`. `created_at`
    is when it was asked for; a job that had come to its end and begins anew was asked for then.
    """

    __tablename__ = "musehub_job"
    __table_args__ = (Index(None, "state", "not_before"),)

    job_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(16), default="pending")
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    not_before: Mapped[datetime] = mapped_column(Instant, default=_now)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Instant, default=_now)
    updated_at: Mapped[datetime] = mapped_column(Instant, default=_now)


class MusehubMPackRef(Base):
    """An mpack was pushed to a repo."""

    __tablename__ = "musehub_mpack_ref"

    repo_id: Mapped[str] = mapped_column(RepoId, primary_key=True)
    mpack_id: Mapped[str] = mapped_column(Id, primary_key=True, index=True)
    user_id: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[datetime] = mapped_column(Instant, default=_now)


class MusehubFetchPack(Base):
    """An mpack that was made to answer a fetch, kept while it is used."""

    __tablename__ = "musehub_fetch_pack"
    __table_args__ = (Index(None, "used_at"),)

    mpack_id: Mapped[str] = mapped_column(Id, primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(Instant, default=_now)
    used_at: Mapped[datetime] = mapped_column(Instant, default=_now)
    """When a URL of it was last handed out."""


class MusehubUpload(Base):
    """A ticket: this user may upload this mpack for this repo until it expires (ATTACKS S12, S13)."""

    __tablename__ = "musehub_upload"
    __table_args__ = (Index(None, "mpack_id", "repo_id"), Index(None, "expires_at"))

    upload_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    repo_id: Mapped[str] = mapped_column(RepoId)
    user_id: Mapped[str] = mapped_column(String(255))
    mpack_id: Mapped[str] = mapped_column(Id)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(Instant, default=_now)
    expires_at: Mapped[datetime] = mapped_column(Instant)


class MusehubStagedBlob(Base):
    """A blob that a user uploaded for a repo ahead of the push that names it: where its bytes are in an upload."""

    __tablename__ = "musehub_staged_blob"
    __table_args__ = (Index(None, "upload_key"),)

    repo_id: Mapped[str] = mapped_column(RepoId, primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    object_id: Mapped[str] = mapped_column(Id, primary_key=True)
    upload_key: Mapped[str] = mapped_column(String(64))
    start: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
