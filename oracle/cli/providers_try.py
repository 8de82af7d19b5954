"""Runs a trial for `oracle providers try`, and shows each step as it happens."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import structlog
import typer

from oracle.cli.errors import PROVIDER_UNKNOWN, TRIAL_UNCONFIRMED
from oracle.cli.output import lamports, print_json, say
from oracle.config import Config
from oracle.config.sections import RouteSettings
from oracle.core.compute import Compute, IdempotencyKey, Message, Output, Quote, Task
from oracle.core.errors import OracleError
from oracle.core.routing import is_same_model
from oracle.core.text import harmless
from oracle.pipeline import survey
from oracle.pipeline.errors import TRIAL_WITHOUT_MODEL
from oracle.pipeline.trial import Books, Trial, quoted
from oracle.providers.nosana.onchain import Deposit, NosanaOnChain
from oracle.providers.nosana.onchain_funds import LEAST_LAMPORTS
from oracle.providers.nosana.program import MICRO_NOS
from oracle.providers.rented.compute import RentedCompute
from oracle.providers.settings import RentedSettings

TIMEOUT_SECONDS: Final = 600.0
_FIRST_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line."""

    name: str
    model: str | None
    prompt: str
    max_tokens: int
    timeout_seconds: float | None
    max_lamports: int | None
    is_confirmed: bool
    key: str | None


@dataclass(slots=True)
class _Steps:
    """Every step with the seconds since the start, shown at once unless JSON is wanted at the end."""

    is_shown: bool
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    steps: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.began = self.clock()

    def __call__(self, what: str, detail: str) -> None:
        seconds = self.clock() - self.began
        self.steps.append({"seconds": round(seconds, 3), "step": what, "detail": detail})
        if self.is_shown:
            say(f"{seconds:8.1f} s  {what:<12}  {harmless(detail)}".rstrip())


async def try_one(config: Config, wish: Wish, json: bool) -> None:
    if wish.name not in config.providers:
        raise PROVIDER_UNKNOWN(wish.name)
    _log_to_stderr()
    _stop_on_sigterm()
    tell = _Steps(is_shown=not json)
    async with survey.ground(config) as ground:
        provider = ground.provider(wish.name, tell)
        books = Books(config, ground.store)
        if isinstance(provider, RentedCompute):
            async with _given_back(ground, provider, tell):
                tried = await _try(config, wish, provider, books, tell)
        else:
            try:
                tried = await _try(config, wish, provider, books, tell)
            finally:
                await provider.close()
    if json:
        print_json(tried | {"steps": tell.steps})


async def _try(config: Config, wish: Wish, provider: Compute, books: Books, tell: _Steps) -> dict[str, Any]:
    task = await _task(config, wish, provider)
    key = IdempotencyKey(wish.key or str(uuid.uuid4()))
    tell("asked", f"{provider.name} ({config.providers[wish.name].kind}) for {task.model}, key {key}")
    if provider.capabilities.prompts_public:
        tell("public", "prompt and answer can be read by others on this network")
    trial = Trial(provider, task, key, books, config.daemon.poll_interval_seconds, tell)
    if wish.key is not None:
        quote, output = None, await trial.resume()
    else:
        quote = await quoted(provider, task, wish.max_lamports)
        tell("quoted", _quote(quote))
        beside = ""
        if isinstance(provider, NosanaOnChain):
            tell("deposit", _deposit(await provider.deposit(task)))
            beside = ", and what its transactions cost"
        if _confirm(quote, wish, beside, is_asking=tell.is_shown):
            # A price may have risen while a person thought: nothing is bought above what was agreed to.
            quote = await quoted(provider, task, quote.cost_lamports)
        if quote.cost_lamports and books.store is None:
            tell("not booked", "there is no database yet, so no budget counts this trial")
        output = await trial.run(quote)
    _tell_output(task, output, tell)
    return {
        "provider": wish.name,
        "key": key,
        "model": task.model,
        "quote": None if quote is None else asdict(quote),
        "answer": output.content.decode(errors="replace"),
        "model_run": output.model_run,
        "is_same_model": is_same_model(task.model, output.model_run),
        "input_tokens": output.input_tokens,
        "output_tokens": output.output_tokens,
        "cost_lamports": output.cost_lamports,
        "cost": output.cost and asdict(output.cost),
        "finish_reason": output.finish_reason,
    }


