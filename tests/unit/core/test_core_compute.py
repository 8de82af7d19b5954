"""A job of which nobody will ask again."""

from __future__ import annotations

from typing import Any, cast

from oracle.core.compute import JobHandle, let_go

HANDLE = JobHandle("render", "job-1")


class Lingers:
    def __init__(self) -> None:
        self.released: list[JobHandle] = []

    def release(self, handle: JobHandle) -> None:
        self.released.append(handle)


def test_a_provider_whose_jobs_go_on_is_told_which_of_them_to_end_and_others_are_told_nothing() -> None:
    lingering = Lingers()
    let_go(cast("Any", lingering), HANDLE)
    assert lingering.released == [HANDLE]
    let_go(cast("Any", object()), HANDLE)
