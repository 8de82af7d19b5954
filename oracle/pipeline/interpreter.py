"""Suits the interpreter to a process whose event loop must not be kept waiting, by its collector or by its threads."""

from __future__ import annotations

import gc
import sys
from typing import Final

_THRESHOLDS: Final = (5_000, 10, 200)
_SWITCH_SECONDS: Final = 0.001


def prepare() -> None:
    """Call it once, when the daemon has been put together."""
    _spare_what_is_there()
    # A thread that comes back from the database waits so long for its turn while the loop is busy, and the loop while
    # a thread is: by Python's default five milliseconds, many times in a commit.
    sys.setswitchinterval(_SWITCH_SECONDS)


def _spare_what_is_there() -> None:
    """Leave what lives now out of every later collection.

    A full collection walks every object with all threads stopped, and under load there is one every second or two. Most
    of what it would walk is there for good: modules, classes, compiled statements. Without them it takes milliseconds.

    It comes more rarely, too. Reference counts free nearly all that the daemon leaves; the rest are cycles, as of an
    error and its traceback, which are small. But a scan of all requests makes a hundred thousand objects for a moment,
    which by Python's own thresholds would bring on a full collection, that walks all of them, again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
