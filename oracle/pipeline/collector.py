"""Keeps Python's garbage collector from stopping the event loop."""

from __future__ import annotations

import gc


def spare_what_is_there() -> None:
    """Leave what lives now out of every later collection. Call it once, when the daemon has been put together.

    A full collection walks every object with all threads stopped, and under load there is one every second or two. Most
    of what it would walk is there for good: modules, classes, compiled statements. Without them it takes milliseconds.
    """
    gc.collect()
    gc.freeze()
