"""When a job is given up that its provider does not end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from oracle.core.compute import JobState, JobStatus
from oracle.core.routing import ModelRoutes, Route
from oracle.pipeline import poll

BEGAN_MS = 1_000_000
RUNNING = JobStatus(JobState.RUNNING)


@pytest.mark.parametrize(
    ("after_ms", "is_over"),
    [(30_001, False), (36_000, False), (36_001, True)],
    ids=["as its time is over", "while its provider may end it", "then"],
)
def test_a_job_is_given_up_only_when_its_provider_has_had_time_to_end_it(after_ms: int, is_over: bool) -> None:
    context = SimpleNamespace(
        clock=SimpleNamespace(now_ms=lambda: BEGAN_MS + after_ms),
        routes={"tiny": ModelRoutes((Route("chat", "tiny-1", timeout_seconds=30.0),))},
    )
    attempt = SimpleNamespace(provider="chat", model="tiny-1", started_at_ms=BEGAN_MS, intended_at_ms=0)
    row = SimpleNamespace(model="tiny")
    assert poll.is_telling(cast("Any", context), cast("Any", row), cast("Any", attempt), RUNNING) is is_over
