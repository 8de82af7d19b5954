"""seen -> admitted: whether a request is worth doing, before anything is spent on it (law 8).

Where there is room to buy for it at once, its admission is written down together with the intent to buy.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from oracle.core import policy, routing
from oracle.core.compute import Quote, Task
from oracle.core.errors import OracleError, Verdict
from oracle.core.lifecycle import State
from oracle.core.policy import Facts
from oracle.core.prompt import messages_of
from oracle.core.request import Data, Request
from oracle.core.routing import Route
from oracle.pipeline import data, inputs, recorded, rehearsal
from oracle.pipeline.context import Context
from oracle.pipeline.decoded import request_of
from oracle.store import recordings, requests
from oracle.store.rows import RecordingRow, RequestRow

STATES = (State.SEEN,)


async def admit(context: Context, row: RequestRow) -> None:
    request = request_of(row)
    open_of_requester, recording = await context.store.read_together(known_of_all, row)
    if recording is not None:
        await recorded.take(context, row, request, recording)
        return
    policy.check(request, context.terms(), Facts(context.slot(), open_of_requester))
    candidates = candidates_of(context, request)
    task = task_of(request, await content_to_judge(context, request))
    await affordable(context, request, candidates, task)
    if context.config.policy.simulate_before_buying:
        await rehearsal.rehearse(context, row)
    if row.claim_required or not inputs.is_at_hand(request) or not context.to_buy.begin(row):
        await context.move(row, State.ADMITTED)


def known_of_all(c: Connection, rows: Sequence[RequestRow]) -> list[tuple[int, RecordingRow | None]]:
    """Of each row, how many requests its requester has open, and the answer that waits for it."""
    open_counts = requests.open_counts_of(c, {row.requester for row in rows}, rows[0].operator)
    waiting = recordings.find_all(c, [row.address for row in rows])
    return [(open_counts[row.requester], waiting.get(row.address)) for row in rows]


async def content_to_judge(context: Context, request: Request) -> bytes:
    """The input; of data that costs money only a stand-in, as large as it may get: it is bought with the job."""
    if isinstance(request.body.input, Data) and data.cost_lamports(context, request):
        return data.stand_in(context, request.body.input)
    content, _ = await inputs.load(context, request)
    return content


def candidates_of(context: Context, request: Request) -> tuple[Route, ...]:
    return routing.candidates(
        request.body.model,
        context.routes,
        {name: provider.capabilities for name, provider in context.providers.items()},
        private=policy.is_private(request),
        any_model=policy.allows_any_model(request),
    )


def task_of(request: Request, content: bytes, route: Route | None = None) -> Task:
    """The job for a route; raises the ORC-INPUT codes where the content is no prompt."""
    params = request.body.params
    return Task(
        model=route.model if route else request.body.model,
        messages=messages_of(data.prompt(request, content), params.flags),
        max_output_tokens=params.max_output_tokens,
        temperature=params.temperature_milli / 1000,
        seed=params.seed,
        private=policy.is_private(request),
        timeout_seconds=route.timeout_seconds if route else 120.0,
    )


async def affordable(
    context: Context, request: Request, routes: tuple[Route, ...], task: Task, *, also_lamports: int = 0
) -> dict[Route, Quote]:
    """Quotes of the routes that the fee covers, with the data where that has a price, and with `also_lamports` for jobs
    that run already.

    Raises ORC-POLICY-004 where it covers none, or what every quote raised. A provider that cannot quote now is not
    thereby too dear: if no route is affordable and one could not be asked, its error decides, and may be retried.
    """
    data_lamports = data.cost_lamports(context, request)
    quotes: dict[Route, Quote] = {}
    refusals: list[OracleError] = []
    for route in routes:
        try:
            quote = await context.providers[route.provider].quote(_for(task, route))
            if route.max_cost_lamports is not None and quote.cost_lamports > route.max_cost_lamports:
                raise policy.FEE_TOO_LOW(f"{route.provider} quotes {quote.cost_lamports}, above the route's cap")
            if context.config.policy.check_fee:
                policy.check_fee(
                    request.header.fee_lamports,
                    quote.cost_lamports + data_lamports + also_lamports,
                    context.config.policy.settlement_lamports,
                    context.config.policy.margin,
                )
            quotes[route] = quote
        except OracleError as error:
            refusals.append(error)
    if quotes:
        return quotes
    retryable = [error for error in refusals if error.verdict is not Verdict.GIVE_UP]
    raise (retryable or refusals)[0]


def _for(task: Task, route: Route) -> Task:
    return Task(
        model=route.model,
        messages=task.messages,
        max_output_tokens=task.max_output_tokens,
        temperature=task.temperature,
        seed=task.seed,
        private=task.private,
        timeout_seconds=route.timeout_seconds,
    )
