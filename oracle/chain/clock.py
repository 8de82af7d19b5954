"""Slots and seconds, converted by the slot time that is measured, whatever the protocol's target is today."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Final

from oracle.chain.rpc.types import PerformanceSample

TARGET_SLOT_SECONDS: Final = 0.4
"""Agave `sdk/clock`: DEFAULT_MS_PER_SLOT. Stands in only until the first measurement."""

_INTERVAL_SECONDS: Final = 5.0
_INTERVALS: Final = 24
_MOST_SILENCE_SECONDS: Final = 30.0
_SLACK_SLOTS: Final = 1_000
_AGREEING: Final = 3


class SlotClock:
    """Learns the slot time from `(slot, monotonic seconds)` pairs, and tells slots from seconds and back.

    The slot time is the median over intervals of some seconds, of the last minutes: one interval may be anything, such
    as the hour that a cluster stood still. A slot that cannot follow from the newest is believed when three reports in
    a row agree: one endpoint's invention must not make every deadline look past, but a machine that slept, or a local
    chain that began anew, must not be doubted for ever.
    """

    def __init__(self) -> None:
        self._seconds_per_slot: deque[float] = deque(maxlen=_INTERVALS)
        self._slot_seconds = TARGET_SLOT_SECONDS
        self._newest: tuple[int, float] | None = None
        self._interval_start = (0, 0.0)
        self._doubted: tuple[int, float] | None = None
        self._doubts = 0

    @property
    def is_measured(self) -> bool:
        return bool(self._seconds_per_slot)

    @property
    def slot_seconds(self) -> float:
        """Seconds that a slot takes."""
        return self._slot_seconds

    def seed(self, samples: Sequence[PerformanceSample]) -> None:
        """Begin with what `getRecentPerformanceSamples` tells, newest first."""
        self._measured(*(sample.seconds / sample.slots for sample in reversed(samples[:_INTERVALS]) if sample.slots))

    def observe(self, slot: int, at_seconds: float) -> None:
        """A slot was current at this time. Reports of an older slot, such as by another endpoint, change nothing."""
        if self._newest is None or self._is_believed_at_last(slot, at_seconds):
            self._newest = self._interval_start = (slot, at_seconds)
            return
        if slot <= self._newest[0] or not self._follows(self._newest, slot, at_seconds):
            return
        self._newest = (slot, at_seconds)
        start_slot, start_seconds = self._interval_start
        if at_seconds - start_seconds >= _INTERVAL_SECONDS:
            self._measured((at_seconds - start_seconds) / (slot - start_slot))
            self._interval_start = self._newest

    def slots(self, seconds: float) -> int:
        """How many slots pass in `seconds`, rounded up."""
        return math.ceil(seconds / self.slot_seconds)

    def seconds(self, slots: int) -> float:
        """How long `slots` slots take."""
        return slots * self.slot_seconds

    def slot_at(self, at_seconds: float) -> int:
        """The slot that is probably current; 0 before the first observation.

        Counted on from the newest observation for half a minute at most: when none comes for longer the cluster may
        stand still, and its deadlines with it.
        """
        if self._newest is None:
            return 0
        slot, seen_at = self._newest
        return slot + int(min(max(0.0, at_seconds - seen_at), _MOST_SILENCE_SECONDS) / self.slot_seconds)

    def _measured(self, *seconds_per_slot: float) -> None:
        self._seconds_per_slot.extend(seconds_per_slot)
        if self._seconds_per_slot:
            self._slot_seconds = median(self._seconds_per_slot)

    def _follows(self, earlier: tuple[int, float], slot: int, at_seconds: float) -> bool:
        """Whether the slot may come after `earlier`: slots may have become five times shorter, but not a thousand."""
        most = _SLACK_SLOTS + 5 * max(0.0, at_seconds - earlier[1]) / self.slot_seconds
        return -_SLACK_SLOTS <= slot - earlier[0] <= most

    def _is_believed_at_last(self, slot: int, at_seconds: float) -> bool:
        if self._newest is None or self._follows(self._newest, slot, at_seconds):
            self._doubts = 0
            return False
        agrees = self._doubted is not None and self._follows(self._doubted, slot, at_seconds)
        self._doubts = self._doubts + 1 if agrees and self._doubts else 1
        self._doubted = (slot, at_seconds)
        if self._doubts < _AGREEING:
            return False
        self._doubts = 0
        return True
