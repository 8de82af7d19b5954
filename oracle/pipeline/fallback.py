"""What follows an error of a provider: the policy of each class, in one table.

- retry here: after a pause on the same route, for another go may do; `max_attempts` purchases use the route up.
- next route: at once, and back here when the others have failed as often; `max_attempts` purchases use the route up.
- give up: this route, for this request; the next one at once.
- pause: this provider, for everybody, until a probe succeeds; the next route at once, or a wait that costs nothing.
- look up: first what became of the purchase.

Where no route is left, the request is rejected. A fault of the provider also counts in its circuit breaker; what may be
the fault of the request never does, or one poison request would close the provider to everybody.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from oracle.core import policy
from oracle.core.errors import CATALOGUE, ErrorCode, Verdict
from oracle.providers import errors


class Next(StrEnum):
    RETRY_HERE = "retry here"
    NEXT_ROUTE = "next route"
    GIVE_UP = "give up"
    PAUSE = "pause"
    LOOK_UP = "look up"


# The accident of one job, or of one host among many.
_RETRY_HERE: Final = (
    errors.ANSWER_EMPTY,
    errors.NO_MARKET,
    errors.MARKET_REFUSED,
    errors.PURCHASE_EXPIRED,
    errors.JOB_FAILED,
    errors.HOST_FAILED,
    errors.JOB_STOPPED,
    errors.OUTPUT_DAMAGED,
    errors.LOOK_UP_INCOMPLETE,
    errors.LISTING_REFUSED,
    policy.PURCHASE_ABSENT,
    policy.PURCHASE_UNCONFIRMED,
    policy.OUTPUT_EMPTY,
    policy.JOB_FAILED,
)
# Only the operator can mend it, and until then no request can be served there.
_PAUSE: Final = (errors.CREDENTIALS_REFUSED, errors.OUT_OF_CREDIT, errors.WRONG_ADDRESS)
_GIVE_UP: Final = (policy.JOB_TIMED_OUT,)

_PROVIDERS_FAULT: Final = (
    errors.UNREACHABLE,
    errors.UNAVAILABLE,
    errors.NO_ANSWER,
    errors.UNREADABLE_ANSWER,
    errors.ANSWER_INCOMPLETE,
    errors.NOT_STARTED,
    errors.HOST_FAILED,
    errors.JOB_TIMED_OUT,
    errors.OUTPUT_DAMAGED,
    policy.JOB_TIMED_OUT,
    policy.PURCHASE_UNCONFIRMED,
)

_BY_CODE: Final = {
    error.code: next_step
    for next_step, found in ((Next.RETRY_HERE, _RETRY_HERE), (Next.PAUSE, _PAUSE), (Next.GIVE_UP, _GIVE_UP))
    for error in found
}
_BY_VERDICT: Final = {Verdict.RETRY: Next.NEXT_ROUTE, Verdict.GIVE_UP: Next.GIVE_UP, Verdict.UNKNOWN: Next.LOOK_UP}


def after(error: ErrorCode | str) -> Next:
    """What follows an error, or a code as it stands in a row. A code that nobody knows any more is tried elsewhere."""
    code = error if isinstance(error, str) else error.code
    if code in _BY_CODE:
        return _BY_CODE[code]
    return _BY_VERDICT[CATALOGUE[code].verdict] if code in CATALOGUE else Next.NEXT_ROUTE


def is_providers_fault(error: ErrorCode) -> bool:
    return error in _PROVIDERS_FAULT
