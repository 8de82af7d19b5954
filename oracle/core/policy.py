"""Whether a request is worth doing, before anything is spent on it (laws 7 and 8).

Every refusal is a code. `disposition` says how a request with that code ends: declined at no cost where it is the
requester's own fault, rejected on chain (which frees the fee at once) where the operator cannot do it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.core.request import Flags, Reason, Request

REQUESTER_DENIED = ErrorCode(
    "ORC-POLICY-001",
    "Requester is not served",
    "The requester is on the operator's deny list, or not on its allow list.",
    "Ask the operator; as operator, see `policy.allow_requesters` and `policy.deny_requesters`.",
)
TOO_MANY_OPEN = ErrorCode(
    "ORC-POLICY-002",
    "Requester has too many open requests",
    "The operator caps how many requests of one requester may be open at once.",
    "Wait until earlier requests have ended; as operator, see `policy.max_open_per_requester`.",
)
DEADLINE_TOO_CLOSE = ErrorCode(
    "ORC-POLICY-003",
    "Deadline is too close",
    "Too few slots are left to run the job and settle it before the deadline.",
    "Submit with a longer time to live.",
)
FEE_TOO_LOW = ErrorCode(
    "ORC-POLICY-004",
    "Fee does not cover the cost",
    "The fee is below the operator's floor, or below the quote of every route plus the margin and the settlement.",
    "Submit with a higher fee; as operator, see `policy.min_fee_lamports`, `policy.margin` and the routes' prices.",
)
MODEL_NOT_ROUTED = ErrorCode(
    "ORC-POLICY-005",
    "Nobody routes this model",
    "The operator has no route for the model, and the request does not allow another one.",
    "Ask for a model that the operator lists, or set the `any_model` flag.",
)
NO_PRIVATE_ROUTE = ErrorCode(
    "ORC-POLICY-006",
    "No private route",
    "The request is private, and every route of its model would make the prompt public.",
    "Ask for a model with a private route, or clear the flag.",
)
OUTPUT_TOO_LONG = ErrorCode(
    "ORC-POLICY-007",
    "Too many output tokens asked",
    "The request asks for more output tokens than the operator allows, or for none.",
    "Ask for fewer; as operator, see `policy.max_output_tokens`.",
)
BODY_NOT_AUTHENTIC = ErrorCode(
    "ORC-POLICY-008",
    "Body does not match its address",
    "The stored body has another hash than the header, which the program does not allow.",
    "The RPC endpoint may have served a damaged account; if another endpoint agrees, report it.",
)
NO_ROUTE_LEFT = ErrorCode(
    "ORC-POLICY-009",
    "Every route has failed",
    "Each route of the model was tried as often as its budget allows, and none produced an answer.",
    "See the attempts in `oracle inspect`; the fee is free to be taken back.",
)
PURCHASE_UNCONFIRMED = ErrorCode(
    "ORC-POLICY-010",
    "A purchase could not be confirmed",
    "The answer to a purchase was lost, and the provider allows neither a repetition nor a look-up.",
    "See the provider's own books; as operator, see `policy.max_unconfirmed_purchases`.",
    Verdict.UNKNOWN,
)
RETRIES_EXHAUSTED = ErrorCode(
    "ORC-POLICY-011",
    "Retry budget is used up",
    "A step failed again and again with an error that another try might have mended.",
    "See the journal in `oracle inspect`, and mend the cause; the request is rejected, and its fee is free.",
)
FUTILE_SETTLEMENT = ErrorCode(
    "ORC-POLICY-012",
    "The settlement would be refused",
    "A simulation of the settlement, made before anything was bought, was refused by the program.",
    "See the program's error; is the operator still registered on this queue? `oracle doctor` tells.",
)
INPUT_UNSUPPORTED = ErrorCode(
    "ORC-POLICY-013",
    "Kind of input is not served",
    "The operator cannot serve inputs of this kind: a data network refuses its key, or its credit there is used up.",
    "Ask with an inline input or an https URI.",
)
MODEL_SUBSTITUTED = ErrorCode(
    "ORC-POLICY-014",
    "Another model ran",
    "The provider says that it ran another model than the one its route names.",
    "Correct the route's `model`, or mark it `substitute = true` for requests that allow any model.",
)
OUTPUT_EMPTY = ErrorCode(
    "ORC-POLICY-015",
    "Output is empty or too large",
    "The job ended with success, but without an answer or with one beyond the operator's limit.",
    "See the provider's own record of the job.",
    Verdict.RETRY,
)
JOB_TIMED_OUT = ErrorCode(
    "ORC-POLICY-016",
    "Job took too long",
    "The job was still not done six seconds after the time-out of its route, and was cancelled.",
    "Raise the route's `timeout_seconds`, or route the model elsewhere.",
)
JOB_FAILED = ErrorCode(
    "ORC-POLICY-019",
    "Job failed",
    "The provider ran the job, and it ended without success.",
    "See the provider's own record of the job; another attempt or route may do better.",
    Verdict.RETRY,
)
PURCHASE_ABSENT = ErrorCode(
    "ORC-POLICY-017",
    "Purchase did not happen",
    "The answer to a purchase was lost, and the provider has proven that it did not happen.",
    "Nothing to do: it is made again.",
    Verdict.RETRY,
)
BUDGET_EXHAUSTED = ErrorCode(
    "ORC-POLICY-018",
    "Budget of the day is used up",
    "The jobs of this day (UTC) have cost as much as the operator allows: in all, at a provider, or for a requester.",
    "Wait: the request goes on by itself when the day turns. Or raise `policy.daily_budget_lamports`, "
    "`policy.requester_daily_budget_lamports` or the provider's `daily_budget_lamports`, and restart.",
    Verdict.RETRY,
)
BUDGET_TOO_SMALL = ErrorCode(
    "ORC-POLICY-022",
    "Job costs more than its budget",
    "The quote is above what is left for this request, or above what a whole day allows.",
    "Raise `policy.request_budget_lamports`, or the budget that the detail names.",
)
NOT_NOW = ErrorCode(
    "ORC-POLICY-020",
    "Not ours to take now",
    "Another operator holds the claim, the queue is paused, or the request has just ended.",
    "Nothing to do: it is looked at again until it can be taken or has ended.",
    Verdict.RETRY,
)
DATA_UNCONFIRMED = ErrorCode(
    "ORC-POLICY-021",
    "Data was paid for, and did not come",
    "The answers to fetches that cost money were lost, as often as the operator allows it to happen.",
    "See the data network's own books; as operator, see `policy.max_unconfirmed_purchases`.",
)


PROVIDER_PAUSED = ErrorCode(
    "ORC-POLICY-023",
    "Provider is left alone for a while",
    "It has failed again and again, refuses its key, or is out of credit, so its circuit breaker is open: nothing is "
    "bought there, and other routes are taken where there are some.",
    "See the cause in the detail. A probe is made by itself, and buying goes on when it succeeds; see `[breaker]`.",
    Verdict.RETRY,
)
BALANCE_LOW = ErrorCode(
    "ORC-POLICY-024",
    "Balance at a provider is low",
    "The balance is below the floor that the operator has set, so nothing more is bought there.",
    "Top up the account, or lower the provider's `min_balance`. Buying goes on by itself.",
    Verdict.RETRY,
)
WALLET_LOW = ErrorCode(
    "ORC-POLICY-025",
    "Operator's wallet is low",
    "The operator's key holds less SOL than the floor, so nothing is claimed or bought that it might not be able to "
    "settle. What was bought is still settled.",
    "Send SOL to the operator's key, or lower `policy.min_wallet_lamports`. Buying goes on by itself.",
    Verdict.RETRY,
)


OVERTAKEN = ErrorCode(
    "ORC-POLICY-026",
    "Another job was quicker",
    "The request had more than one job at once, as its route allows, and this one was not the first to answer.",
    "Nothing to do: it is cancelled, and what it costs stays booked. See `max_parallel_jobs` of the route.",
)


@dataclass(frozen=True, slots=True)
class Terms:
    """The operator's own terms. Slots are converted from seconds by the caller, with the measured slot time."""

    min_fee_lamports: int
    max_output_tokens: int
    max_open_per_requester: int | None
    allow_requesters: Collection[str] | None
    deny_requesters: Collection[str]
    deadline_margin_slots: int
    margin: float
    """Profit asked on top of costs, as a share of them: 0.2 is twenty per cent. Negative sells below cost."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known now. `open_of_requester` counts this request too; None where that is asked elsewhere."""

    slot: int
    open_of_requester: int | None


