"""Due requests are found in the order in which they are taken, without looking at the others."""

from __future__ import annotations

from typing import Final

from alembic import op

revision: Final = "0005"
down_revision: Final = "0004"
branch_labels: Final = None
depends_on: Final = None

DUE: Final = ["state", "operator", "deadline_slot", "id", "wake_at_ms", "lease_until_ms"]


def upgrade() -> None:
    op.create_index("ix_requests_due", "requests", DUE)
    op.drop_index("ix_requests_state_wake_at_ms", "requests")


def downgrade() -> None:
    op.create_index("ix_requests_state_wake_at_ms", "requests", ["state", "wake_at_ms"])
    op.drop_index("ix_requests_due", "requests")
