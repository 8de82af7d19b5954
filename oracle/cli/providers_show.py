"""Shows what surveys of providers have found: one row each, or one in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer

from oracle.cli.errors import PROVIDER_UNKNOWN
from oracle.cli.output import console, facts, lamports, print_json, say, table
from oracle.config import Config
from oracle.core.compute import Quote
from oracle.core.errors import OracleError
from oracle.core.routing import percentile
from oracle.core.text import harmless
from oracle.pipeline import survey
from oracle.pipeline.survey import Survey
from oracle.providers.nosana.program import MICRO_NOS
from oracle.providers.offers import Offer
from oracle.store.experience import Experience

_YES_NO = {True: "yes", False: "NO", None: "-"}
_COLUMNS = (
    "name",
    "kind",
    "reachable",
    "key taken",
    "balance",
    "models",
    "a job now",
    "p50",
    "p95",
    "success",
    "rate left",
)
_RIGHT = ("models", "a job now", "p50", "p95", "success", "rate left")


async def show_all(config: Config, json: bool) -> None:
    async with survey.ground(config) as ground:
        found = await survey.everybody(ground)
    if json:
        print_json({"ok": _is_well(found), "providers": [document(one) for one in found]})
    elif not found:
        say("No provider is configured.")
    else:
        console.print(table(None, _COLUMNS, [_row(one) for one in found], right=_RIGHT))
        _troubles(found)
    _leave(found)


async def show_one(config: Config, name: str, json: bool) -> None:
    if name not in config.providers and name not in config.sources:
        raise PROVIDER_UNKNOWN(name)
    async with survey.ground(config) as ground:
        found = [
            await of(ground, name)
            for of, section in ((survey.of_provider, config.providers), (survey.of_source, config.sources))
            if name in section
        ]
    if json:
        print_json({"ok": _is_well(found), "providers": [document(one) for one in found]})
    else:
        for one in found:
            _in_full(one)
        _troubles(found)
    _leave(found)


def document(found: Survey) -> dict[str, Any]:
    """All that was found, as JSON."""
    return {
        "name": found.name,
        "kind": found.kind,
        "is_source": found.is_source,
        "reachable": found.is_reachable,
        "authenticated": found.is_authenticated,
        "error": None if found.error is None else error_document(found.error),
        "paused": found.paused or None,
        "balance": found.balance and asdict(found.balance),
        "holdings": found.holdings and asdict(found.holdings),
        "allowance": found.allowance and asdict(found.allowance),
        "models": [asdict(offer) for offer in found.offers],
        "quotes": [
            {"model": route.model, "timeout_seconds": route.timeout_seconds}
            | (asdict(quote) if isinstance(quote, Quote) else {"error": error_document(quote)})
            for route, quote in found.quotes.items()
        ],
        "markets": [asdict(market) for market in found.markets],
        "rentals": [asdict(rental) for rental in found.rentals],
        "measured": [_measured(experience) for experience in found.experience],
        "said": found.said or None,
    }


def error_document(error: OracleError) -> dict[str, str]:
    return {"code": error.code, "error": error.error.title, "detail": error.detail, "remedy": error.error.remedy}


def _measured(experience: Experience) -> dict[str, Any]:
    return {
        "model": experience.model,
        "jobs": experience.jobs,
        "success_rate": experience.success_rate,
        "p50_seconds": percentile(experience.seconds, 0.5),
        "p95_seconds": percentile(experience.seconds, 0.95),
    }


def _row(found: Survey) -> list[str]:
    seconds = [second for experience in found.experience for second in experience.seconds]
    jobs = sum(experience.jobs for experience in found.experience)
    left = found.allowance.requests_left if found.allowance else None
    return [
        found.name,
        found.kind,
        _YES_NO[found.is_reachable],
        _YES_NO[found.is_authenticated],
        _money(found),
        "-" if found.is_source else _models(found.offers),
        _cheapest(found),
        _seconds(percentile(seconds, 0.5)),
        _seconds(percentile(seconds, 0.95)),
        f"{len(seconds) / jobs:.0%} of {jobs}" if jobs else "-",
        "-" if left is None else f"{left:,} calls",
    ]


def _money(found: Survey) -> str:
    if found.holdings is not None:
        nos, staked = (amount / MICRO_NOS for amount in (found.holdings.micro_nos, found.holdings.staked_micro_nos))
        return f"{nos:g} NOS, {staked:g} staked"
    return f"{found.balance.amount:g} {found.balance.unit}" if found.balance else "-"


def _models(offers: Sequence[Offer]) -> str:
    return str(len(offers)) if offers else "-"


def _cheapest(found: Survey) -> str:
    costs = [quote.cost_lamports for quote in found.quotes.values() if isinstance(quote, Quote)]
    return lamports(min(costs)) if costs else "-"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def _in_full(found: Survey) -> None:
    allowance = found.allowance
    values: dict[str, Any] = {
        "reachable": _YES_NO[found.is_reachable],
        "key taken": _YES_NO[found.is_authenticated],
        "balance": _money(found),
    }
    if found.holdings is not None:
        values["SOL"] = f"{found.holdings.lamports / 1e9:g}"
    if allowance is not None:
        told = {
            "credit left": allowance.remaining_usd,
            "credit used": allowance.used_usd,
            "credit limit": allowance.limit_usd,
        }
        values |= {name: f"{usd:g} USD {allowance.cycle}".rstrip() for name, usd in told.items() if usd is not None}
        if allowance.requests_left is not None:
            values["calls left"] = f"{allowance.requests_left:,}"
        if allowance.tokens_left is not None:
            values["tokens left"] = f"{allowance.tokens_left:,}"
    if found.paused:
        values["paused"] = found.paused
    if found.said:
        values["says"] = found.said
    for rental in found.rentals:
        values["server"] = f"{rental.name}, {rental.state}" + (f", {rental.why}" if rental.why else "")
    facts(f"{found.name} ({found.kind})", values)
    if found.quotes:
        rows = [[route.model, f"{route.timeout_seconds:g} s", *_quoted(quote)] for route, quote in found.quotes.items()]
        console.print(table("A small job now", ("model", "at most", "costs", "", "takes"), rows, right=("costs",)))
    if found.experience:
        rows = [
            [
                experience.model,
                str(experience.jobs),
                f"{experience.success_rate:.0%}",
                _seconds(percentile(experience.seconds, 0.5)),
                _seconds(percentile(experience.seconds, 0.95)),
            ]
            for experience in found.experience
        ]
        console.print(table("Your newest jobs", ("model", "jobs", "success", "p50", "p95"), rows, right=("jobs",)))
    if found.markets:
        console.print(table("Markets", ("", "market", "type", "GPU", "USD/h", "waiting", "why not"), _markets(found)))
    if found.offers:
        columns = ("model", "USD/M in", "USD/M out", "context", "")
        rows = [_offer(offer) for offer in found.offers]
        console.print(table("Models", columns, rows, right=("USD/M in", "USD/M out", "context")))


def _quoted(quote: Quote | OracleError) -> list[str]:
    if isinstance(quote, OracleError):
        return ["-", str(quote), ""]
    expected = "" if quote.expected_seconds is None else f"about {quote.expected_seconds:g} s"
    return [lamports(quote.cost_lamports), f"{quote.cost.amount:g} {quote.cost.unit}", expected]


def _markets(found: Survey) -> list[list[str]]:
    return [
        [
            ">" if market.is_chosen else "",
            market.slug or market.address,
            market.kind,
            " or ".join(market.gpu_types) or "unknown",
            "-" if market.usd_per_hour is None else f"{market.usd_per_hour:.3f}",
            "-" if market.queued is None else str(market.queued),
            market.why_not,
        ]
        for market in found.markets
    ]


def _offer(offer: Offer) -> list[str]:
    price = offer.price
    notes = [note for note, holds in (("embeddings", offer.embeds), ("needs a higher plan", offer.locked)) if holds]
    return [
        offer.model,
        f"{price.input:g}" if price else "-",
        f"{price.output:g}" if price else "-",
        f"{offer.context_tokens:,}" if offer.context_tokens else "-",
        ", ".join(notes),
    ]


def _troubles(found: Sequence[Survey]) -> None:
    """Under the table: what went wrong, and what to do about it."""
    for one in found:
        if one.error is not None:
            say(f"{one.name}: {harmless(str(one.error))}")
            say(f"  {one.error.error.remedy}")
        if one.paused:
            say(f"{one.name}: the daemon buys nothing there now: {harmless(one.paused)}")
        if one.rentals:
            names = ", ".join(f"{rental.name} ({rental.state})" for rental in one.rentals)
            say(f"{one.name}: rented now, and may cost something: {harmless(names)}")


def _is_well(found: Sequence[Survey]) -> bool:
    return all(one.error is None for one in found)


def _leave(found: Sequence[Survey]) -> None:
    if not _is_well(found):
        raise typer.Exit(1)
