"""What lives when the daemon starts is left out of later collections; what dies afterwards is not."""

from __future__ import annotations

import gc
import weakref

from oracle.pipeline import collector


class Cycle:
    def __init__(self) -> None:
        self.me = self


def test_only_what_was_there_before_is_spared() -> None:
    before, kept = Cycle(), gc.get_freeze_count()
    try:
        collector.spare_what_is_there()
        spared = gc.get_freeze_count()
        after = Cycle()
        died, is_spared = weakref.ref(after), weakref.ref(before)
        del before, after
        gc.collect()
    finally:
        gc.unfreeze()

    assert spared > kept + 1_000
    assert died() is None
    assert is_spared() is not None
