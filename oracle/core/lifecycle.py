"""The life of a request off chain: the only table of its states and of the moves between them.

    seen -> admitted -> (claiming -> claimed) -> running -> computed -> settling -> settled

`refused` stands beside `computed`: no provider can do it, and a rejection with its reason is on its way.
`declined` ends only the buying: no job, no transaction. It and `parked` are still watched, expired and closed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from oracle.core.errors import LIFECYCLE_FORBIDDEN
from oracle.core.request import Status


class State(StrEnum):
    SEEN = "seen"
    ADMITTED = "admitted"
    CLAIMING = "claiming"
    CLAIMED = "claimed"
    RUNNING = "running"
    COMPUTED = "computed"
    REFUSED = "refused"
    SETTLING = "settling"
    PARKED = "parked"
    DECLINED = "declined"
    SETTLED = "settled"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    VANISHED = "vanished"


ENDED: Final = frozenset(
    {State.SETTLED, State.REJECTED, State.CANCELLED, State.EXPIRED, State.SUPERSEDED, State.VANISHED}
)
"""The chain has the last word on these: nothing of the request is open any more."""

RESTING: Final = frozenset({State.DECLINED, State.PARKED})
"""Open on chain, but nobody works on it; it is expired and closed when due."""

_WORK: Final[dict[State, frozenset[State]]] = {
    State.SEEN: frozenset({State.ADMITTED, State.REFUSED}),
    State.ADMITTED: frozenset({State.CLAIMING, State.RUNNING, State.REFUSED}),
    # A claim that a fork took back is made again for an answer that is there already.
    State.CLAIMING: frozenset({State.CLAIMED, State.ADMITTED, State.COMPUTED, State.REFUSED}),
    State.CLAIMED: frozenset({State.RUNNING, State.ADMITTED, State.REFUSED}),
    State.RUNNING: frozenset({State.COMPUTED, State.REFUSED, State.ADMITTED, State.CLAIMED}),
    State.COMPUTED: frozenset({State.SETTLING}),
    State.REFUSED: frozenset({State.SETTLING}),
    State.SETTLING: frozenset({State.SETTLED, State.REJECTED, State.COMPUTED, State.REFUSED, State.CLAIMING}),
    # A person sent it back to work.
    State.PARKED: frozenset({State.SEEN, State.ADMITTED, State.CLAIMED, State.COMPUTED, State.REFUSED}),
    State.DECLINED: frozenset({State.SEEN}),
}

# Whatever the daemon is doing, the chain may end a request by another's hand.
_BY_ANOTHER: Final = frozenset({State.CANCELLED, State.EXPIRED, State.SUPERSEDED, State.VANISHED})

# An end that was seen at `confirmed` can be undone by a fork until it is finalized: the request goes on with what is
# at hand (nothing, an answer, a refusal, an intent under way), or the other fork has ended it in another way.
_UNDONE_BY_FORK: Final = frozenset({State.SEEN, State.CLAIMING, State.COMPUTED, State.REFUSED, State.SETTLING})


def successors(state: State) -> frozenset[State]:
    """Every state that `state` may move to."""
    if state is State.VANISHED:
        return frozenset()  # it was gone at `finalized`
    if state in ENDED:
        return _UNDONE_BY_FORK | (ENDED - {state, State.VANISHED})
    # A settlement of ours may have landed before we know it, whatever the row says (a restored backup, a lost write).
    resting = frozenset({State.PARKED, State.DECLINED, State.SETTLED, State.REJECTED})
    return _WORK[state] | _BY_ANOTHER | (resting - {state})


def check(old: State, new: State) -> None:
    """Raise ORC-CORE-001 unless `old -> new` is a move of the table."""
    if new not in successors(old):
        raise LIFECYCLE_FORBIDDEN(f"{old} -> {new}")


def end_of(status: Status, *, settled_by_us: bool) -> State | None:
    """The state that an on-chain status means for the row; None while the request is open."""
    match status:
        case Status.PENDING | Status.CLAIMED:
            return None
        case Status.FULFILLED:
            return State.SETTLED if settled_by_us else State.SUPERSEDED
        case Status.REJECTED:
            return State.REJECTED if settled_by_us else State.SUPERSEDED
        case Status.CANCELLED:
            return State.CANCELLED
        case Status.EXPIRED:
            return State.EXPIRED
