"""The schema: requests, attempts, settlements, signatures, results, journal and ledger."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None

ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
CODE: Final = sa.String(16)
DETAIL: Final = sa.JSON().with_variant(JSONB(), "postgresql")
LEASE: Final = "(lease_owner IS NULL) = (lease_until_ms IS NULL)"

TABLES: Final = (
    "requests",
    "attempts",
    "inputs",
    "outputs",
    "receipts",
    "settlements",
    "signatures",
    "signature_members",
    "journal",
    "ledger",
    "marks",
)


def upgrade() -> None:
    create_requests()
    create_attempts()
    create_results()
    create_settlements()
    create_signatures()
    create_journal()
    create_ledger()
    op.create_table(
        "marks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", DETAIL, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_marks"),
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION journal_is_append_only()")


def create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", ID, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("created_slot", sa.BigInteger(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("refund_to", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("fee_lamports", sa.BigInteger(), nullable=False),
        sa.Column("deadline_slot", sa.BigInteger(), nullable=False),
        sa.Column("claim_required", sa.Boolean(), nullable=False),
        sa.Column("retention_slots", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.LargeBinary(), nullable=False),
        sa.Column("state", CODE, nullable=False),
        sa.Column("state_since_ms", sa.BigInteger(), nullable=False),
        sa.Column("wake_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_until_ms", sa.BigInteger()),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("route_index", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts_made", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("unconfirmed_purchases", sa.Integer(), server_default="0", nullable=False),
        sa.Column("output_sha256", sa.Text()),
        sa.Column("job_hash", sa.Text()),
        sa.Column("completed_at", sa.BigInteger()),
        sa.Column("reject_reason", sa.Integer()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_detail", sa.Text()),
        sa.Column("chain_status", sa.Integer(), nullable=False),
        sa.Column("chain_slot", sa.BigInteger(), nullable=False),
        sa.Column("seen_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("seen_by", sa.Text(), nullable=False),
        sa.Column("ended_slot", sa.BigInteger()),
        sa.Column("end_finalized", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("closed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
        sa.UniqueConstraint("address", "created_slot", name="uq_requests_address_created_slot"),
        sa.CheckConstraint(
            "state IN ('seen', 'admitted', 'claiming', 'claimed', 'running', 'computed', 'refused', 'settling', "
            "'parked', 'declined', 'settled', 'rejected', 'cancelled', 'expired', 'superseded', 'vanished')",
            name=op.f("ck_requests_state"),
        ),
        sa.CheckConstraint(LEASE, name=op.f("ck_requests_lease")),
    )
    op.create_index("ix_requests_state_wake_at_ms", "requests", ["state", "wake_at_ms"])
    op.create_index("ix_requests_requester_state", "requests", ["requester", "state"])
    op.create_index("ix_requests_output_sha256", "requests", ["output_sha256"])
    op.create_index("ix_requests_closed_queue", "requests", ["closed", "queue"])


def create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", ID, nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
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
        sa.Column("started_at_ms", sa.BigInteger()),
        sa.Column("ended_at_ms", sa.BigInteger()),
        sa.Column("wake_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_attempts_request_id"),
        sa.UniqueConstraint("idempotency_key", name="uq_attempts_idempotency_key"),
        sa.UniqueConstraint("request_id", "lane", "number", name="uq_attempts_request_id_lane_number"),
        sa.CheckConstraint(
            "state IN ('intended', 'unknown', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_attempts_state"),
        ),
    )
    unique_where(
        "uq_attempts_live_lane", "attempts", ["request_id", "lane"], "state IN ('intended', 'unknown', 'running')"
    )
    op.create_index("ix_attempts_state_wake_at_ms", "attempts", ["state", "wake_at_ms"])
    op.create_index(
        "ix_attempts_provider_model_state_ended_at_ms", "attempts", ["provider", "model", "state", "ended_at_ms"]
    )


def create_results() -> None:
    op.create_table(
        "inputs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("fetched_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_inputs"),
    )
    op.create_table(
        "outputs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary()),
        sa.Column("path", sa.Text()),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_outputs"),
        sa.CheckConstraint("(content IS NULL) <> (path IS NULL)", name=op.f("ck_outputs_content_or_path")),
    )
    op.create_table(
        "receipts",
        sa.Column("job_hash", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_hash", name="pk_receipts"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_receipts_request_id"),
    )
    op.create_index("ix_receipts_request_id", "receipts", ["request_id"])


def create_settlements() -> None:
    op.create_table(
        "settlements",
        sa.Column("id", ID, nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("attempt_id", ID),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("kind", CODE, nullable=False),
        sa.Column("args", DETAIL, nullable=False),
        sa.Column("deadline_slot", sa.BigInteger(), nullable=False),
        sa.Column("state", CODE, nullable=False),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_detail", sa.Text()),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("wake_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_until_ms", sa.BigInteger()),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_settlements"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_settlements_request_id"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_settlements_attempt_id"),
        sa.CheckConstraint(
            "kind IN ('claim', 'record', 'publish', 'reject', 'expire', 'close', 'purchase')",
            name=op.f("ck_settlements_kind"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'sent', 'landed', 'finalized', 'failed', 'dropped')",
            name=op.f("ck_settlements_state"),
        ),
        sa.CheckConstraint(LEASE, name=op.f("ck_settlements_lease")),
        sa.CheckConstraint("kind <> 'purchase' OR attempt_id IS NOT NULL", name=op.f("ck_settlements_purchase")),
    )
    live = "state IN ('pending', 'sent')"
    unique_where("uq_settlements_live_request", "settlements", ["request_id"], f"{live} AND kind <> 'purchase'")
    unique_where("uq_settlements_live_purchase", "settlements", ["attempt_id"], f"{live} AND kind = 'purchase'")
    op.create_index("ix_settlements_state_wake_at_ms", "settlements", ["state", "wake_at_ms"])
    op.create_index("ix_settlements_request_id", "settlements", ["request_id"])


def create_signatures() -> None:
    op.create_table(
        "signatures",
        sa.Column("id", ID, nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("wire", sa.LargeBinary(), nullable=False),
        sa.Column("blockhash", sa.Text(), nullable=False),
        sa.Column("last_valid_block_height", sa.BigInteger(), nullable=False),
        sa.Column("signed_slot", sa.BigInteger(), nullable=False),
        sa.Column("signed_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_sent_at_ms", sa.BigInteger()),
        sa.Column("state", CODE, nullable=False),
        sa.Column("slot", sa.BigInteger()),
        sa.Column("error", DETAIL),
        sa.Column("fee_lamports", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_signatures"),
        sa.UniqueConstraint("signature", name="uq_signatures_signature"),
        sa.CheckConstraint(
            "state IN ('signed', 'sent', 'confirmed', 'finalized', 'failed', 'expired')",
            name=op.f("ck_signatures_state"),
        ),
    )
    op.create_index("ix_signatures_state", "signatures", ["state"])
    op.create_table(
        "signature_members",
        sa.Column("signature_id", ID, nullable=False),
        sa.Column("settlement_id", ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("signature_id", "settlement_id", name="pk_signature_members"),
        sa.ForeignKeyConstraint(["signature_id"], ["signatures.id"], name="fk_signature_members_signature_id"),
        sa.ForeignKeyConstraint(["settlement_id"], ["settlements.id"], name="fk_signature_members_settlement_id"),
    )
    op.create_index("ix_signature_members_settlement_id", "signature_members", ["settlement_id"])


def create_journal() -> None:
    op.create_table(
        "journal",
        sa.Column("id", ID, nullable=False),
        sa.Column("request_id", ID),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.BigInteger()),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("old_state", sa.Text()),
        sa.Column("new_state", sa.Text()),
        sa.Column("code", sa.Text()),
        sa.Column("detail", DETAIL),
        sa.Column("subject", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_journal"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_journal_request_id"),
    )
    op.create_index("ix_journal_request_id", "journal", ["request_id"])
    unique_where("uq_journal_subject", "journal", ["event", "subject"], "subject IS NOT NULL")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION journal_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "BEGIN RAISE EXCEPTION 'journal is append-only' USING ERRCODE = 'restrict_violation'; END $$"
        )
        op.execute(
            "CREATE TRIGGER journal_is_append_only BEFORE UPDATE OR DELETE ON journal "
            "FOR EACH ROW EXECUTE FUNCTION journal_is_append_only()"
        )
    else:
        for change in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER journal_refuses_{change} BEFORE {change.upper()} ON journal "
                "BEGIN SELECT RAISE(ABORT, 'journal is append-only'); END"
            )


def create_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("request_id", ID),
        sa.Column("attempt_id", ID),
        sa.Column("settlement_id", ID),
        sa.Column("signature_id", ID),
        sa.Column("kind", CODE, nullable=False),
        sa.Column("lamports", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text()),
        sa.Column("requester", sa.Text()),
        sa.Column("note", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_ledger_request_id"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_ledger_attempt_id"),
        sa.ForeignKeyConstraint(["settlement_id"], ["settlements.id"], name="fk_ledger_settlement_id"),
        sa.ForeignKeyConstraint(["signature_id"], ["signatures.id"], name="fk_ledger_signature_id"),
        sa.CheckConstraint("kind IN ('job', 'tx_fee', 'fee_earned')", name=op.f("ck_ledger_kind")),
    )
    unique_where("uq_ledger_job", "ledger", ["attempt_id"], "kind = 'job'")
    unique_where("uq_ledger_fee_earned", "ledger", ["request_id"], "kind = 'fee_earned'")
    unique_where("uq_ledger_tx_fee", "ledger", ["signature_id"], "kind = 'tx_fee'")
    op.create_index("ix_ledger_at_ms", "ledger", ["at_ms"])
    op.create_index("ix_ledger_request_id", "ledger", ["request_id"])


def unique_where(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, unique=True, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
