"""Runs the loops, restarts one that dies, and ends them together: nothing is begun after a stop, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from oracle.core.backoff import backoff_seconds
from oracle.pipeline.context import Context

log = structlog.get_logger(__name__)
Loop = Callable[[], Awaitable[None]]

STEADY_SECONDS = 300.0
"""A loop that has run this long starts its back-off anew when it dies."""


async def supervise(context: Context, loops: Mapping[str, Loop], feeds: Mapping[str, Loop]) -> None:
    """Until `context.stopping`: then the loops end by themselves within `drain_seconds`, or are cut.

    `feeds` are what runs for ever, as subscriptions do: they are cut at once, since they do nothing of their own.
    """
    feeding = [asyncio.create_task(_kept(context, name, feed), name=name) for name, feed in feeds.items()]
    working = [asyncio.create_task(_kept(context, name, loop), name=name) for name, loop in loops.items()]
    try:
        await context.stopping.wait()
        log.info("stopping", drain_seconds=context.config.daemon.drain_seconds)
        for task in feeding:
            task.cancel()
        context.bells.ring_all()
        _, late = await asyncio.wait(working, timeout=context.config.daemon.drain_seconds)
        for task in late:
            log.warning("loop cut while draining", loop=task.get_name())
    finally:
        for task in [*working, *feeding]:
            task.cancel()
        await asyncio.gather(*working, *feeding, return_exceptions=True)


async def _kept(context: Context, name: str, loop: Loop) -> None:
    """A loop that dies is a bug, and not a reason to forget requests: it starts again, ever more slowly."""
    deaths = 0
    while not context.stopping.is_set():
        began = context.clock.monotonic()
        try:
            await loop()
        except Exception:
            log.exception("loop died", loop=name)
        else:
            if context.stopping.is_set():
                return
            log.error("loop ended by itself", loop=name)
        deaths = 0 if context.clock.monotonic() - began > STEADY_SECONDS else deaths + 1
        context.restarts[name] = context.restarts.get(name, 0) + 1
        await context.bells.wait("stop", backoff_seconds(deaths, context.clock.jitter()))
