"""What is to be written, as values: so that many changes of one kind go in by one statement."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from oracle.core.lifecycle import State
from oracle.core.settlement import SignatureState
from oracle.store.rows import RequestRow
from oracle.store.schema import AttemptState

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class Sighted(NamedTuple):
    """A request as an account shows it, and when and how it was read; `operator` is the key of whose row it is."""

    operator: str
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
    chain_status: int
    chain_slot: int
    now_ms: int
    seen_by: str
    state: State = State.SEEN
    through: tuple[State, ...] = ()
    """The states before, where a new row is further than its first: the journal tells of each."""
    since: tuple[int, int | None] | None = None
    """When it came to `state`, in unix milliseconds, and in which slot, where that is later than the sighting."""
    code: str | None = None
    detail: Any = None
    attempts_made: int = 0
    lease_owner: str | None = None
    lease_until_ms: int | None = None
    """With the owner, a lease under which a row begins that is new: its holder need not take it."""


class Move(NamedTuple):
    """What `move` is told."""

    row: RequestRow
    new: State
    now_ms: int
    slot: int | None = None
    event: str | None = None
    code: str | None = None
    detail: Any = None
    wake_at_ms: int | None = None
    keep_lease: bool = False
    columns: Mapping[str, Any] = _NONE
    through: State | None = None
    """A state on the way: the journal tells of it too."""


class Postponement(NamedTuple):
    """What `postpone` is told."""

    row: RequestRow
    now_ms: int
    wake_at_ms: int
    code: str | None = None
    detail: Any = None
    is_failure: bool = True
    """Whether it counts among the retries."""
    kept_until_ms: int | None = None
    """Until when nobody but its holder may take it again; None where everybody may at once."""
    columns: Mapping[str, Any] = _NONE


class Fact(NamedTuple):
    """What `force` is told."""

    request_id: int
    new: State
    now_ms: int
    slot: int | None
    event: str
    code: str | None = None
    detail: Any = None
    wake_at_ms: int | None = None
    columns: Mapping[str, Any] = _NONE


class Purchase(NamedTuple):
    """What `attempts.intend` is told."""

    row: RequestRow
    lane: int
    provider: str
    model: str
    idempotency_key: str
    quoted_lamports: int
    now_ms: int
    number: int


class Started(NamedTuple):
    """What `attempts.started` is told. `is_anew`: what ran before is gone, and its time counts from now."""

    attempt_id: int
    job_id: str
    job_detail: Mapping[str, Any] | None
    now_ms: int
    is_anew: bool = False


class Finish(NamedTuple):
    """What `attempts.finish` is told."""

    attempt_id: int
    state: AttemptState
    cost_lamports: int | None
    now_ms: int
    error_code: str | None = None
    error_detail: str | None = None


class Signing(NamedTuple):
    """What `settlements.record_signature` is told: a transaction that is signed and not sent yet.

    `fences` has the settlements of its instructions, in their order, each with the fence that it was taken with;
    `signed_slot` is where the blockhash was read; `fee_lamports` is what the transaction pays if it lands.
    """

    signature: str
    wire: bytes
    blockhash: str
    last_valid_block_height: int
    signed_slot: int
    fee_lamports: int
    fences: Mapping[int, int]
    now_ms: int


class Judgement(NamedTuple):
    """What `settlements.mark_signature` is told."""

    signature_id: int
    state: SignatureState
    slot: int | None
    error: Any = None


class Intent(NamedTuple):
    """What `settlements.intend` is told."""

    request_id: int
    kind: str
    args: Mapping[str, Any]
    operator: str
    deadline_slot: int
    now_ms: int
    attempt_id: int | None = None
