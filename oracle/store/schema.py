"""The tables, and the laws that the database itself holds (DESIGN §5). Times are unix milliseconds in `*_ms`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect

from oracle.core.lifecycle import State
from oracle.core.settlement import SignatureState

_I64_MAX: Final = 2**63 - 1


class AttemptState(StrEnum):
    INTENDED = "intended"
    UNKNOWN = "unknown"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SettlementKind(StrEnum):
    CLAIM = "claim"
    RECORD = "record"
    PUBLISH = "publish"
    REJECT = "reject"
    EXPIRE = "expire"
    CLOSE = "close"
    PURCHASE = "purchase"


class SettlementState(StrEnum):
    PENDING = "pending"
    SENT = "sent"
    LANDED = "landed"
    FINALIZED = "finalized"
    FAILED = "failed"
    DROPPED = "dropped"


class LedgerKind(StrEnum):
    JOB = "job"
    TX_FEE = "tx_fee"
    FEE_EARNED = "fee_earned"
    REQUEST_FEE = "request_fee"
    """Escrowed in a request of our own gateway; it comes back where no result came, as `fee_earned` or to the payer."""


class CallKind(StrEnum):
    CHAT = "chat"
    EMBEDDINGS = "embeddings"


class CallState(StrEnum):
    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RecordingState(StrEnum):
    WAITING = "waiting"
    """The answer is here; no transaction of it can land."""
    SENT = "sent"
    LANDED = "landed"
    ENDED = "ended"
    FAILED = "failed"


LIVE_ATTEMPT: Final = (AttemptState.INTENDED, AttemptState.UNKNOWN, AttemptState.RUNNING)
LIVE_SETTLEMENT: Final = (SettlementState.PENDING, SettlementState.SENT)


class Choice(TypeDecorator[Any]):
    """A member of a `StrEnum`, kept as its text."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        self.kind = kind
        # A member is equal to its text, and so finds it here.
        self._texts: dict[str | None, str | None] = {None: None, **{member.value: member.value for member in kind}}
        self._members: dict[str | None, StrEnum | None] = {None: None, **{member.value: member for member in kind}}
        super().__init__(16)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], str | None]:
        """As it is, a look-up: a request passes here seventy times, and both drivers take and give texts."""
        return self._texts.__getitem__

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], StrEnum | None]:
        return self._members.__getitem__


class U64(TypeDecorator[int]):
    """A u64 of the chain in a signed column; what is above 2^63-1 is kept as 2^63-1.

    A mapped program may write u64::MAX for "never". Refusing to store it would forget the request (law 1), and no
    slot and no balance ever gets that far.
    """

    impl = BigInteger
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[int | None], int | None]:
        return lambda value: None if value is None else self.kept(value)

    @staticmethod
    def kept(value: int) -> int:
        """What is kept of a value."""
        return min(value, _I64_MAX)


# SQLite numbers rows by itself only in a column of exactly this type.
_Id: Final = BigInteger().with_variant(Integer, "sqlite")
_Json: Final = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(column: str, kind: type[StrEnum]) -> CheckConstraint:
    members = ", ".join(f"'{member.value}'" for member in kind)
    return CheckConstraint(f"{column} IN ({members})", name=column)


def _unique_where(name: str, *columns: Any, where: str) -> Index:
    return Index(name, *columns, unique=True, sqlite_where=text(where), postgresql_where=text(where))


def _index_where(name: str, *columns: Any, where: Mapping[str, str]) -> Index:
    return Index(name, *columns, sqlite_where=text(where["sqlite"]), postgresql_where=text(where["postgresql"]))


# Each engine's own spelling of `is_(True)`: SQLite takes a partial index only where the query says the very same.
FINAL_AND_NOT_CLOSED: Final = {
    "sqlite": "end_finalized IS 1 AND closed IS 0",
    "postgresql": "end_finalized IS true AND closed IS false",
}
ENDED_AND_NOT_FINAL: Final = {
    "sqlite": "end_finalized IS 0 AND closed IS 0 AND ended_slot IS NOT NULL",
    "postgresql": "end_finalized IS false AND closed IS false AND ended_slot IS NOT NULL",
}

