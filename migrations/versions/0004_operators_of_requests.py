"""Each row of a request belongs to an operator key, so that several keys can share a database."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0004"
down_revision: Final = "0003"
branch_labels: Final = None
depends_on: Final = None

KEY_BEFORE: Final = ("address", "created_slot")
KEY: Final = (*KEY_BEFORE, "operator")

# Whoever has settled for it; else whoever has settled for others; else the first daemon to start (`requests.adopt`).
OPERATORS: Final = """
    UPDATE requests SET operator = coalesce(
        (SELECT min(s.operator) FROM settlements s WHERE s.request_id = requests.id),
        (SELECT min(s.operator) FROM settlements s),
        ''
    )
"""


def upgrade() -> None:
    op.add_column("requests", sa.Column("operator", sa.Text()))
    op.execute(OPERATORS)
    with op.batch_alter_table("requests") as batch:
        batch.alter_column("operator", existing_type=sa.Text(), nullable=False)
        batch.drop_constraint(name_of(KEY_BEFORE), type_="unique")
        batch.create_unique_constraint(name_of(KEY), KEY)


def downgrade() -> None:
    with op.batch_alter_table("requests") as batch:
        batch.drop_constraint(name_of(KEY), type_="unique")
        batch.create_unique_constraint(name_of(KEY_BEFORE), KEY_BEFORE)
        batch.drop_column("operator")


def name_of(key: tuple[str, ...]) -> str:
    return op.f(f"uq_requests_{'_'.join(key)}")
