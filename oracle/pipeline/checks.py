"""What must be right before the daemon can earn: each check says what it found and what to do about it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import httpx
from solders.pubkey import Pubkey

from oracle.chain.program import idl, layout, selfcheck
from oracle.chain.program.addresses import operator_address
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import DataSlice
from oracle.config import Config
from oracle.config.sections import ModelSettings, RouteSettings
from oracle.config.values import without_secrets
from oracle.core.compute import Compute, Message, Quote, Task
from oracle.core.errors import OracleError
from oracle.pipeline import daemon
from oracle.pipeline.errors import UNCONFIGURED_QUEUE
from oracle.pipeline.queues import unconfigured_queues
from oracle.providers import registry
from oracle.providers.sources import registry as source_registry
from oracle.store.engine import Store

LOW_LAMPORTS: Final = 10_000_000
PROVIDER_SECONDS: Final = 20.0
PROBE_SECONDS: Final = 5.0

Outcome = Quote | OracleError


class Health(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CheckResult:
    name: str
    health: Health
    detail: str
    remedy: str = ""


async def all_of(config: Config) -> list[CheckResult]:
    """Every check, in the order in which a failure would be met. Nothing is changed anywhere."""
    return [result async for result in _all_of(config)]


async def _all_of(config: Config) -> AsyncIterator[CheckResult]:
    try:
        selfcheck.check(idl.built_in())
        yield _ok("program binding", "the codec agrees with the IDL")
    except OracleError as error:
        yield _failed("program binding", error)
    try:
        key = daemon.signer_of(config.operator).public_key
        yield _ok("operator key", str(key))
    except OracleError as error:
        key = None
        yield _failed("operator key", error)
    yield await _database(config)
    pool = daemon.pool_of(config)
    try:
        async for result in _cluster(pool.client, config, key):
            yield result
    finally:
        await pool.close()
    yield await _outputs(config)
    outcomes: dict[RouteSettings, Outcome] = {}
    for name in config.providers:
        yield await _provider(config, name, outcomes)
    for name in config.sources:
        yield await _source(config, name)
    for name, model in config.models.items():
        yield _model(name, model, outcomes)
    if not config.models:
        yield CheckResult("models", Health.FAILED, "no [models.NAME] section", "Add one, with at least one route.")


async def _database(config: Config) -> CheckResult:
    try:
        store = await Store.open(config.database.url)
        await store.close()
    except OracleError as error:
        return _failed("database", error)
    return _ok("database", f"{without_secrets(config.database.url)}, schema up to date")


async def _cluster(rpc: Client, config: Config, key: Pubkey | None) -> AsyncIterator[CheckResult]:
    program_id = daemon.program_of(config)
    try:
        genesis, slot = await rpc.get_genesis_hash(), await rpc.get_slot()
    except OracleError as error:
        yield _failed("cluster", error)
        return
    yield _ok("cluster", f"{rpc.name}, slot {slot}, genesis {genesis}")
    try:
        program = (await rpc.get_account(program_id, data_slice=DataSlice(0, 0))).value
        if program is None or not program.executable:
            yield CheckResult(
                "program",
                Health.FAILED,
                f"{program_id} is not on this cluster",
                "Deploy it, or set cluster.program_id.",
            )
            return
        yield _ok("program", str(program_id))
        if key is not None:
            balance = (await rpc.get_balance(key)).value
            low = balance < LOW_LAMPORTS
            yield CheckResult(
                "operator balance",
                Health.WARNING if low else Health.OK,
                f"{balance / 1e9:.6f} SOL",
                f"Fund {key}: every settlement costs 5,000 lamports and more." if low else "",
            )
        if not config.operator.queues:
            yield CheckResult("queues", Health.FAILED, "none configured", "Set operator.queues; `oracle queue create`.")
        for queue in config.operator.queues:
            yield await _queue(rpc, program_id, Pubkey.from_string(queue), key, config.operator.base_uri)
        if key is not None:
            for stranger in await unconfigured_queues(rpc, program_id, key, config):
                yield CheckResult(
                    "queue", Health.WARNING, f"{stranger}: {UNCONFIGURED_QUEUE.title}", UNCONFIGURED_QUEUE.remedy
                )
    except OracleError as error:
        yield _failed("cluster", error)


async def _queue(rpc: Client, program_id: Pubkey, address: Pubkey, key: Pubkey | None, base_uri: str) -> CheckResult:
    name = "queue"
    try:
        account = (await rpc.get_account(address)).value
        if account is None or account.owner != program_id:
            return CheckResult(name, Health.FAILED, f"{address} is no queue", "Correct operator.queues.")
        queue = layout.decode_queue(account.data)
        if key is None:
            return _ok(name, f"{address} ({queue.name})")
        registered = (await rpc.get_account(operator_address(program_id, address, key))).value
        if registered is None:
            return CheckResult(
                name,
                Health.FAILED,
                f"{address} ({queue.name}): {key} is not an operator of it",
                f"Its authority, {queue.authority}, adds it with `oracle queue add-operator`.",
            )
        operator = layout.decode_operator(registered.data)
    except OracleError as error:
        return _failed(name, error)
    if operator.uri.rstrip("/") != base_uri.rstrip("/"):
        return CheckResult(
            name,
            Health.WARNING,
            f"{address} ({queue.name}): the chain says outputs are at {operator.uri}",
            f"Set operator.base_uri, or register {base_uri}: verifiers go where the chain says.",
        )
    claims = "required" if queue.terms.claim_required else "not required"
    state = f"{address} ({queue.name}), claims {claims}, fee floor {queue.terms.fee_floor_lamports:,} lamports"
    if queue.paused:
        return CheckResult(
            name, Health.WARNING, f"{state}, paused", "Its authority resumes it with `oracle queue resume`."
        )
    return _ok(name, state)


async def _outputs(config: Config) -> CheckResult:
    """Where a daemon runs, the public finds it; where none does, it could listen."""
    base_uri, host, port = config.operator.base_uri, config.api.host, config.api.port
    try:
        async with httpx.AsyncClient(timeout=PROBE_SECONDS) as http:
            answer = await http.get(f"{base_uri.rstrip('/')}/livez")
        if answer.status_code in (200, 503) and "problems" in answer.json():
            return _ok("outputs", f"a daemon answers at {base_uri}")
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
    return _ok("outputs", f"no daemon answers at {base_uri}; one can listen on {host}:{port}")


async def _provider(config: Config, name: str, outcomes: dict[RouteSettings, Outcome]) -> CheckResult:
    """Whether a provider answers, and at what price: a route that nobody can quote is never taken."""
    label = f"provider {name}"
    routes = [route for model in config.models.values() for route in model.routes if route.provider == name]
    try:
        provider = registry.build(name, config.providers[name], rates=config.rates.of())
    except OracleError as error:
        outcomes.update(dict.fromkeys(routes, error))
        return _failed(label, error)
    try:
        async with asyncio.timeout(PROVIDER_SECONDS):
            models = await provider.models()
            balance = await provider.balance()
            for route in routes:
                outcomes[route] = await _quote(provider, route)
    except OracleError as error:
        return _failed(label, error)
    except TimeoutError:
        return CheckResult(label, Health.FAILED, f"no answer in {PROVIDER_SECONDS:.0f} s", "Is its address right?")
    finally:
        await provider.close()
    money = f", balance {balance.amount:g} {balance.unit}" if balance else ""
    if missing := sorted({route.model for route in routes if models and route.model not in models}):
        detail = f"does not list {', '.join(missing)}{money}"
        return CheckResult(label, Health.WARNING, detail, "Correct the route, or ask the provider.")
    return _ok(label, f"answers, lists {len(models)} models{money}")


async def _source(config: Config, name: str) -> CheckResult:
    """Whether a data network answers and takes the key. Buys nothing."""
    label = f"data network {name}"
    try:
        source = source_registry.build(name, config.sources[name], rates=config.rates.of())
    except OracleError as error:
        return _failed(label, error)
    try:
        async with asyncio.timeout(PROVIDER_SECONDS):
            return _ok(label, await source.probe())
    except OracleError as error:
        return _failed(label, error)
    except TimeoutError:
        return CheckResult(label, Health.FAILED, f"no answer in {PROVIDER_SECONDS:.0f} s", "Is its address right?")
    finally:
        await source.close()


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
        return _ok(f"model {name}", detail)
    health = Health.FAILED if len(broken) == len(model.routes) else Health.WARNING
    first = next((error for error in broken if error is not None), None)
    return CheckResult(
        f"model {name}",
        health,
        f"{detail}: {first}" if first else detail,
        first.error.remedy if first else "Mend the provider.",
    )


def _ok(name: str, detail: str) -> CheckResult:
    return CheckResult(name, Health.OK, detail)


def _failed(name: str, error: OracleError) -> CheckResult:
    return CheckResult(name, Health.FAILED, str(error), error.error.remedy)