def check(request: Request, terms: Terms, facts: Facts) -> None:
    """Raise the first ORC-POLICY code that speaks against taking `request` up."""
    requester = str(request.header.requester)
    if not request.body_is_authentic:
        raise BODY_NOT_AUTHENTIC(str(request.key))
    if requester in terms.deny_requesters or (
        terms.allow_requesters is not None and requester not in terms.allow_requesters
    ):
        raise REQUESTER_DENIED(requester)
    most_open, now_open = terms.max_open_per_requester, facts.open_of_requester
    if most_open is not None and now_open is not None and now_open > most_open:
        raise TOO_MANY_OPEN(f"{now_open} open, at most {most_open}")
    if not 1 <= request.body.params.max_output_tokens <= terms.max_output_tokens:
        raise OUTPUT_TOO_LONG(f"{request.body.params.max_output_tokens}, at most {terms.max_output_tokens}")
    if request.header.fee_lamports < terms.min_fee_lamports:
        raise FEE_TOO_LOW(f"{request.header.fee_lamports} lamports, floor {terms.min_fee_lamports}")
    check_deadline(request.header.deadline_slot, facts.slot, terms.deadline_margin_slots)


def check_deadline(deadline_slot: int, slot: int, needed_slots: int) -> None:
    """Raise ORC-POLICY-003 unless `needed_slots` are left at `slot`."""
    if slot + needed_slots > deadline_slot:
        raise DEADLINE_TOO_CLOSE(f"slot {slot}, deadline {deadline_slot}, {needed_slots} slots needed")


