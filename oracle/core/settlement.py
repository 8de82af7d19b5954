"""What to do with a signed transaction whose fate is not final: the whole of law 2, without I/O.

A new signature for a request is made only when every earlier one is *dead*: finalized with an error, or absent on an
endpoint that reports, in the same exchange, a finalized block height past the transaction's last valid height and
keeps history back to its first send; and when a finalized read of the request, not older than that proof, still
shows it open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

FIRST_ESCALATED_PRICE: Final = 1_000
"""Micro-lamports per compute unit: 20 lamports for a pack of eight, and already before whoever pays nothing."""

_MOST_DOUBLINGS: Final = 32


class SignatureState(StrEnum):
    SIGNED = "signed"
    SENT = "sent"
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"
    FAILED = "failed"
    EXPIRED = "expired"


DEAD: Final = frozenset({SignatureState.FAILED, SignatureState.EXPIRED})
"""It has had no effect and never will."""


@dataclass(frozen=True, slots=True)
class Attempted:
    """A signed transaction as the store remembers it. Heights are block heights, not slots.

    `signed_slot` is where its blockhash was read: nothing was sent before it, whatever else was lost in a crash.
    """

    state: SignatureState
    last_valid_block_height: int
    signed_slot: int


@dataclass(frozen=True, slots=True)
class Observed:
    """One exchange with one endpoint about one signature.

    `commitment` is None where the endpoint does not know the signature; `failed` says that it landed with an error.
    `finalized_height` and `first_available_slot` come from the same endpoint, the height read *before* the status.
    `searched_history` says that the look-up went past the recent cache.
    """

    commitment: str | None
    failed: bool
    finalized_height: int | None
    first_available_slot: int | None
    searched_history: bool


class Next(StrEnum):
    WAIT = "wait"
    RESEND = "resend"
    """The same bytes again: harmless at any time."""
    SHOW = "show"
    """Confirmed: users may see it, and a fork may still take it back."""
    DONE = "done"
    """Finalized with success."""
    FAILED = "failed"
    """Finalized with an error: dead, and its members are free."""
    EXPIRED = "expired"
    """Proven absent past its last valid height: dead, and its members are free."""
    OUTLIVED = "outlived"
    """Past its last valid height, but the history does not reach back to it: it cannot land any more, and whether it
    has landed only the accounts that it would have changed can tell."""


def judge(attempted: Attempted, observed: Observed) -> Next:
    """What follows from one observation. Whatever is not proven leads to WAIT or RESEND, never to a dead end."""
    if observed.commitment is None:
        return _of_absent(attempted, observed)
    if observed.commitment == "finalized":
        return Next.FAILED if observed.failed else Next.DONE
    if observed.failed:
        # An error that is only confirmed can be forked away, and the same bytes then land with success.
        return Next.WAIT
    return Next.SHOW if observed.commitment == "confirmed" else Next.WAIT


def _of_absent(attempted: Attempted, observed: Observed) -> Next:
    if (
        not observed.searched_history
        or observed.finalized_height is None
        or observed.first_available_slot is None
        or observed.finalized_height <= attempted.last_valid_block_height
    ):
        return Next.RESEND
    return Next.EXPIRED if observed.first_available_slot <= attempted.signed_slot else Next.OUTLIVED


def may_sign_again(
    earlier: Iterable[SignatureState], *, request_is_open: bool, read_slot: int, proof_slot: int
) -> bool:
    """Whether a new signature is allowed: all earlier ones dead, and a finalized read not older than the proof."""
    return all(state in DEAD for state in earlier) and request_is_open and read_slot >= proof_slot


def compute_unit_limit(simulated_units: int, *, margin: float = 0.1, floor: int = 1_000) -> int:
    """Limit to ask for: what the simulation took plus a margin; priority fees are paid on the limit, not on use."""
    return min(1_400_000, max(floor, int(simulated_units * (1 + margin)) + 300))


def priority_price(
    recent_micro_lamports: Iterable[int], *, percentile: float, cap: int, floor: int = 0, escalation: int = 0
) -> int:
    """Micro-lamports per compute unit: a percentile of what recently landed with these accounts, doubled per
    escalation, never above the cap."""
    fees = sorted(recent_micro_lamports)
    base = fees[min(len(fees) - 1, int(len(fees) * percentile))] if fees else 0
    # Twice nothing is nothing: what did not land for free begins at a price that is noticed.
    least = FIRST_ESCALATED_PRICE if escalation else 0
    return min(cap, max(floor, base, least) << min(escalation, _MOST_DOUBLINGS))
