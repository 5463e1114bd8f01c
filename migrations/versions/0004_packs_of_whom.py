"""Which repos a pack was pushed to, found without reading the whole table."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_index("ix_musehub_mpack_ref_mpack_id", "musehub_mpack_ref", ["mpack_id"], unique=False)


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_index("ix_musehub_mpack_ref_mpack_id", "musehub_mpack_ref")