def check_fee(fee_lamports: int, quote_lamports: int, settlement_lamports: int, margin: float) -> None:
    """Raise ORC-POLICY-004 unless the fee covers quote, settlement and margin."""
    needed = required_fee(quote_lamports, settlement_lamports, margin)
    if fee_lamports < needed:
        raise FEE_TOO_LOW(f"{fee_lamports} lamports, {needed} needed")


def required_fee(quote_lamports: int, settlement_lamports: int, margin: float) -> int:
    """The least fee, in lamports, at which a job is worth buying. A part of a lamport counts as a whole one."""
    cost = quote_lamports + settlement_lamports
    # In millionths: a product of floats would be lamports off in either direction.
    return max(0, cost + -(-cost * round(margin * 1_000_000) // 1_000_000))


# What the operator cannot do is rejected on chain, so that the requester gets its fee back at once.
_REJECTED: Final[dict[str, Reason]] = {
    MODEL_NOT_ROUTED.code: Reason.MODEL_UNAVAILABLE,
    NO_PRIVATE_ROUTE.code: Reason.PRIVACY_UNAVAILABLE,
    NO_ROUTE_LEFT.code: Reason.NO_PROVIDER,
    PURCHASE_UNCONFIRMED.code: Reason.PURCHASE_UNCONFIRMED,
    DATA_UNCONFIRMED.code: Reason.PURCHASE_UNCONFIRMED,
    RETRIES_EXHAUSTED.code: Reason.NO_PROVIDER,
    INPUT_UNSUPPORTED.code: Reason.INPUT_UNAVAILABLE,
    BUDGET_TOO_SMALL.code: Reason.BUDGET_EXHAUSTED,
}


def disposition(error: OracleError) -> Reason | None:
    """The reason to reject with on chain, or None where the request is declined at no cost."""
    return _REJECTED.get(error.code)


def is_private(request: Request) -> bool:
    return Flags.PRIVATE in request.body.params.flags


def allows_any_model(request: Request) -> bool:
    return Flags.ANY_MODEL in request.body.params.flags