async def _task(config: Config, wish: Wish, provider: Compute) -> Task:
    """Raises ORC-PIPE-033 where there is no model to ask."""
    routes = [route for model in config.models.values() for route in model.routes if route.provider == wish.name]
    route = next((route for route in routes if wish.model in (None, route.model)), None)
    if route is None:
        model = wish.model or next(iter(await provider.models()), None)
        if model is None:
            raise TRIAL_WITHOUT_MODEL(wish.name)
        settings = config.providers[wish.name]
        boot_seconds = settings.boot_seconds if isinstance(settings, RentedSettings) else 0.0
        route = RouteSettings(provider=wish.name, model=model, timeout_seconds=TIMEOUT_SECONDS + boot_seconds)
    return Task(
        route.model,
        (Message("user", wish.prompt),),
        max_output_tokens=wish.max_tokens,
        timeout_seconds=wish.timeout_seconds or route.timeout_seconds,
    )


def _confirm(quote: Quote, wish: Wish, beside: str, *, is_asking: bool) -> bool:
    """Whether somebody was asked. Raises ORC-CLI-009 where something would be spent and nobody has agreed."""
    if wish.is_confirmed or quote.cost_lamports == 0:
        return False
    if not is_asking or not typer.confirm(f"Spend up to {_quote(quote)}{beside}?", err=True):
        raise TRIAL_UNCONFIRMED(f"{quote.cost_lamports:,} lamports")
    return True


def _quote(quote: Quote) -> str:
    takes = "" if quote.expected_seconds is None else f", about {quote.expected_seconds:g} s"
    return f"{lamports(quote.cost_lamports)} ({quote.cost.amount:.6g} {quote.cost.unit}){takes}"


def _deposit(deposit: Deposit) -> str:
    price, laid_down, most = (
        f"{micro_nos / MICRO_NOS:.6f} NOS"
        for micro_nos in (deposit.micro_nos_per_second, deposit.micro_nos, deposit.most_micro_nos)
    )
    return (
        f"{laid_down}, {most} with the network fee if that is taken: {price} a second for {deposit.seconds} s "
        f"on market {deposit.market}, and up to {LEAST_LAMPORTS:,} lamports of rent and fees. "
        "Rent, and what the job does not use, come back"
    )


def _tell_output(task: Task, output: Output, tell: _Steps) -> None:
    text = output.content.decode(errors="replace").strip()
    tell("answer", text[:_FIRST_CHARACTERS] + ("…" if len(text) > _FIRST_CHARACTERS else ""))
    other = (
        "" if is_same_model(task.model, output.model_run) else f", which is not {task.model}: no request would take it"
    )
    tell("model run", output.model_run + other)
    tokens = ("-" if count is None else str(count) for count in (output.input_tokens, output.output_tokens))
    tell("tokens", "{} in, {} out".format(*tokens))
    cost = "not told" if output.cost_lamports is None else lamports(output.cost_lamports)
    tell("cost", cost + (f" ({output.cost.amount:.6g} {output.cost.unit})" if output.cost else ""))


@asynccontextmanager
async def _given_back(ground: survey.Ground, provider: RentedCompute, tell: _Steps) -> AsyncIterator[None]:
    """What was rented meanwhile is ended, and what is still listed after that is told."""
    before: set[str] | None = None
    try:
        before = {rental.id for rental in await provider.server.live()}
        yield
    finally:
        if before is not None:
            tell("giving back", "the server, unless it was rented before")
        await provider.close()
        if before is not None:
            await _see_that_it_is_gone(ground, provider.name, before, tell)


async def _see_that_it_is_gone(ground: survey.Ground, name: str, before: Collection[str], tell: _Steps) -> None:
    """A purchase that was interrupted may show only now. Where a daemon runs, what shows may be its own."""
    fresh = ground.provider(name)
    assert isinstance(fresh, RentedCompute)
    try:
        left = await fresh.server.live()
        if ground.paused is None:
            for rental in left:
                if rental.id not in before:
                    await fresh.landlord.destroy(rental)
            left = await fresh.server.live()
    except OracleError as error:
        tell("not known", f"whether a server is left: {error}; look with oracle providers show {name}")
        return
    finally:
        await fresh.close()
    if left:
        names = ", ".join(f"{rental.name} ({rental.state})" for rental in left)
        tell("still rented", f"{names}: a daemon (`oracle run`) ends it once it is idle")
    else:
        tell("given back", "no server of ours is rented any more")


def _log_to_stderr() -> None:
    """What adapters log is for the one who watches, and never part of the document."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr))


def _stop_on_sigterm() -> None:
    """As Ctrl-C: the job is called off, and what was rented is given back."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread, as in tests
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
