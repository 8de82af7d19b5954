"""The rows as values, and how a result becomes them.

Named tuples, because each step on a request makes several: a frozen dataclass of 36 fields takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from oracle.core.lifecycle import State
from oracle.core.request import RequestKey
from oracle.core.settlement import SignatureState
from oracle.store.schema import (
    AttemptState,
    CallKind,
    CallState,
    LedgerKind,
    RecordingState,
    SettlementKind,
    SettlementState,
)


class RequestRow(NamedTuple):
    """A request as the daemon knows it. `account` are the account's data as first seen; hashes are hexadecimal.

    `operator` is the key that it is worked for. `chain_status` and `chain_slot` are the newest read of the account.
    With its `lease_owner` and `fence` a row that is held may be moved, until another takes it.
    """

    id: int
    address: str
    created_slot: int
    queue: str
    requester: str
    refund_to: str
    model: str
    fee_lamports: int
    deadline_slot: int
    claim_required: bool
    retention_slots: int
    account: bytes
    state: State
    state_since_ms: int
    wake_at_ms: int
    lease_owner: str | None
    lease_until_ms: int | None
    fence: int
    route_index: int
    attempts_made: int
    retries: int
    unconfirmed_purchases: int
    output_sha256: str | None
    job_hash: str | None
    completed_at: int | None
    reject_reason: int | None
    error_code: str | None
    error_detail: str | None
    chain_status: int
    chain_slot: int
    seen_at_ms: int
    seen_by: str
    ended_slot: int | None
    end_finalized: bool
    closed: bool
    operator: str

    @property
    def key(self) -> RequestKey:
        return RequestKey(self.address, self.created_slot)


class KnownRow(NamedTuple):
    """What a scan of the chain needs of a request, without its account."""

    address: str
    created_slot: int
    chain_status: int
    chain_slot: int


class AttemptRow(NamedTuple):
    """One provider job. `number` counts from 1 in its lane; `model` is the provider's own name."""

    id: int
    request_id: int
    lane: int
    number: int
    provider: str
    model: str
    idempotency_key: str
    job_id: str | None
    job_detail: Mapping[str, Any] | None
    state: AttemptState
    quoted_lamports: int
    cost_lamports: int | None
    error_code: str | None
    error_detail: str | None
    intended_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None
    wake_at_ms: int


class SettlementRow(NamedTuple):
    """An intent to change the chain for one request: one instruction of a transaction to come."""

    id: int
    request_id: int
    attempt_id: int | None
    operator: str
    kind: SettlementKind
    args: Mapping[str, Any]
    deadline_slot: int
    state: SettlementState
    error_code: str | None
    error_detail: str | None
    created_at_ms: int
    wake_at_ms: int
    lease_owner: str | None
    lease_until_ms: int | None
    fence: int


class SignatureRow(NamedTuple):
    """One signed transaction. `signed_slot` is where its blockhash was read; heights are block heights, not slots."""

    id: int
    signature: str
    wire: bytes
    blockhash: str
    last_valid_block_height: int
    signed_slot: int
    signed_at_ms: int
    last_sent_at_ms: int | None
    state: SignatureState
    slot: int | None
    error: Any
    fee_lamports: int | None


class JournalRow(NamedTuple):
    """One line of a request's history; `request_id` is None where it concerns the daemon."""

    id: int
    request_id: int | None
    at_ms: int
    slot: int | None
    event: str
    old_state: str | None
    new_state: str | None
    code: str | None
    detail: Any
    subject: str | None


class LedgerRow(NamedTuple):
    """One booking; money out is negative."""

    id: int
    at_ms: int
    request_id: int | None
    attempt_id: int | None
    settlement_id: int | None
    signature_id: int | None
    kind: LedgerKind
    lamports: int
    provider: str | None
    requester: str | None
    note: str | None


class InputRow(NamedTuple):
    """An input that was fetched: a document, or a dataset. `sha256` is what it is asked for by."""

    sha256: str
    content: bytes
    origin: str
    fetched_at_ms: int


class OutputRow(NamedTuple):
    """An output: its content, or the path of the file that holds it."""

    sha256: str
    content: bytes | None
    path: str | None
    media_type: str
    bytes: int
    created_at_ms: int


class ReceiptRow(NamedTuple):
    """A receipt, whose SHA-256 is the job hash on chain."""

    job_hash: str
    content: bytes
    request_id: int
    created_at_ms: int


class CallRow(NamedTuple):
    """One call of a gateway's client. While it is open, tokens and lamports are what it may use at most."""

    id: str
    key: str
    kind: CallKind
    model: str
    state: CallState
    input_tokens: int
    output_tokens: int
    job_lamports: int
    chain_lamports: int
    provider: str | None
    model_run: str | None
    request_address: str | None
    error_code: str | None
    began_at_ms: int
    ended_at_ms: int | None
    owner: str
    owned_until_ms: int


class GatewayJobRow(NamedTuple):
    """One purchase made for a call. `number` counts from 1; `model` is the provider's own name."""

    id: int
    call_id: str
    number: int
    ledger_id: int
    provider: str
    model: str
    idempotency_key: str
    job_id: str | None
    job_detail: Mapping[str, Any] | None
    state: AttemptState
    quoted_lamports: int
    cost_lamports: int | None
    error_code: str | None
    error_detail: str | None
    intended_at_ms: int
    ended_at_ms: int | None


class RecordingRow(NamedTuple):
    """An answer of the gateway and the request that is to hold its hash. Times of the job are unix seconds.

    `input_sha256` names the prompt where it is too long to stand in the body: then we serve it (`inputs`).
    `signature_id` is the newest transaction that was signed to make the request.
    """

    address: str
    call_id: str
    queue: str
    requester: str
    nonce: int
    body: bytes
    input_sha256: str | None
    fee_lamports: int
    ttl_slots: int
    output: bytes
    media_type: str
    finish_reason: str
    model_run: str
    provider: str
    provider_job_id: str
    submitted_at: int
    completed_at: int
    state: RecordingState
    signature_id: int | None
    refusals: int
    created_at_ms: int
    wake_at_ms: int
    error_code: str | None
    error_detail: str | None
