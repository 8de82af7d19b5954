"""How fast a provider is called."""

from __future__ import annotations

import asyncio

import pytest

from oracle.providers.pace import Pace, duration_seconds


class Clock:
    def __init__(self) -> None:
        self.time = 100.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time += seconds


async def test_no_more_calls_run_at_once_than_allowed() -> None:
    pace = Pace(at_once=2)
    await pace.enter()
    await pace.enter()
    third = asyncio.create_task(pace.enter())
    await asyncio.sleep(0)
    assert not third.done()
    pace.leave()
    await third


async def test_waiters_are_served_in_order() -> None:
    pace = Pace(per_second=200.0, at_once=10)
    served: list[int] = []

    async def one(number: int) -> None:
        await pace.enter()
        served.append(number)
        pace.leave()

    await asyncio.gather(*(one(number) for number in range(10)))
    assert served == list(range(10))


async def test_a_rate_below_one_a_second_is_kept() -> None:
    throttle = Pace(per_second=0.25)._throttle
    assert (throttle.rate_limit, throttle.period) == (1, 4.0)


async def test_a_waiter_that_gives_up_leaves_no_place_taken() -> None:
    pace = Pace(at_once=1)
    await pace.enter()
    waiter = asyncio.create_task(pace.enter())
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])
    pace.leave()
    async with asyncio.timeout(30):
        await pace.enter()


async def test_nothing_starts_while_the_provider_asked_for_quiet() -> None:
    clock = Clock()
    pace = Pace(clock=clock, sleep=clock.sleep)
    pace.quiet(5.0)
    pace.quiet(2.0)
    await pace.enter()
    assert clock.naps == [5.0]


async def test_no_provider_silences_the_daemon_for_more_than_a_minute() -> None:
    clock = Clock()
    pace = Pace(clock=clock, sleep=clock.sleep)
    pace.quiet(86_400.0)
    await pace.enter()
    assert clock.naps == [60.0]


async def test_a_used_up_allowance_is_waited_for() -> None:
    clock = Clock()
    pace = Pace(clock=clock, sleep=clock.sleep)
    pace.heed({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "9s"})
    pace.heed({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6s"})
    pace.heed({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "-1"})
    await pace.enter()
    assert clock.naps == [6.0]
    assert pace.left == {"requests": 0, "tokens": 0}


@pytest.mark.parametrize("nonsense", ["-1", "", "many", "1.5", "9" * 16])
async def test_an_allowance_that_is_no_number_is_not_known(nonsense: str) -> None:
    pace = Pace()
    pace.heed({"x-ratelimit-remaining-requests": nonsense})
    assert pace.left == {}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("17", 17.0),
        ("-1", None),
        ("", None),
        ("x", None),
    ],
)
def test_durations_of_rate_limit_headers_are_read(text: str, seconds: float | None) -> None:
    assert duration_seconds(text) == pytest.approx(seconds)
