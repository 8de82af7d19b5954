"""The price of a coin, as read again and again from somebody who may err, lie or fall silent: what of it is believed.

Pure: `now` is seconds of any clock that never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """`least` and `most` are USD; a reading beyond them is never believed. `max_change_share` is from one to the next,
    and None for `max_age_seconds` is a price that does not age."""

    least: Decimal
    most: Decimal
    max_change_share: Decimal = Decimal("0.2")
    max_age_seconds: float | None = None


class Verdict(StrEnum):
    BELIEVED = "believed"
    DOUBTED = "doubted"
    OUT_OF_BOUNDS = "out of bounds"


@dataclass(slots=True)
class Price:
    """A jump is believed once the reading after it says the same. Until then the price before it stands, and ages."""

    terms: PriceTerms
    usd: Decimal | None = None
    """What was believed last, however old it is."""
    believed_at: float = 0.0
    doubted: Decimal | None = None

    def hear(self, usd: Decimal, now: float) -> Verdict:
        """One more reading."""
        if not (usd.is_finite() and self.terms.least <= usd <= self.terms.most):
            self.doubted = None
            return Verdict.OUT_OF_BOUNDS
        if any(known is None or self._is_near(known, usd) for known in (self.usd, self.doubted or self.usd)):
            self.usd, self.believed_at, self.doubted = usd, now, None
            return Verdict.BELIEVED
        self.doubted = usd
        return Verdict.DOUBTED

    def current(self, now: float) -> Decimal | None:
        """What quotes are made with now; None where nothing is known, or nothing that is new enough."""
        return None if self.usd is None or self.is_old(now) else self.usd

    def is_old(self, now: float) -> bool:
        return self.terms.max_age_seconds is not None and self.age_seconds(now) > self.terms.max_age_seconds

    def age_seconds(self, now: float) -> float:
        return now - self.believed_at

    def _is_near(self, known: Decimal, usd: Decimal) -> bool:
        """As far up as down: doubling and halving are the same change."""
        return max(known, usd) <= min(known, usd) * (1 + self.terms.max_change_share)
