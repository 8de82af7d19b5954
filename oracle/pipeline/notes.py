"""Writes down what became of a row that is held, however long the database is in trouble."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from oracle.core.backoff import backoff_seconds
from oracle.core.errors import OracleError
from oracle.pipeline.context import Context
from oracle.store.errors import ENGINE_TROUBLE, LEASE_LOST

log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 10.0


async def noted(context: Context, note: Callable[[], Awaitable[None]]) -> None:
    """Make `note` until it is made, or until another holds the row: else nobody would look at the row before our lease
    has lapsed, which may be after its deadline. It may be made twice where nobody knows whether it was."""
    failures = 0
    while True:
        try:
            await note()
            return
        except OracleError as error:
            if error.error is not LEASE_LOST:
                log.warning("could not note what became of a row", code=error.code, detail=error.detail)
            if error.error not in ENGINE_TROUBLE or context.stopping.is_set():
                return
        failures += 1
        await context.bells.wait("stop", backoff_seconds(failures, context.clock.jitter(), most=LONGEST_PAUSE_SECONDS))
