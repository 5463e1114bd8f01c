"""Snapshots as deltas, history packed for the planner, and answers to fetches that are kept ready."""

from __future__ import annotations

from datetime import UTC

import msgpack
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.LargeBinary(length=32)
_REPO_ID = sa.String(length=64)
_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go to this revision. Whole manifests stay as they are: `flask musehub repack` turns them into deltas."""
    with op.batch_alter_table("musehub_snapshot") as snapshot:
        snapshot.alter_column("manifest_blob", existing_type=sa.LargeBinary(), nullable=True)
        snapshot.add_column(sa.Column("base_id", _ID, nullable=True))
        snapshot.add_column(sa.Column("delta_blob", sa.LargeBinary(), nullable=True))
        snapshot.add_column(sa.Column("chain_length", sa.Integer(), nullable=False, server_default=sa.text("0")))
        snapshot.add_column(sa.Column("chain_bytes", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.create_index(
        "ix_musehub_snapshot_base_id",
        "musehub_snapshot",
        ["base_id"],
        unique=False,
        postgresql_where=sa.text("base_id IS NOT NULL"),
        sqlite_where=sa.text("base_id IS NOT NULL"),
    )
    op.add_column("musehub_branch", sa.Column("previous_head_id", _ID, nullable=True))
    op.create_table(
        "musehub_graph_segment",
        sa.Column("repo_id", _REPO_ID, nullable=False),
        sa.Column("first_commit", sa.Integer(), nullable=False),
        sa.Column("segment_id", _ID, nullable=False),
        sa.Column("commit_count", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("repo_id", "first_commit", name=op.f("pk_musehub_graph_segment")),
    )
    op.create_table(
        "musehub_fetch_plan",
        sa.Column("plan_key", _ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("repo_id", _REPO_ID, nullable=False),
        sa.Column("pack_count", sa.Integer(), nullable=False),
        sa.Column("mpack_id", _ID, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("commit_count", sa.Integer(), nullable=False),
        sa.Column("snapshot_count", sa.Integer(), nullable=False),
        sa.Column("blob_count", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("used_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("plan_key", "position", name=op.f("pk_musehub_fetch_plan")),
    )
    op.create_index("ix_musehub_fetch_plan_repo_id", "musehub_fetch_plan", ["repo_id"], unique=False)
    op.create_index("ix_musehub_fetch_plan_used_at", "musehub_fetch_plan", ["used_at"], unique=False)
    op.create_index("ix_musehub_fetch_plan_mpack_id", "musehub_fetch_plan", ["mpack_id"], unique=False)
    op.create_table(
        "musehub_build",
        sa.Column("plan_key", _ID, nullable=False),
        sa.Column("repo_id", _REPO_ID, nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("lease_until", _INSTANT, nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("plan_key", name=op.f("pk_musehub_build")),
    )
    op.create_table(
        "musehub_clone_pack",
        sa.Column("repo_id", _REPO_ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("head_commit_id", _ID, nullable=False),
        sa.Column("mpack_id", _ID, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("commit_count", sa.Integer(), nullable=False),
        sa.Column("snapshot_count", sa.Integer(), nullable=False),
        sa.Column("blob_count", sa.Integer(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("repo_id", "position", name=op.f("pk_musehub_clone_pack")),
    )
    op.create_index("ix_musehub_clone_pack_mpack_id", "musehub_clone_pack", ["mpack_id"], unique=False)


def downgrade() -> None:
    """Go back to the one before: every manifest is written whole again, the rest is made anew where it is needed."""
    _write_whole_manifests()
    _write_own_fields_whole()
    op.drop_index("ix_musehub_clone_pack_mpack_id", "musehub_clone_pack")
    op.drop_table("musehub_clone_pack")
    op.drop_table("musehub_build")
    op.drop_index("ix_musehub_fetch_plan_mpack_id", "musehub_fetch_plan")
    op.drop_index("ix_musehub_fetch_plan_used_at", "musehub_fetch_plan")
    op.drop_index("ix_musehub_fetch_plan_repo_id", "musehub_fetch_plan")
    op.drop_table("musehub_fetch_plan")
    op.drop_table("musehub_graph_segment")
    with op.batch_alter_table("musehub_branch") as branch:
        branch.drop_column("previous_head_id")
    op.drop_index("ix_musehub_snapshot_base_id", "musehub_snapshot")
    with op.batch_alter_table("musehub_snapshot") as snapshot:
        snapshot.drop_column("chain_bytes")
        snapshot.drop_column("chain_length")
        snapshot.drop_column("delta_blob")
        snapshot.drop_column("base_id")
        snapshot.alter_column("manifest_blob", existing_type=sa.LargeBinary(), nullable=False)


_snapshot = sa.table(
    "musehub_snapshot",
    sa.column("snapshot_id", sa.LargeBinary()),
    sa.column("manifest_blob", sa.LargeBinary()),
    sa.column("base_id", sa.LargeBinary()),
    sa.column("delta_blob", sa.LargeBinary()),
)


def _write_whole_manifests() -> None:
    connection = op.get_bind()
    base = _snapshot.alias("base")
    # Those whose base is whole by now, until there are no more.
    ready = (
        sa.select(_snapshot.c.snapshot_id, _snapshot.c.delta_blob, base.c.manifest_blob)
        .select_from(_snapshot.outerjoin(base, base.c.snapshot_id == _snapshot.c.base_id))
        .where(
            _snapshot.c.manifest_blob.is_(None),
            _snapshot.c.base_id.is_(None) | base.c.manifest_blob.is_not(None),
        )
        .limit(200)
    )
    while rows := connection.execute(ready).all():
        for snapshot_id, delta, whole in rows:
            manifest: dict[str, str] = {} if whole is None else msgpack.unpackb(whole)
            removed, paths, digests = msgpack.unpackb(delta)
            for path in removed:
                del manifest[path]
            for position, path in enumerate(paths):
                manifest[path] = "sha256:" + digests[32 * position : 32 * position + 32].hex()
            connection.execute(
                sa.update(_snapshot)
                .where(_snapshot.c.snapshot_id == snapshot_id)
                .values(manifest_blob=msgpack.packb(dict(sorted(manifest.items()))))
            )


_commit = sa.table(
    "musehub_commit",
    sa.column("commit_id", sa.LargeBinary()),
    sa.column("parent_ids", sa.LargeBinary()),
    sa.column("branch", sa.Text()),
    sa.column("author", sa.Text()),
    sa.column("timestamp", sa.DateTime(timezone=True)),
)
_commit_ref = sa.table(
    "musehub_commit_ref",
    sa.column("repo_id", sa.String()),
    sa.column("commit_id", sa.LargeBinary()),
    sa.column("own_fields", sa.LargeBinary()),
)


def _write_own_fields_whole() -> None:
    """What a repo said of a commit was kept as what differs from the commit's row; before, it was a list of all."""
    connection = op.get_bind()
    after = ("", b"")
    while rows := connection.execute(
        sa.select(
            _commit_ref.c.repo_id,
            _commit_ref.c.commit_id,
            _commit_ref.c.own_fields,
            _commit.c.parent_ids,
            _commit.c.branch,
            _commit.c.author,
            _commit.c.timestamp,
        )
        .select_from(_commit_ref.join(_commit, _commit.c.commit_id == _commit_ref.c.commit_id))
        .where(
            _commit_ref.c.own_fields.is_not(None),
            sa.tuple_(_commit_ref.c.repo_id, _commit_ref.c.commit_id) > sa.tuple_(*after),
        )
        .order_by(_commit_ref.c.repo_id, _commit_ref.c.commit_id)
        .limit(1_000)
    ).all():
        for row in rows:
            kept = msgpack.unpackb(bytes(row.own_fields), strict_map_key=False)
            if not isinstance(kept, dict):
                continue
            moment = row.timestamp if row.timestamp.tzinfo else row.timestamp.replace(tzinfo=UTC)
            whole = [
                kept.get("parents", bytes(row.parent_ids)),
                kept.get("branch", row.branch),
                kept.get("author", row.author),
                kept.get("date", moment.astimezone(UTC).isoformat()),
                kept.get("further", {}),
            ]
            connection.execute(
                sa.update(_commit_ref)
                .where(_commit_ref.c.repo_id == row.repo_id, _commit_ref.c.commit_id == row.commit_id)
                .values(own_fields=msgpack.packb(whole))
            )
        after = (rows[-1].repo_id, bytes(rows[-1].commit_id))
