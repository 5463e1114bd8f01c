"""Every public name, used as hosts, plugin authors and backends use it: checked by mypy in strict mode, never run.

A line that ends in `type: ignore` is a mistake that the types must catch; strict mode refuses an ignore that ignores
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_type

from flask import Flask, Request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select
from sqlalchemy.orm import Session

from musehub_plugin import Identity, InvalidCredentials, MuseHub, __version__, ids, models, signals
from musehub_plugin.access import AccessPolicy, Action, IdentityLoader, Repo, RepoLoader
from musehub_plugin.errors import ConfigError, StorageUnavailable
from musehub_plugin.mpack import build_wire_mpack, parse_wire_mpack
from musehub_plugin.storage import FileStorage, MemoryStorage, Storage
from musehub_plugin.testing import History, create_repo, make_commit, store_object

assert_type(__version__, str)


def a_host(app: Flask, db: SQLAlchemy) -> None:
    musehub = MuseHub()
    musehub.init_app(app)
    musehub.init_app(app, db)
    assert_type(MuseHub(app, db), MuseHub)
    musehub.init_app(db)  # type: ignore[arg-type]  # an app is asked for

    @musehub.identity_loader
    def load_identity(request: Request) -> Identity | None:
        if request.headers.get("Authorization") is None:
            return None
        if "bad" in request.headers["Authorization"]:
            raise InvalidCredentials("bad")
        return Identity("1", handle="alice", is_admin=False)

    # The decorator gives back what it was given, so that the function can be called and tested.
    loader: IdentityLoader = load_identity

    @musehub.repo_loader
    def load_repo(owner: str, slug: str) -> Project | None:
        return Project(7, owner, slug, "public", 1) if slug else None

    found: RepoLoader = load_repo
    repo: Repo | None = load_repo("alice", "songs")

    @musehub.access_policy
    def may(identity: Identity | None, action: Action, repo: Project) -> bool:
        return action == "read" or (identity is not None and identity.user_id == str(repo.owner_user_id))

    policy: AccessPolicy = may
    assert all((loader, found, repo, policy))

    @musehub.identity_loader  # type: ignore[type-var]  # it gets the request
    def without_a_request() -> Identity | None:
        return None

    @musehub.access_policy  # type: ignore[type-var]  # it says yes or no
    def undecided(identity: Identity | None, action: Action, repo: Project) -> str:
        return "perhaps"

    Identity(1)  # type: ignore[arg-type]  # an id is text


@dataclass(frozen=True)
class Project:
    """A repo in a host's own table."""

    repo_id: int
    owner: str
    slug: str
    visibility: str
    owner_user_id: int | None


def an_identity(identity: Identity) -> None:
    assert_type(identity.user_id, str)
    assert_type(identity.handle, str)
    assert_type(identity.is_admin, bool)
    identity.user_id = "2"  # type: ignore[misc]  # an identity does not change


def some_ids(content: bytes, manifest: Mapping[str, str]) -> None:
    assert_type(ids.blob_id(content), str)
    assert_type(ids.snapshot_id(manifest), str)
    assert_type(ids.commit_id([ids.fake_id("parent")], ids.snapshot_id({}), "message", "2026-01-01"), str)
    assert_type(ids.fake_id("seed"), str)
    assert_type(ids.is_id("sha256:"), bool)
    ids.blob_id("text")  # type: ignore[arg-type]  # content is bytes


