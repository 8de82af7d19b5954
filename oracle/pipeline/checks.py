"""What must be right before the daemon can earn: each check says what it found and what to do about it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from typing import Final

import httpx

from oracle.chain.program import idl, selfcheck
from oracle.config import Config
from oracle.config.sections import ModelSettings, RouteSettings
from oracle.core.compute import Quote
from oracle.core.errors import OracleError
from oracle.pipeline import cluster_checks as cluster
from oracle.pipeline import daemon, price_checks, survey
from oracle.pipeline import database_checks as database
from oracle.pipeline.findings import CheckResult, Health, failed, ok
from oracle.pipeline.survey import Outcome, Survey
from oracle.providers.nosana.program import MICRO_NOS

PROBE_SECONDS: Final = 5.0


async def all_of(config: Config) -> list[CheckResult]:
    """Every check, in the order in which a failure would be met. Nothing is changed anywhere."""
    return [result async for result in _all_of(config)]


async def _all_of(config: Config) -> AsyncIterator[CheckResult]:
    try:
        selfcheck.check(idl.built_in())
        yield ok("program binding", "the codec agrees with the IDL")
    except OracleError as error:
        yield failed("program binding", error)
    try:
        signer = await daemon.open_signer(config.operator)
        key = signer.public_key
        await signer.close()
        yield ok("operator key", str(key))
    except OracleError as error:
        key = None
        yield failed("operator key", error)
    async for result in database.checked(config):
        yield result
    pool = daemon.pool_of(config)
    try:
        async for result in cluster.checked(pool, config, key):
            yield result
    finally:
        await pool.close()
    yield await _outputs(config)
    async with survey.ground(config) as ground:
        for result in price_checks.checked(ground.rates):
            yield result
        found = await survey.everybody(ground)
    for one in found:
        yield _source(one) if one.is_source else _provider(config, one)
    outcomes = {route: outcome for one in found for route, outcome in one.quotes.items()}
    for name, model in config.models.items():
        yield _model(name, model, outcomes)
    if not config.models:
        yield CheckResult("models", Health.FAILED, "no [models.NAME] section", "Add one, with at least one route.")


async def _outputs(config: Config) -> CheckResult:
    """Where a daemon runs, the public finds it; where none does, it could listen."""
    base_uri, host, port = config.operator.base_uri, config.api.host, config.api.port
    try:
        async with httpx.AsyncClient(timeout=PROBE_SECONDS) as http:
            answer = await http.get(f"{base_uri.rstrip('/')}/livez")
        if answer.status_code in (200, 503) and "problems" in answer.json():
            return ok("outputs", f"a daemon answers at {base_uri}")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        pass
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        return CheckResult(
            "outputs",
            Health.FAILED,
            f"{host}:{port}: {error.strerror}; and no daemon answers at {base_uri}",
            "Set api.host and api.port, or operator.base_uri: verifiers look for outputs there.",
        )
    return ok("outputs", f"no daemon answers at {base_uri}; one can listen on {host}:{port}")


def _provider(config: Config, found: Survey) -> CheckResult:
    """Whether a provider answers, and at what price: a route that nobody can quote is never taken."""
    label = f"provider {found.name}"
    if found.error is not None:
        return failed(label, found.error)
    listed = {offer.model for offer in found.offers}
    told = _money(found) + _market(found)
    routed = {route.model for model in config.models.values() for route in model.routes if route.provider == found.name}
    if listed and (missing := sorted(routed - listed)):
        detail = f"does not list {', '.join(missing)}{told}"
        return CheckResult(label, Health.WARNING, detail, "Correct the route, or ask the provider.")
    return ok(label, f"answers, lists {len(listed)} {'model' if len(listed) == 1 else 'models'}{told}")


def _source(found: Survey) -> CheckResult:
    """Whether a data network answers and takes the key."""
    label = f"data network {found.name}"
    return ok(label, found.said) if found.error is None else failed(label, found.error)


def _money(found: Survey) -> str:
    if found.holdings is not None:
        nos, staked = (amount / MICRO_NOS for amount in (found.holdings.micro_nos, found.holdings.staked_micro_nos))
        return f", wallet {nos:g} NOS ({staked:g} more staked), {found.holdings.lamports / 1e9:g} SOL"
    return f", balance {found.balance.amount:g} {found.balance.unit}" if found.balance else ""


def _market(found: Survey) -> str:
    """Of a network with markets: the one that would be used now."""
    if not found.markets:
        return ""
    chosen = found.market
    if chosen is None:
        return f", none of {len(found.markets)} markets fits"
    gpus = " or ".join(chosen.gpu_types) or "an unknown GPU"
    return f", market {chosen.slug or chosen.address}: {gpus}, {chosen.usd_per_hour:.3f} USD/h, {chosen.queued} waiting"


def _model(name: str, model: ModelSettings, outcomes: Mapping[RouteSettings, Outcome]) -> CheckResult:
    """Failed where no route can be taken, a warning where one of them cannot."""
    shown, broken = [], []
    for route in model.routes:
        outcome = outcomes.get(route)
        if isinstance(outcome, Quote):
            shown.append(f"{route.provider} for {outcome.cost_lamports:,} lamports")
        else:
            shown.append(f"{route.provider} for nothing known")
            broken.append(outcome)
    detail = " then ".join(shown)
    if not broken:
        return ok(f"model {name}", detail)
    health = Health.FAILED if len(broken) == len(model.routes) else Health.WARNING
    first = next((error for error in broken if error is not None), None)
    return CheckResult(
        f"model {name}",
        health,
        f"{detail}: {first}" if first else detail,
        first.error.remedy if first else "Mend the provider.",
    )
