"""What must be right before the daemon can earn: each check says what it found and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from solders.pubkey import Pubkey

from oracle.chain.program import idl, layout, selfcheck
from oracle.chain.program.addresses import operator_address
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import DataSlice
from oracle.config import Config
from oracle.core.errors import OracleError
from oracle.pipeline import daemon
from oracle.pipeline.errors import UNCONFIGURED_QUEUE
from oracle.pipeline.queues import unconfigured_queues
from oracle.providers import registry
from oracle.store.engine import Store

LOW_LAMPORTS = 10_000_000
PROVIDER_SECONDS = 20.0


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
    for name in config.providers:
        yield await _provider(config, name)
    for name, model in config.models.items():
        yield _ok(f"model {name}", " then ".join(f"{route.provider}/{route.model}" for route in model.routes))
    if not config.models:
        yield CheckResult("models", Health.FAILED, "no [models.NAME] section", "Add one, with at least one route.")


async def _database(config: Config) -> CheckResult:
    try:
        store = await Store.open(config.database.url)
        await store.close()
    except OracleError as error:
        return _failed("database", error)
    return _ok("database", f"{config.database.url.split('@')[-1]}, schema at head")


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
                    f"queue {stranger}", Health.WARNING, UNCONFIGURED_QUEUE.title, UNCONFIGURED_QUEUE.remedy
                )
    except OracleError as error:
        yield _failed("cluster", error)


async def _queue(rpc: Client, program_id: Pubkey, address: Pubkey, key: Pubkey | None, base_uri: str) -> CheckResult:
    name = f"queue {address}"
    try:
        account = (await rpc.get_account(address)).value
        if account is None or account.owner != program_id:
            return CheckResult(name, Health.FAILED, "no such queue", "Correct operator.queues.")
        queue = layout.decode_queue(account.data)
        if key is None:
            return _ok(name, queue.name)
        registered = (await rpc.get_account(operator_address(program_id, address, key))).value
        if registered is None:
            return CheckResult(
                name,
                Health.FAILED,
                f"{key} is not an operator of it",
                "Its authority adds it with `oracle queue add-operator`.",
            )
        operator = layout.decode_operator(registered.data)
    except OracleError as error:
        return _failed(name, error)
    if operator.uri.rstrip("/") != base_uri.rstrip("/"):
        return CheckResult(
            name,
            Health.WARNING,
            f"{queue.name}: the chain says outputs are at {operator.uri}",
            f"Set operator.base_uri, or register {base_uri}: verifiers go where the chain says.",
        )
    state = "paused" if queue.paused else "open"
    return _ok(name, f"{queue.name}, {state}, claims {'required' if queue.terms.claim_required else 'not required'}")


async def _provider(config: Config, name: str) -> CheckResult:
    label = f"provider {name}"
    try:
        provider = registry.build(name, config.providers[name], rates=config.rates.of())
    except OracleError as error:
        return _failed(label, error)
    try:
        async with asyncio.timeout(PROVIDER_SECONDS):
            models = await provider.models()
            balance = await provider.balance()
    except OracleError as error:
        return _failed(label, error)
    except TimeoutError:
        return CheckResult(label, Health.FAILED, f"no answer in {PROVIDER_SECONDS:.0f} s", "Is its address right?")
    finally:
        await provider.close()
    missing = [
        route.model
        for model in config.models.values()
        for route in model.routes
        if route.provider == name and models and route.model not in models
    ]
    money = f", balance {balance.amount:g} {balance.unit}" if balance else ""
    if missing:
        return CheckResult(
            label, Health.WARNING, f"does not list {', '.join(missing)}", "Correct the route, or ask the provider."
        )
    return _ok(label, f"reachable, {len(models)} models{money}")


def _ok(name: str, detail: str) -> CheckResult:
    return CheckResult(name, Health.OK, detail)


def _failed(name: str, error: OracleError) -> CheckResult:
    return CheckResult(name, Health.FAILED, str(error), error.error.remedy)