def some_rows(session: Session) -> None:
    repo = session.scalars(select(models.MusehubRepo)).one()
    assert_type(repo.repo_id, str)
    assert_type(repo.owner, str)
    assert_type(repo.slug, str)
    assert_type(repo.name, str)
    assert_type(repo.visibility, str)
    assert_type(repo.owner_user_id, str | None)
    assert_type(repo.default_branch, str)
    assert_type(repo.deleted_at, datetime | None)
    branch = models.MusehubBranch(repo_id=repo.repo_id, name="main", head_commit_id=ids.fake_id("c"))
    assert_type(branch.head_commit_id, str)
    commit = models.MusehubCommit(
        commit_id=ids.fake_id("c"),
        branch="main",
        parent_ids=[ids.fake_id("p")],
        message="m",
        author="a",
        timestamp=datetime.now(),  # noqa: DTZ005 - only its type matters
        snapshot_id=ids.fake_id("s"),
    )
    assert_type(commit.parent_ids, list[str])
    assert_type(commit.timestamp, datetime)
    graph = models.MusehubCommitGraph(commit_id=commit.commit_id, parent_ids=[], generation=1, snapshot_id=None)
    assert_type(graph.generation, int)
    snapshot = models.MusehubSnapshot(
        snapshot_id=ids.fake_id("s"), directories=["a"], manifest_blob=b"", entry_count=0, created_at=commit.timestamp
    )
    assert_type(snapshot.manifest_blob, bytes)
    blob = models.MusehubObject(object_id=ids.fake_id("b"), path="", size_bytes=0, storage_uri="", content_cache=None)
    assert_type(blob.content_cache, bytes | None)
    session.add_all([branch, commit, graph, snapshot, blob])
    session.add(models.MusehubCommitRef(repo_id=repo.repo_id, commit_id=commit.commit_id))
    session.add(models.MusehubSnapshotRef(repo_id=repo.repo_id, snapshot_id=snapshot.snapshot_id))
    session.add(models.MusehubObjectRef(repo_id=repo.repo_id, object_id=blob.object_id))
    session.add(models.MusehubMPackIndex(entity_id=blob.object_id, mpack_id=ids.fake_id("mpack"), entity_type="object"))
    models.Base.metadata.create_all(session.get_bind())


def some_packs(data: bytes) -> None:
    pack = parse_wire_mpack(data)
    commits: list[dict[str, Any]] = pack["commits"]
    packed = build_wire_mpack(commits=commits, snapshots=pack["snapshots"], blobs=pack["blobs"])
    assert_type(packed, bytes)
    build_wire_mpack(commits, [], [])  # type: ignore[call-arg]  # by name only


class Shelf:
    """A third party's storage: the contract's eight names and no base class."""

    supports_presign = True

    def put(self, oid: str, data: bytes) -> str:
        return oid

    def get(self, oid: str) -> bytes | None:
        raise StorageUnavailable("closed")

    def exists(self, oid: str) -> bool:
        return False

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        return mpack_id

    def get_mpack(self, mpack_id: str) -> bytes | None:
        return None

    def presign_get(self, oid: str, ttl_seconds: int = 3600) -> str:
        return ""

    def presign_mpack_get(self, mpack_id: str, ttl: int) -> str:
        return ""


def some_storage() -> list[Storage]:
    return [Shelf(), MemoryStorage(), FileStorage("/var/lib/musehub")]


def no_storage() -> Storage:
    return object()  # type: ignore[return-value]  # it has none of the names


def the_kit(db: SQLAlchemy, storage: Storage) -> None:
    repo = create_repo(db.session, "alice", "songs", visibility="private")
    assert_type(repo, models.MusehubRepo)
    assert_type(store_object(db.session, repo.repo_id, b"one", storage=storage, in_row=False), str)
    assert_type(make_commit(db.session, repo.repo_id, {"a.txt": b"one"}, [ids.fake_id("p")], branch="main"), str)
    history = History()
    assert_type(history.commit({"a.txt": b"one"}), str)
    assert_type(history.pack(), bytes)


def the_signals(app: Flask) -> None:
    def receive(sender: Flask, **arguments: Any) -> None:
        sender.logger.info("%s", sorted(arguments))

    for signal in (signals.fetched, signals.pushed, signals.indexed):
        signal.connect(receive, app)


def a_wrong_setting(app: Flask) -> str:
    try:
        MuseHub(app)
    except ConfigError as error:
        return str(error)
    return ""
