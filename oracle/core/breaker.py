"""A circuit breaker: who fails again and again is left alone for a while, and then tried with a single call.

    closed --failures--> open --time--> half open --success--> closed
                          ^                 |
                          +-----failure-----+   for twice as long

Pure: `now` is seconds of any clock that never goes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerTerms:
    """Opens after `failures_in_a_row`, or where `failure_share` of the last `window` outcomes were failures."""

    failures_in_a_row: int = 5
    window: int = 20
    failure_share: float = 0.5
    open_seconds: float = 30.0
    longest_open_seconds: float = 600.0


@dataclass(slots=True)
class Breaker:
    """`failed` is told whose failure it was: one poison request that fails again and again counts once in a row."""

    terms: BreakerTerms = BreakerTerms()
    phase: Phase = Phase.CLOSED
    opened: int = 0
    """How often it has opened, ever."""
    _pause_seconds: float = 0.0
    _no_call_before: float = 0.0
    _row: set[Hashable] = field(default_factory=set)
    _outcomes: deque[bool] = field(default_factory=deque)

    def allows(self, now: float) -> bool:
        """Whether a call may begin."""
        return self.phase is Phase.CLOSED or now >= self._no_call_before

    def begin(self, now: float) -> bool:
        """Ask for a call; False where none may begin. The first one after a pause is its probe."""
        if not self.allows(now):
            return False
        if self.phase is not Phase.CLOSED:
            self.phase = Phase.HALF_OPEN
            # A probe that was never heard of again must not keep everybody out for ever.
            self._no_call_before = now + self._pause_seconds
        return True

    def succeeded(self) -> bool:
        """True where this has closed the breaker. The end of a call that began before it opened proves nothing."""
        match self.phase:
            case Phase.CLOSED:
                self._row.clear()
                self._note(is_failure=False)
                return False
            case Phase.OPEN:
                return False
            case Phase.HALF_OPEN:
                self.phase = Phase.CLOSED
                return True

    def failed(self, now: float, whose: Hashable) -> bool:
        """True where this has opened the breaker."""
        match self.phase:
            case Phase.OPEN:
                return False
            case Phase.HALF_OPEN:
                self._open(now)
                return True
            case Phase.CLOSED:
                if whose not in self._row:
                    self._row.add(whose)
                    self._note(is_failure=True)
                if len(self._row) < self.terms.failures_in_a_row and not self._fails_too_often():
                    return False
                self._open(now)
                return True

    def trip(self, now: float) -> bool:
        """Open it at once: no further call can succeed. True where it was not open."""
        if self.phase is Phase.OPEN:
            return False
        self._open(now)
        return True

    def seconds_left(self, now: float) -> float:
        """Until a call may begin; 0 where one may now."""
        return 0.0 if self.phase is Phase.CLOSED else max(0.0, self._no_call_before - now)

    def _open(self, now: float) -> None:
        """After a probe that failed, for twice as long as before."""
        is_again = self.phase is Phase.HALF_OPEN
        longer = min(2 * self._pause_seconds, self.terms.longest_open_seconds)
        self._pause_seconds = longer if is_again else self.terms.open_seconds
        self._no_call_before = now + self._pause_seconds
        self.phase = Phase.OPEN
        self.opened += 1
        self._row.clear()
        self._outcomes.clear()

    def _note(self, *, is_failure: bool) -> None:
        self._outcomes.append(is_failure)
        if len(self._outcomes) > self.terms.window:
            self._outcomes.popleft()

    def _fails_too_often(self) -> bool:
        is_full = len(self._outcomes) >= self.terms.window
        return is_full and sum(self._outcomes) >= self.terms.failure_share * self.terms.window
