"""What a rented server costs, split over the requests that it answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from oracle.providers.rented.landlord import RentalPrice


@dataclass(slots=True)
class Meter:
    """Bills each answer a share of what is not billed yet: start and idle time belong to the requests, too.

    The shares are such that `expected_answers` of them pay for everything, the idle time at the end included. Where
    fewer come, the rest stays unbilled. Times are unix seconds; `price` None is a price that nobody knows.
    """

    price: RentalPrice | None
    began_at: float
    idle_seconds: float
    expected_answers: int
    billed_usd: Decimal = Decimal(0)
    answers: int = 0

    def cost_usd(self, now: float) -> Decimal:
        """Of the whole rental, if it were given back now."""
        return Decimal(0) if self.price is None else self.price.cost_usd(now - self.began_at)

    def share_usd(self, now: float, in_flight: int) -> Decimal | None:
        """Bill one answer; `in_flight` are the requests that share the server now, this one included."""
        if self.price is None:
            return None
        due = max(Decimal(0), self.price.cost_usd(now - self.began_at + self.idle_seconds) - self.billed_usd)
        share = due / max(in_flight, self.expected_answers - self.answers, 1)
        self.billed_usd += share
        self.answers += 1
        return share

    def forgive(self, now: float) -> None:
        """Take the cost so far as billed: by an earlier process, whose books it is in."""
        self.billed_usd = self.cost_usd(now)
