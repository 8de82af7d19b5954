"""The limits of an endpoint hold in every window, and nobody is starved."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from asyncio_throttle import throttler

from oracle.chain.rpc.limits import PUBLIC_LIMITS, Limits, Throttle


@pytest.fixture
def sleep_passes_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """asyncio-throttle's time: it passes when the throttle sleeps, and not otherwise."""
    now = [0.0]
    wait = asyncio.sleep

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        await wait(0)

    monkeypatch.setattr(throttler.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(throttler.asyncio, "sleep", sleep)
    return lambda: now[0]


async def called(throttle: Throttle, methods: list[str], now: Callable[[], float]) -> list[tuple[float, str, int]]:
    """When each call was let through, in order."""
    passed: list[tuple[float, str, int]] = []

    async def call(n: int, method: str) -> None:
        await throttle.wait(method)
        passed.append((now(), method, n))

    await asyncio.gather(*(call(n, method) for n, method in enumerate(methods)))
    return passed


def most_in_any_window(times: list[float], seconds: float) -> int:
    return max(sum(1 for t in times if start <= t < start + seconds) for start in times)


async def test_no_ten_seconds_hold_more_calls_than_the_public_endpoints_allow(
    sleep_passes_time: Callable[[], float],
) -> None:
    methods = [f"method{n % 7}" for n in range(300)]
    passed = await called(Throttle(PUBLIC_LIMITS), methods, sleep_passes_time)
    assert most_in_any_window([at for at, _, _ in passed], 10.0) <= 90
    for method in set(methods):
        assert most_in_any_window([at for at, m, _ in passed if m == method], 10.0) <= 30


async def test_callers_of_one_method_pass_in_the_order_they_came(sleep_passes_time: Callable[[], float]) -> None:
    passed = await called(Throttle(Limits(5, 5, 1.0)), ["getSlot"] * 40, sleep_passes_time)
    assert [n for _, _, n in passed] == list(range(40))


async def test_a_send_does_not_wait_behind_a_crowd_of_reads(sleep_passes_time: Callable[[], float]) -> None:
    passed = await called(
        Throttle(Limits(100, 2, 1.0)), ["getMultipleAccounts"] * 20 + ["sendTransaction"], sleep_passes_time
    )
    assert [method for _, method, _ in passed].index("sendTransaction") <= 3


async def test_a_caller_who_gives_up_takes_no_turn(sleep_passes_time: Callable[[], float]) -> None:
    throttle = Throttle(Limits(1, 1, 1.0))
    await throttle.wait("getSlot")
    waiting = asyncio.create_task(throttle.wait("getSlot"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    began = sleep_passes_time()
    await throttle.wait("getSlot")
    assert sleep_passes_time() - began <= 1.1


async def test_without_limits_nobody_waits() -> None:
    throttle = Throttle(None)
    for method in itertools.islice(itertools.cycle(["getSlot", "getBlock"]), 1000):
        await throttle.wait(method)
