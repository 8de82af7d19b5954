"""What the program should do, said a second time in Python: status, money, and the name of every refusal.

Written from the interface, and kept simple: a few dictionaries that are copied for each transaction, and either replace
the old ones or are thrown away with it, as a transaction does.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace

from oracle.core.request import Status

WALLET_MINIMUM = 890_880
OPEN = (Status.PENDING, Status.CLAIMED)


class Refused(Exception):
    """The transaction fails; the argument is the name of the reason."""


@dataclass(frozen=True)
class Life:
    """One request from its submit to its close. Operators and payers are numbers."""

    payer: int
    fee: int
    created: int
    deadline: int
    claim_required: bool
    lease: int
    retention: int
    status: Status = Status.PENDING
    operator: int | None = None
    lease_end: int = 0
    settled: int = 0
    reason: int = 0
    output_len: int = 0


@dataclass
class Model:
    """A queue, its operators, and the lamports of wallets, requests and addresses where a request may come to live."""

    slot: int
    claim_required: bool
    ttl_bounds: tuple[int, int]
    fee_floor: int
    lease: int
    retention: int
    request_rent: int
    operator_rent: int
    payers: dict[int, int]
    operators: dict[int, int]
    paused: bool = False
    unclaimed_until: int = 0
    hired: frozenset[int] = frozenset()
    lives: dict[int, Life] = field(default_factory=dict)
    at_address: dict[int, int] = field(default_factory=dict)
    authority: int = 0

    def copy(self) -> Model:
        twin = copy(self)
        twin.payers, twin.operators = dict(self.payers), dict(self.operators)
        twin.lives, twin.at_address = dict(self.lives), dict(self.at_address)
        return twin

    def check_rent(self) -> None:
        """No wallet may keep less than an account needs, or be given less than makes one."""
        for lamports in (*self.payers.values(), *self.operators.values()):
            if 0 < lamports < WALLET_MINIMUM:
                raise Refused("InsufficientFundsForRent")

    # Set-up.

    def update_queue(self, claim_required: bool, paused: bool) -> None:
        refuse_if(not claim_required and len(self.hired) > 1, "ClaimsStillRequired")
        if not self.claim_required:
            self.unclaimed_until = max(self.unclaimed_until, self.slot + self.ttl_bounds[1])
        self.claim_required, self.paused = claim_required, paused

    def add_operator(self, by: int) -> None:
        refuse_if(by in self.hired, "AccountAlreadyInUse")
        if self.hired:
            refuse_if(not self.claim_required, "SecondOperatorNeedsClaims")
            refuse_if(self.slot <= self.unclaimed_until, "UnclaimedRequestsRemain")
        self.hired |= {by}
        self.authority -= self.operator_rent

    def remove_operator(self, by: int) -> None:
        refuse_if(by not in self.hired, "AccountOwnedByWrongProgram")
        self.hired -= {by}
        self.authority += self.operator_rent

    # Requests.

    def submit(self, ticket: int, payer: int, fee: int, ttl: int) -> None:
        refuse_if(ticket in self.lives, "AccountAlreadyInUse")
        there = self.at_address.get(ticket, 0)
        missing = max(0, self.request_rent - there)
        refuse_if(self.payers[payer] < missing, "ResultWithNegativeLamports")
        refuse_if(self.paused, "QueuePaused")
        refuse_if(fee < self.fee_floor, "FeeTooLow")
        refuse_if(not self.ttl_bounds[0] <= ttl <= self.ttl_bounds[1], "DeadlineOutOfBounds")
        refuse_if(self.payers[payer] < missing + fee, "ResultWithNegativeLamports")
        self.payers[payer] -= missing + fee
        self.at_address[ticket] = there + missing + fee
        self.lives[ticket] = Life(
            payer, fee, self.slot, self.slot + ttl, self.claim_required, self.lease, self.retention
        )

    def claim(self, ticket: int, by: int) -> None:
        life = self._worked_on(ticket, by)
        refuse_if(self.paused, "QueuePaused")
        refuse_if(life.status not in OPEN, "RequestEnded")
        refuse_if(not life.claim_required, "ClaimNotRequired")
        if life.status is Status.CLAIMED:
            refuse_if(life.operator == by, "AlreadyClaimed")
            refuse_if(self.slot <= life.lease_end, "ClaimedByAnother")
        refuse_if(self.slot > life.deadline, "DeadlinePassed")
        lease_end = min(self.slot + life.lease, life.deadline)
        self.lives[ticket] = replace(life, status=Status.CLAIMED, operator=by, lease_end=lease_end)

    def record(self, ticket: int, by: int) -> None:
        life = self._settleable(ticket, by)
        self._end(ticket, Status.FULFILLED, operator=by)
        self.at_address[ticket] -= life.fee
        self.operators[by] += life.fee

    def reject(self, ticket: int, by: int, reason: int) -> None:
        # The accounts are looked at before the arguments.
        self._worked_on(ticket, by)
        refuse_if(reason == 0, "ReasonMissing")
        self._settleable(ticket, by)
        self._end(ticket, Status.REJECTED, operator=by, reason=reason)

    def publish(self, ticket: int, by: int, length: int) -> None:
        life = self._worked_on(ticket, by)
        refuse_if(life.status is not Status.FULFILLED, "NotFulfilled")
        refuse_if(life.output_len > 0, "OutputAlreadyPublished")
        self.lives[ticket] = replace(life, output_len=length)

    def cancel(self, ticket: int) -> None:
        life = self._life(ticket)
        refuse_if(life.status not in OPEN, "RequestEnded")
        refuse_if(not life.claim_required, "RequestFirm")
        refuse_if(life.status is Status.CLAIMED and self.slot <= life.lease_end, "LeaseRunning")
        self._end(ticket, Status.CANCELLED)

    def expire(self, ticket: int) -> None:
        life = self._life(ticket)
        refuse_if(life.status not in OPEN, "RequestEnded")
        refuse_if(self.slot <= life.deadline, "DeadlineNotPassed")
        self._end(ticket, Status.EXPIRED)

    def close(self, ticket: int, refund_to: int, by_stranger: bool) -> None:
        life = self._life(ticket)
        refuse_if(refund_to != life.payer, "NotRefundAccount")
        refuse_if(life.settled == 0, "RequestStillOpen")
        refuse_if(self.slot <= life.created, "CloseInSlotOfCreation")
        refuse_if(by_stranger and self.slot <= life.settled + life.retention, "RetentionRunning")
        del self.lives[ticket]
        self.payers[life.payer] += self.at_address.pop(ticket)

    def _life(self, ticket: int) -> Life:
        if ticket not in self.lives:
            raise Refused("AccountOwnedByWrongProgram")
        return self.lives[ticket]

    def _worked_on(self, ticket: int, by: int) -> Life:
        refuse_if(by not in self.hired, "AccountOwnedByWrongProgram")
        return self._life(ticket)

    def _settleable(self, ticket: int, by: int) -> Life:
        life = self._worked_on(ticket, by)
        refuse_if(life.status not in OPEN, "RequestEnded")
        if life.claim_required:
            refuse_if(life.status is not Status.CLAIMED, "ClaimRequired")
            refuse_if(life.operator != by, "ClaimedByAnother")
        refuse_if(self.slot > life.deadline, "DeadlinePassed")
        return life

    def _end(self, ticket: int, status: Status, **changed: int) -> None:
        self.lives[ticket] = replace(self.lives[ticket], status=status, settled=self.slot, **changed)


def refuse_if(condition: bool, name: str) -> None:
    if condition:
        raise Refused(name)


def after(model: Model, changes: list[Callable[[Model], None]]) -> tuple[Model, str | None]:
    """The model after a transaction of these changes, and the name of the reason if it is refused as a whole."""
    attempt = model.copy()
    try:
        for change in changes:
            change(attempt)
        attempt.check_rent()
    except Refused as refused:
        return model, str(refused)
    return attempt, None