requests: Final = Table(
    "requests",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("address", Text, nullable=False),
    Column("created_slot", U64, nullable=False),
    Column("queue", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("refund_to", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("fee_lamports", U64, nullable=False),
    Column("deadline_slot", U64, nullable=False),
    Column("claim_required", Boolean, nullable=False),
    Column("retention_slots", U64, nullable=False),
    Column("account", LargeBinary, nullable=False),
    Column("state", Choice(State), nullable=False),
    Column("state_since_ms", BigInteger, nullable=False),
    Column("wake_at_ms", BigInteger, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until_ms", BigInteger),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("route_index", Integer, nullable=False, server_default="0"),
    Column("attempts_made", Integer, nullable=False, server_default="0"),
    Column("retries", Integer, nullable=False, server_default="0"),
    Column("unconfirmed_purchases", Integer, nullable=False, server_default="0"),
    Column("output_sha256", Text),
    Column("job_hash", Text),
    Column("completed_at", BigInteger),
    Column("reject_reason", Integer),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("chain_status", Integer, nullable=False),
    Column("chain_slot", U64, nullable=False),
    Column("seen_at_ms", BigInteger, nullable=False),
    Column("seen_by", Text, nullable=False),
    Column("ended_slot", U64),
    Column("end_finalized", Boolean, nullable=False, server_default=false()),
    Column("closed", Boolean, nullable=False, server_default=false()),
    Column("operator", Text, nullable=False),
    # Operators that share a database share no work: each has a row of its own.
    UniqueConstraint("address", "created_slot", "operator"),
    _one_of("state", State),
    # A lease is whole or absent: half a lease would be held by nobody for ever.
    CheckConstraint("(lease_owner IS NULL) = (lease_until_ms IS NULL)", name="lease"),
    # In the order in which `take` takes, and with all that it asks: however many wait, or are not due, it reads little.
    Index("ix_requests_due", "state", "operator", "deadline_slot", "id", "wake_at_ms", "lease_until_ms"),
    # What housekeeping looks for again and again, among all that have ended and are kept until their retention is over.
    _index_where(
        "ix_requests_closable", "operator", text("(ended_slot + retention_slots)"), where=FINAL_AND_NOT_CLOSED
    ),
    _index_where("ix_requests_unfinalized", "operator", "ended_slot", where=ENDED_AND_NOT_FINAL),
    # With all that is asked when the open ones of a requester are counted, of which there may be thousands.
    Index(None, "requester", "operator", "state"),
    Index(None, "output_sha256"),
    Index(None, "closed", "queue"),
)

attempts: Final = Table(
    "attempts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("request_id", _Id, ForeignKey("requests.id"), nullable=False),
    Column("lane", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("job_id", Text),
    Column("job_detail", _Json),
    Column("state", Choice(AttemptState), nullable=False),
    Column("quoted_lamports", U64, nullable=False),
    Column("cost_lamports", U64),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("intended_at_ms", BigInteger, nullable=False),
    Column("started_at_ms", BigInteger),
    Column("ended_at_ms", BigInteger),
    Column("wake_at_ms", BigInteger, nullable=False),
    UniqueConstraint("request_id", "lane", "number"),
    _one_of("state", AttemptState),
    # Law 3: one paid job at a time in each lane.
    _unique_where("uq_attempts_live_lane", "request_id", "lane", where="state IN ('intended', 'unknown', 'running')"),
    Index(None, "state", "wake_at_ms"),
    Index(None, "provider", "model", "state", "ended_at_ms"),
)

inputs: Final = Table(
    "inputs",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("origin", Text, nullable=False),
    Column("fetched_at_ms", BigInteger, nullable=False),
)

outputs: Final = Table(
    "outputs",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("content", LargeBinary),
    Column("path", Text),
    Column("media_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    CheckConstraint("(content IS NULL) <> (path IS NULL)", name="content_or_path"),
)

receipts: Final = Table(
    "receipts",
    metadata,
    Column("job_hash", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("request_id", _Id, ForeignKey("requests.id"), nullable=False, index=True),
    Column("created_at_ms", BigInteger, nullable=False),
)

settlements: Final = Table(
    "settlements",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("request_id", _Id, ForeignKey("requests.id"), nullable=False),
    Column("attempt_id", _Id, ForeignKey("attempts.id")),
    Column("operator", Text, nullable=False),
    Column("kind", Choice(SettlementKind), nullable=False),
    Column("args", _Json, nullable=False),
    Column("deadline_slot", U64, nullable=False),
    Column("state", Choice(SettlementState), nullable=False),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("wake_at_ms", BigInteger, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until_ms", BigInteger),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    _one_of("kind", SettlementKind),
    _one_of("state", SettlementState),
    CheckConstraint("(lease_owner IS NULL) = (lease_until_ms IS NULL)", name="lease"),
    CheckConstraint("kind <> 'purchase' OR attempt_id IS NOT NULL", name="purchase"),
    # Law 2: one effective settlement. A purchase changes another program's accounts, and must not block an expiry.
    _unique_where(
        "uq_settlements_live_request", "request_id", where="state IN ('pending', 'sent') AND kind <> 'purchase'"
    ),
    _unique_where(
        "uq_settlements_live_purchase", "attempt_id", where="state IN ('pending', 'sent') AND kind = 'purchase'"
    ),
    Index(None, "state", "wake_at_ms"),
    Index(None, "request_id"),
)

signatures: Final = Table(
    "signatures",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("signature", Text, nullable=False, unique=True),
    Column("wire", LargeBinary, nullable=False),
    Column("blockhash", Text, nullable=False),
    Column("last_valid_block_height", U64, nullable=False),
    Column("signed_slot", U64, nullable=False),
    Column("signed_at_ms", BigInteger, nullable=False),
    Column("last_sent_at_ms", BigInteger),
    Column("state", Choice(SignatureState), nullable=False),
    Column("slot", U64),
    Column("error", _Json),
    Column("fee_lamports", U64),
    _one_of("state", SignatureState),
    Index(None, "state"),
)

signature_members: Final = Table(
    "signature_members",
    metadata,
    Column("signature_id", _Id, ForeignKey("signatures.id"), primary_key=True),
    Column("settlement_id", _Id, ForeignKey("settlements.id"), primary_key=True),
    Column("position", Integer, nullable=False),
    Index(None, "settlement_id"),
)

journal: Final = Table(
    "journal",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("request_id", _Id, ForeignKey("requests.id"), index=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("slot", U64),
    Column("event", Text, nullable=False),
    Column("old_state", Text),
    Column("new_state", Text),
    Column("code", Text),
    Column("detail", _Json),
    Column("subject", Text),
    # What is noted about a subject is noted once, however often it is met.
    _unique_where("uq_journal_subject", "event", "subject", where="subject IS NOT NULL"),
)
"""Append-only: a trigger of the migration refuses to change or delete a row."""

ledger: Final = Table(
    "ledger",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at_ms", BigInteger, nullable=False, index=True),
    Column("request_id", _Id, ForeignKey("requests.id"), index=True),
    Column("attempt_id", _Id, ForeignKey("attempts.id")),
    Column("settlement_id", _Id, ForeignKey("settlements.id")),
    Column("signature_id", _Id, ForeignKey("signatures.id")),
    Column("kind", Choice(LedgerKind), nullable=False),
    Column("lamports", BigInteger, nullable=False),
    Column("provider", Text),
    Column("requester", Text),
    Column("note", Text),
    _one_of("kind", LedgerKind),
    # Nothing is booked twice, whoever repeats the booking.
    _unique_where("uq_ledger_job", "attempt_id", where="kind = 'job'"),
    _unique_where("uq_ledger_fee_earned", "request_id", where="kind = 'fee_earned'"),
    _unique_where("uq_ledger_tx_fee", "signature_id", where="kind = 'tx_fee'"),
)

spending: Final = Table(
    "spending",
    metadata,
    Column("day_ms", BigInteger, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("lamports", BigInteger, nullable=False),
)
"""What a day of UTC has cost, by budget: the sum of its jobs in the ledger, raised and checked in one statement."""

marks: Final = Table(
    "marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", _Json, nullable=False),
)
"""Cursors that are no part of a request, such as the slot of the last full scan."""

gateway_calls: Final = Table(
    "gateway_calls",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("kind", Choice(CallKind), nullable=False),
    Column("model", Text, nullable=False),
    Column("state", Choice(CallState), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("job_lamports", BigInteger, nullable=False),
    Column("chain_lamports", BigInteger, nullable=False),
    Column("provider", Text),
    Column("model_run", Text),
    Column("request_address", Text),
    Column("error_code", Text),
    Column("began_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("owner", Text, nullable=False),
    Column("owned_until_ms", BigInteger, nullable=False),
    _one_of("kind", CallKind),
    _one_of("state", CallState),
    # The same call, sent twice at once, is answered once.
    _unique_where("uq_gateway_calls_open_request", "request_address", where="state = 'open'"),
    Index(None, "key", "began_at_ms"),
    Index(None, "state", "owned_until_ms"),
)
"""What a key has used. While a call is open, tokens and lamports are what it may use at most."""

gateway_jobs: Final = Table(
    "gateway_jobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("call_id", Text, ForeignKey("gateway_calls.id"), nullable=False),
    Column("number", Integer, nullable=False),
    # Its one booking: made with it, corrected when it ends.
    Column("ledger_id", _Id, ForeignKey("ledger.id"), nullable=False, unique=True),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("job_id", Text),
    Column("job_detail", _Json),
    Column("state", Choice(AttemptState), nullable=False),
    Column("quoted_lamports", U64, nullable=False),
    Column("cost_lamports", U64),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("intended_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    UniqueConstraint("call_id", "number"),
    _one_of("state", AttemptState),
    # Law 3, for calls as for requests.
    _unique_where("uq_gateway_jobs_live", "call_id", where="state IN ('intended', 'unknown', 'running')"),
    Index(None, "state"),
)

recordings: Final = Table(
    "recordings",
    metadata,
    Column("address", Text, primary_key=True),
    Column("call_id", Text, ForeignKey("gateway_calls.id"), nullable=False, unique=True),
    Column("queue", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("input_sha256", Text, index=True),
    Column("fee_lamports", BigInteger, nullable=False),
    Column("ttl_slots", BigInteger, nullable=False),
    Column("output", LargeBinary, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("finish_reason", Text, nullable=False),
    Column("model_run", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("provider_job_id", Text, nullable=False),
    Column("submitted_at", BigInteger, nullable=False),
    Column("completed_at", BigInteger, nullable=False),
    Column("state", Choice(RecordingState), nullable=False),
    Column("signature_id", _Id, ForeignKey("signatures.id")),
    Column("refusals", Integer, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("wake_at_ms", BigInteger, nullable=False),
    Column("error_code", Text),
    Column("error_detail", Text),
    _one_of("state", RecordingState),
    # What may have been sent has its bytes kept.
    CheckConstraint("state <> 'sent' OR signature_id IS NOT NULL", name="signed"),
    Index(None, "state", "wake_at_ms"),
)
"""Answers of the gateway that are on their way into the chain, by the address their request has or will have."""
