"""What must be right before the daemon can earn: each check says what it found and what to do about it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Final

import httpx

from oracle.chain.program import idl, selfcheck
from oracle.config import Config
from oracle.config.sections import ModelSettings, RouteSettings
from oracle.core.compute import Compute, Message, Quote, Task
from oracle.core.errors import OracleError
from oracle.core.purchase import ChainAccess
from oracle.pipeline import cluster_checks as cluster
from oracle.pipeline import daemon, price_checks
from oracle.pipeline import database_checks as database
from oracle.pipeline.clock import Clock
from oracle.pipeline.context import Bells
from oracle.pipeline.fees import Fees
from oracle.pipeline.findings import CheckResult, Health, failed, ok
from oracle.providers import registry
from oracle.providers.nosana.compute import NosanaCompute
from oracle.providers.nosana.landlord import NosanaLandlord
from oracle.providers.nosana.onchain import NosanaOnChain
from oracle.providers.nosana.program import MICRO_NOS
from oracle.providers.pricing import Rates
from oracle.providers.rented.compute import RentedCompute
from oracle.providers.sources import registry as source_registry
from oracle.store.engine import Store

PROVIDER_SECONDS: Final = 20.0
PROBE_SECONDS: Final = 5.0

Outcome = Quote | OracleError


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
    outcomes: dict[RouteSettings, Outcome] = {}
    async with AsyncExitStack() as stack:
        rates = await stack.enter_async_context(price_checks.read_once(config))
        for result in price_checks.checked(rates):
            yield result
        chain = await _chain(stack, config)
        for name in config.providers:
            yield await _provider(config, name, outcomes, chain, rates)
        for name in config.sources:
            yield await _source(config, name, rates)
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


async def _chain(stack: AsyncExitStack, config: Config) -> ChainAccess | None:
    """What providers that are paid on chain are given; None where key, database or cluster are not there."""
    try:
        signer = await daemon.open_signer(config.operator)
        stack.push_async_callback(signer.close)
        store = await Store.open(config.database.url)
        stack.push_async_callback(store.close)
        pool = daemon.pool_of(config)
        stack.push_async_callback(pool.close)
        await pool.check()
    except OracleError:
        return None
    clock = Clock()
    fees = Fees(pool.client, signer.public_key, config.settlement, clock)
    return daemon.chain_access(
        config, store, pool.client, signer, fees=fees, bells=Bells(), clock=clock, instance="doctor"
    )


async def _provider(
    config: Config, name: str, outcomes: dict[RouteSettings, Outcome], chain: ChainAccess | None, rates: Rates
) -> CheckResult:
    """Whether a provider answers, and at what price: a route that nobody can quote is never taken."""
    label = f"provider {name}"
    routes = [route for model in config.models.values() for route in model.routes if route.provider == name]
    try:
        provider = registry.build(name, config.providers[name], rates=rates, chain=chain)
    except OracleError as error:
        outcomes.update(dict.fromkeys(routes, error))
        return failed(label, error)
    try:
        async with asyncio.timeout(PROVIDER_SECONDS):
            models = await provider.models()
            money = await _money(provider) + await _market(provider)
            for route in routes:
                outcomes[route] = await _quote(provider, route)
    except OracleError as error:
        return failed(label, error)
    except TimeoutError:
        return CheckResult(label, Health.FAILED, f"no answer in {PROVIDER_SECONDS:.0f} s", "Is its address right?")
    finally:
        await provider.close()
    if missing := sorted({route.model for route in routes if models and route.model not in models}):
        detail = f"does not list {', '.join(missing)}{money}"
        return CheckResult(label, Health.WARNING, detail, "Correct the route, or ask the provider.")
    return ok(label, f"answers, lists {len(models)} models{money}")


async def _source(config: Config, name: str, rates: Rates) -> CheckResult:
    """Whether a data network answers and takes the key. Buys nothing."""
    label = f"data network {name}"
    try:
        source = source_registry.build(name, config.sources[name], rates=rates)
    except OracleError as error:
        return failed(label, error)
    try:
        async with asyncio.timeout(PROVIDER_SECONDS):
            return ok(label, await source.probe())
    except OracleError as error:
        return failed(label, error)
    except TimeoutError:
        return CheckResult(label, Health.FAILED, f"no answer in {PROVIDER_SECONDS:.0f} s", "Is its address right?")
    finally:
        await source.close()


async def _money(provider: Compute) -> str:
    if isinstance(provider, NosanaOnChain):
        held = await provider.holdings()
        nos, staked = (amount / MICRO_NOS for amount in (held.micro_nos, held.staked_micro_nos))
        return f", wallet {nos:g} NOS ({staked:g} more staked), {held.lamports / 1e9:g} SOL"
    balance = await provider.balance()
    return f", balance {balance.amount:g} {balance.unit}" if balance else ""


async def _market(provider: Compute) -> str:
    """Of a network with markets: the one that would be used now."""
    seller = provider.landlord if isinstance(provider, RentedCompute) else provider
    if not isinstance(seller, NosanaCompute | NosanaOnChain | NosanaLandlord):
        return ""
    listed = await seller.markets()
    chosen = next((one for one in listed if one.is_chosen), None)
    if chosen is None:
        return f", none of {len(listed)} markets fits"
    gpus = " or ".join(chosen.gpu_types) or "an unknown GPU"
    return f", market {chosen.slug or chosen.address}: {gpus}, {chosen.usd_per_hour:.3f} USD/h, {chosen.queued} waiting"


async def _quote(provider: Compute, route: RouteSettings) -> Outcome:
    task = Task(route.model, (Message("user", "Is this thing on?"),), max_output_tokens=256)
    try:
        return await provider.quote(task)
    except OracleError as error:
        return error


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
