"""What each day has cost, by budget."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.create_table(
        "spending",
        sa.Column("day_ms", sa.BigInteger(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("lamports", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day_ms", "scope", "subject", name="pk_spending"),
    )


def downgrade() -> None:
    op.drop_table("spending")
