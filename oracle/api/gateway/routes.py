"""Which routes may answer a call, and one after the other until one does, as long as nothing has been said yet."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from oracle.api.gateway.books import Call, Failure
from oracle.api.gateway.errors import MODEL_UNKNOWN, PARAMETER_UNSUPPORTED
from oracle.api.gateway.keys import Client
from oracle.core import routing
from oracle.core.compute import IdempotencyKey, Quote, Recovery, Synchronous, Task
from oracle.core.errors import OracleError, Verdict
from oracle.core.policy import BUDGET_EXHAUSTED, BUDGET_TOO_SMALL, NO_ROUTE_LEFT, OUTPUT_TOO_LONG
from oracle.core.routing import Route, Strategy, ranked
from oracle.pipeline import choice
from oracle.pipeline.context import Context
from oracle.providers import errors

log = structlog.get_logger(__name__)
Item = TypeVar("Item")
Run = Callable[[Route, Task, IdempotencyKey], AsyncGenerator[Item, None]]
"""Buys one job on a route and yields what comes of it."""

# The answer came and was no good: it is paid for, though nobody says how much.
_ANSWERED: Final = (
    errors.ANSWER_TOO_LARGE,
    errors.ANSWER_REFUSED,
    errors.ANSWER_CUT,
    errors.ANSWER_EMPTY,
    errors.ANSWER_INCOMPLETE,
)
# To ask again at once is what the provider has asked us not to do.
_ASKS_FOR_PATIENCE: Final = (errors.RATE_LIMITED, errors.BUSY, errors.NOT_SENT)
_REST_SECONDS: Final = 1.0
"""Where a provider limits the rate and does not say for how long."""


class Rests:
    """Providers that have asked to be left alone for a while: until then a call goes straight to the next route."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def begin(self, provider: str, seconds: float | None) -> None:
        self._until[provider] = self._clock() + (_REST_SECONDS if seconds is None else seconds)

    def seconds_left(self, provider: str) -> float:
        return max(0.0, self._until.get(provider, 0.0) - self._clock())


def candidates(context: Context, client: Client, task: Task) -> tuple[Route, ...]:
    """The routes of `task.model`, which is the client's name of it. Raises ORC-GATEWAY-004 or 006, ORC-POLICY codes."""
    if client.settings.models is not None and task.model not in client.settings.models:
        raise MODEL_UNKNOWN(f"`model` {task.model!r}")
    most = context.config.policy.max_output_tokens
    if task.max_output_tokens > most:
        raise OUTPUT_TOO_LONG(f"`max_tokens` {task.max_output_tokens}, at most {most}")
    found = routing.candidates(
        task.model,
        context.routes,
        {name: provider.capabilities for name, provider in context.providers.items()},
        private=task.private,
        any_model=False,
    )
    if task.sampling:
        found = tuple(route for route in found if isinstance(context.providers[route.provider], Synchronous))
        if not found:
            raise PARAMETER_UNSUPPORTED(f"`{next(iter(task.sampling))}` is not passed on by any route of this model")
    return found


async def first_to_answer(
    call: Call, routes: Sequence[Route], task: Task, rests: Rests, run: Run[Item]
) -> AsyncGenerator[Item, None]:
    """What the first route yields that yields anything. Its later failure is final: half an answer cannot be unsaid."""
    context = call.context
    quotes = _Quotes(context, task)
    left = deque(await _in_order(context, routes, task, quotes))
    tries: Counter[Route] = Counter()
    failures: list[OracleError] = list(quotes.refusals)
    unconfirmed = 0
    while left:
        route = left.popleft()
        try:
            if not context.breakers.begin(route.provider):
                raise choice.paused(context, [route])
            if (rest := rests.seconds_left(route.provider)) > 0:
                raise errors.RATE_LIMITED(f"{route.provider} rests", retry_after_seconds=rest)
            quote = await quotes.of(route)
        except OracleError as error:
            failures.append(error)
            continue
        try:
            key = await call.buy(route, quote)
        except OracleError as error:
            if error.error not in (BUDGET_EXHAUSTED, BUDGET_TOO_SMALL):
                raise
            failures.append(error)
            continue
        has_begun = False
        try:
            async with contextlib.aclosing(run(route, on(route, task), key)) as items:
                async for item in items:
                    has_begun = True
                    yield item
            context.breakers.succeeded(route.provider)
            return
        except OracleError as error:
            context.breakers.failed(route.provider, error, call.id)
            log.info("route failed", provider=route.provider, model=route.model, code=error.code, detail=error.detail)
            provider = context.providers[route.provider]
            is_unknown = error.verdict is Verdict.UNKNOWN
            goes_on = is_unknown and not isinstance(provider, Synchronous)
            call.failed(Failure(error, cost_of(error, has_begun=has_begun), goes_on))
            if has_begun or goes_on:
                raise
            failures.append(error)
            if error.error is errors.RATE_LIMITED:
                rests.begin(route.provider, error.retry_after_seconds)
            unconfirmed += is_unknown and provider.capabilities.recovery is not Recovery.REPEAT
            if unconfirmed > context.config.policy.max_unconfirmed_purchases:
                raise
            tries[route] += 1
            may_help = error.verdict is not Verdict.GIVE_UP and error.error not in _ASKS_FOR_PATIENCE
            if may_help and tries[route] < route.max_attempts:
                left.append(route)
    raise _most_hopeful(failures)


def on(route: Route, task: Task) -> Task:
    return replace(task, model=route.model, timeout_seconds=route.timeout_seconds)


def cost_of(error: OracleError, *, has_begun: bool) -> int | None:
    """Nothing where the provider has refused; None where it may bill and does not say what."""
    may_bill = has_begun or error.verdict is Verdict.UNKNOWN or error.error in _ANSWERED
    return None if may_bill else 0


class _Quotes:
    """Quotes by route, each asked for once."""

    def __init__(self, context: Context, task: Task) -> None:
        self._context = context
        self._task = task
        self.found: dict[Route, Quote] = {}
        self.refusals: list[OracleError] = []

    async def of(self, route: Route) -> Quote:
        """Raises what the provider raises, and ORC-POLICY-009 above the route's cap or where a client cannot wait."""
        if route not in self.found:
            quote = await self._context.providers[route.provider].quote(on(route, self._task))
            if route.max_cost_lamports is not None and quote.cost_lamports > route.max_cost_lamports:
                raise NO_ROUTE_LEFT("no route within its price cap")
            if quote.promised_seconds is not None:
                raise NO_ROUTE_LEFT(
                    f"{route.provider} may take {quote.promised_seconds:.0f} s: no client waits so long"
                )
            self.found[route] = quote
        return self.found[route]


async def _in_order(context: Context, routes: Sequence[Route], task: Task, quotes: _Quotes) -> Sequence[Route]:
    """A fixed order needs no quote but that of the route it has come to."""
    strategy = context.routes[task.model].strategy
    if strategy is Strategy.ORDERED:
        return routes
    for route in routes:
        try:
            await quotes.of(route)
        except OracleError as error:
            quotes.refusals.append(error)
    seconds = await choice.latencies(context, routes) if strategy is Strategy.FASTEST else {}
    return ranked(routes, strategy, quotes.found, seconds)


def _most_hopeful(failures: Sequence[OracleError]) -> OracleError:
    """What another try may mend, before what it cannot: the client decides by it whether to try again."""
    retryable = [error for error in failures if error.verdict is Verdict.RETRY]
    return (retryable or list(failures))[0]
