"""Blobs that are uploaded ahead of the push that names them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "musehub_staged_blob",
        sa.Column("repo_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("object_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("upload_key", sa.String(length=64), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("repo_id", "user_id", "object_id", name=op.f("pk_musehub_staged_blob")),
    )
    op.create_index("ix_musehub_staged_blob_upload_key", "musehub_staged_blob", ["upload_key"], unique=False)


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_index("ix_musehub_staged_blob_upload_key", "musehub_staged_blob")
    op.drop_table("musehub_staged_blob")
