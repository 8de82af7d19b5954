"""Keeps Python's garbage collector from stopping the event loop."""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (5_000, 10, 200)


def spare_what_is_there() -> None:
    """Leave what lives now out of every later collection. Call it once, when the daemon has been put together.

    A full collection walks every object with all threads stopped, and under load there is one every second or two. Most
    of what it would walk is there for good: modules, classes, compiled statements. Without them it takes milliseconds.

    It comes more rarely, too. Reference counts free nearly all that the daemon leaves; the rest are cycles, as of an
    error and its traceback, which are small. But a scan of all requests makes a hundred thousand objects for a moment,
    which by Python's own thresholds would bring on a full collection, that walks all of them, again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
