"""Ended requests that are to be made final, or closed, are found without looking at those that are kept, and the open
ones of a requester are counted without looking at any."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.create_index("ix_requests_requester_operator_state", "requests", ["requester", "operator", "state"])
    op.drop_index("ix_requests_requester_state", "requests")
    op.create_index(
        "ix_requests_closable",
        "requests",
        ["operator", sa.text("(ended_slot + retention_slots)")],
        sqlite_where=sa.text("end_finalized IS 1 AND closed IS 0"),
        postgresql_where=sa.text("end_finalized IS true AND closed IS false"),
    )
    op.create_index(
        "ix_requests_unfinalized",
        "requests",
        ["operator", "ended_slot"],
        sqlite_where=sa.text("end_finalized IS 0 AND closed IS 0 AND ended_slot IS NOT NULL"),
        postgresql_where=sa.text("end_finalized IS false AND closed IS false AND ended_slot IS NOT NULL"),
    )


def downgrade() -> None:
    op.create_index("ix_requests_requester_state", "requests", ["requester", "state"])
    op.drop_index("ix_requests_requester_operator_state", "requests")
    op.drop_index("ix_requests_unfinalized", "requests")
    op.drop_index("ix_requests_closable", "requests")
