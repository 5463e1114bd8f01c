"""The first tables: repos, branches, history, contents, mpacks, uploads and jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = ("musehub_plugin",)
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "musehub_branch",
        sa.Column("repo_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("head_commit_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("repo_id", "name", name=op.f("pk_musehub_branch")),
    )
    op.create_table(
        "musehub_commit",
        sa.Column("commit_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("parent_ids", sa.LargeBinary(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("snapshot_id", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("commit_id", name=op.f("pk_musehub_commit")),
    )
    op.create_table(
        "musehub_commit_graph",
        sa.Column("commit_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("parent_ids", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_id", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("commit_id", name=op.f("pk_musehub_commit_graph")),
    )
    op.create_table(
        "musehub_commit_ref",
        sa.Column("repo_id", sa.String(length=64), nullable=False),
        sa.Column("commit_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("unreachable_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("own_fields", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("repo_id", "commit_id", name=op.f("pk_musehub_commit_ref")),
    )
    op.create_index("ix_musehub_commit_ref_commit_id", "musehub_commit_ref", ["commit_id"], unique=False)
    op.create_table(
        "musehub_fetch_pack",
        sa.Column("mpack_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("mpack_id", name=op.f("pk_musehub_fetch_pack")),
    )
    op.create_index("ix_musehub_fetch_pack_used_at", "musehub_fetch_pack", ["used_at"], unique=False)
    op.create_table(
        "musehub_job",
        sa.Column("job_id", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=100), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_musehub_job")),
    )
    op.create_index("ix_musehub_job_state_not_before", "musehub_job", ["state", "not_before"], unique=False)
    op.create_table(
        "musehub_mpack",
        sa.Column("mpack_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("commit_count", sa.Integer(), nullable=False),
        sa.Column("snapshot_count", sa.Integer(), nullable=False),
        sa.Column("blob_count", sa.Integer(), nullable=False),
        sa.Column("storage_uri", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("mpack_id", name=op.f("pk_musehub_mpack")),
    )
    op.create_table(
        "musehub_mpack_index",
        sa.Column("entity_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("mpack_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("entity_type", sa.String(length=16), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=True),
        sa.Column("frame_offset", sa.BigInteger(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("entity_id", "mpack_id", name=op.f("pk_musehub_mpack_index")),
    )
    op.create_index("ix_musehub_mpack_index_mpack_id", "musehub_mpack_index", ["mpack_id"], unique=False)
    op.create_table(
        "musehub_mpack_ref",
        sa.Column("repo_id", sa.String(length=64), nullable=False),
        sa.Column("mpack_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("repo_id", "mpack_id", name=op.f("pk_musehub_mpack_ref")),
    )
    op.create_table(
        "musehub_object",
        sa.Column("object_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("storage_uri", sa.Text(), nullable=False),
        sa.Column("content_cache", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("object_id", name=op.f("pk_musehub_object")),
    )
    op.create_table(
        "musehub_object_ref",
        sa.Column("object_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("repo_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("object_id", "repo_id", name=op.f("pk_musehub_object_ref")),
    )
    op.create_table(
        "musehub_repo",
        sa.Column("repo_id", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("slug", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("visibility", sa.String(length=32), nullable=False),
        sa.Column("owner_user_id", sa.String(length=255), nullable=True),
        sa.Column("default_branch", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("repo_id", name=op.f("pk_musehub_repo")),
    )
    op.create_index(
        "uq_musehub_repo_owner_slug",
        "musehub_repo",
        ["owner", "slug"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
        sqlite_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "musehub_snapshot",
        sa.Column("snapshot_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("directories", sa.JSON(), nullable=False),
        sa.Column("manifest_blob", sa.LargeBinary(), nullable=False),
        sa.Column("entry_count", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("snapshot_id", name=op.f("pk_musehub_snapshot")),
    )
    op.create_table(
        "musehub_snapshot_ref",
        sa.Column("snapshot_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("repo_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("snapshot_id", "repo_id", name=op.f("pk_musehub_snapshot_ref")),
    )
    op.create_table(
        "musehub_upload",
        sa.Column("upload_key", sa.String(length=64), nullable=False),
        sa.Column("repo_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("mpack_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("upload_key", name=op.f("pk_musehub_upload")),
    )
    op.create_index("ix_musehub_upload_expires_at", "musehub_upload", ["expires_at"], unique=False)
    op.create_index("ix_musehub_upload_mpack_id_repo_id", "musehub_upload", ["mpack_id", "repo_id"], unique=False)


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_index("ix_musehub_upload_mpack_id_repo_id", "musehub_upload")
    op.drop_index("ix_musehub_upload_expires_at", "musehub_upload")
    op.drop_table("musehub_upload")
    op.drop_table("musehub_snapshot_ref")
    op.drop_table("musehub_snapshot")
    op.drop_index(
        "uq_musehub_repo_owner_slug",
        "musehub_repo",
        postgresql_where=sa.text("deleted_at IS NULL"),
        sqlite_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_table("musehub_repo")
    op.drop_table("musehub_object_ref")
    op.drop_table("musehub_object")
    op.drop_table("musehub_mpack_ref")
    op.drop_index("ix_musehub_mpack_index_mpack_id", "musehub_mpack_index")
    op.drop_table("musehub_mpack_index")
    op.drop_table("musehub_mpack")
    op.drop_index("ix_musehub_job_state_not_before", "musehub_job")
    op.drop_table("musehub_job")
    op.drop_index("ix_musehub_fetch_pack_used_at", "musehub_fetch_pack")
    op.drop_table("musehub_fetch_pack")
    op.drop_index("ix_musehub_commit_ref_commit_id", "musehub_commit_ref")
    op.drop_table("musehub_commit_ref")
    op.drop_table("musehub_commit_graph")
    op.drop_table("musehub_commit")
    op.drop_table("musehub_branch")
