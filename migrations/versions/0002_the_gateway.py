"""The gateway: calls, the jobs bought for them, and answers to be recorded on chain."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: Final = "0002"
down_revision: Final = "0001"
branch_labels: Final = None
depends_on: Final = None

ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
CODE: Final = sa.String(16)
DETAIL: Final = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    allow_in_ledger("'job', 'tx_fee', 'fee_earned', 'request_fee'")
    create_calls()
    create_jobs()
    create_recordings()


def downgrade() -> None:
    for table in ("recordings", "gateway_jobs", "gateway_calls"):
        op.drop_table(table)
    op.execute("DELETE FROM ledger WHERE kind = 'request_fee'")
    allow_in_ledger("'job', 'tx_fee', 'fee_earned'")


def allow_in_ledger(kinds: str) -> None:
    with op.batch_alter_table("ledger") as batch:
        batch.drop_constraint(op.f("ck_ledger_kind"), type_="check")
        batch.create_check_constraint(op.f("ck_ledger_kind"), f"kind IN ({kinds})")


def create_calls() -> None:
    op.create_table(
        "gateway_calls",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", CODE, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("state", CODE, nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("job_lamports", sa.BigInteger(), nullable=False),
        sa.Column("chain_lamports", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text()),
        sa.Column("model_run", sa.Text()),
        sa.Column("request_address", sa.Text()),
        sa.Column("error_code", sa.Text()),
        sa.Column("began_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger()),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("owned_until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gateway_calls"),
        sa.CheckConstraint("kind IN ('chat', 'embeddings')", name=op.f("ck_gateway_calls_kind")),
        sa.CheckConstraint(
            "state IN ('open', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_gateway_calls_state")
        ),
    )
    unique_where("uq_gateway_calls_open_request", "gateway_calls", "request_address", "state = 'open'")
    op.create_index("ix_gateway_calls_key_began_at_ms", "gateway_calls", ["key", "began_at_ms"])
    op.create_index("ix_gateway_calls_state_owned_until_ms", "gateway_calls", ["state", "owned_until_ms"])


def create_jobs() -> None:
    op.create_table(
        "gateway_jobs",
        sa.Column("id", ID, nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("ledger_id", ID, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text()),
        sa.Column("job_detail", DETAIL),
        sa.Column("state", CODE, nullable=False),
        sa.Column("quoted_lamports", sa.BigInteger(), nullable=False),
        sa.Column("cost_lamports", sa.BigInteger()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_detail", sa.Text()),
        sa.Column("intended_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_gateway_jobs"),
        sa.ForeignKeyConstraint(["call_id"], ["gateway_calls.id"], name="fk_gateway_jobs_call_id"),
        sa.ForeignKeyConstraint(["ledger_id"], ["ledger.id"], name="fk_gateway_jobs_ledger_id"),
        sa.UniqueConstraint("ledger_id", name="uq_gateway_jobs_ledger_id"),
        sa.UniqueConstraint("idempotency_key", name="uq_gateway_jobs_idempotency_key"),
        sa.UniqueConstraint("call_id", "number", name="uq_gateway_jobs_call_id_number"),
        sa.CheckConstraint(
            "state IN ('intended', 'unknown', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_gateway_jobs_state"),
        ),
    )
    unique_where("uq_gateway_jobs_live", "gateway_jobs", "call_id", "state IN ('intended', 'unknown', 'running')")
    op.create_index("ix_gateway_jobs_state", "gateway_jobs", ["state"])


def create_recordings() -> None:
    op.create_table(
        "recordings",
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("input_sha256", sa.Text()),
        sa.Column("fee_lamports", sa.BigInteger(), nullable=False),
        sa.Column("ttl_slots", sa.BigInteger(), nullable=False),
        sa.Column("output", sa.LargeBinary(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("finish_reason", sa.Text(), nullable=False),
        sa.Column("model_run", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_job_id", sa.Text(), nullable=False),
        sa.Column("submitted_at", sa.BigInteger(), nullable=False),
        sa.Column("completed_at", sa.BigInteger(), nullable=False),
        sa.Column("state", CODE, nullable=False),
        sa.Column("signature_id", ID),
        sa.Column("refusals", sa.Integer(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("wake_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_detail", sa.Text()),
        sa.PrimaryKeyConstraint("address", name="pk_recordings"),
        sa.ForeignKeyConstraint(["call_id"], ["gateway_calls.id"], name="fk_recordings_call_id"),
        sa.ForeignKeyConstraint(["signature_id"], ["signatures.id"], name="fk_recordings_signature_id"),
        sa.UniqueConstraint("call_id", name="uq_recordings_call_id"),
        sa.CheckConstraint(
            "state IN ('waiting', 'sent', 'landed', 'ended', 'failed')", name=op.f("ck_recordings_state")
        ),
        sa.CheckConstraint("state <> 'sent' OR signature_id IS NOT NULL", name=op.f("ck_recordings_signed")),
    )
    op.create_index("ix_recordings_state_wake_at_ms", "recordings", ["state", "wake_at_ms"])
    op.create_index("ix_recordings_input_sha256", "recordings", ["input_sha256"])


def unique_where(name: str, table: str, column: str, where: str) -> None:
    op.create_index(name, table, [column], unique=True, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
