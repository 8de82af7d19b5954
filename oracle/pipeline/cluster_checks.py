"""What must be right on chain: endpoints, program, money, queues, and our place in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from solders.pubkey import Pubkey

from oracle.chain.program import layout
from oracle.chain.program.addresses import operator_address
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import Pool
from oracle.chain.rpc.types import DataSlice
from oracle.config import Config
from oracle.core import endpoints
from oracle.core.errors import OracleError
from oracle.pipeline.charter import program_of
from oracle.pipeline.errors import UNCONFIGURED_QUEUE
from oracle.pipeline.findings import CheckResult, Health, failed, ok
from oracle.pipeline.queues import unconfigured_queues

LOW_LAMPORTS: Final = 10_000_000


async def checked(pool: Pool, config: Config, key: Pubkey | None) -> AsyncIterator[CheckResult]:
    """The checks that need the cluster; of a cluster that does not answer only that it does not."""
    await pool.check()
    results = [_endpoint(*each) for each in zip(pool.view(), pool.health(), strict=True)]
    if all(result.health is Health.FAILED for result in results):
        for result in results:
            yield result
        return
    for result in results:
        # One that does not answer beside one that does stops nothing.
        health = Health.WARNING if result.health is Health.FAILED else result.health
        yield CheckResult(result.name, health, result.detail, result.remedy)
    async for result in _on_chain(pool.client, config, key):
        yield result


def _endpoint(state: endpoints.Endpoint, health: endpoints.Health) -> CheckResult:
    match health:
        case endpoints.Health.ALIVE:
            return ok("cluster", f"{state.name}, slot {state.slot}")
        case endpoints.Health.LAGGING:
            remedy = "It is behind the others: use another endpoint if it stays so."
            return CheckResult("cluster", Health.WARNING, f"{state.name} lags at slot {state.slot}", remedy)
        case endpoints.Health.WRONG_GENESIS:
            remedy = "Correct cluster.rpc, or cluster.genesis_hash."
            return CheckResult("cluster", Health.FAILED, f"{state.name} serves another cluster", remedy)
        case endpoints.Health.RATE_LIMITED:
            remedy = "Lower cluster.requests_per_10_seconds, or use another endpoint."
            return CheckResult("cluster", Health.WARNING, f"{state.name} refuses calls for their rate", remedy)
        case _:
            remedy = "Is its address in cluster.rpc right, with its API key?"
            return CheckResult("cluster", Health.FAILED, f"{state.name} does not answer", remedy)


async def _on_chain(rpc: Client, config: Config, key: Pubkey | None) -> AsyncIterator[CheckResult]:
    program_id = program_of(config)
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
        yield ok("program", str(program_id))
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
        yield failed("cluster", error)


async def _queue(rpc: Client, program_id: Pubkey, address: Pubkey, key: Pubkey | None, base_uri: str) -> CheckResult:
    name = "queue"
    try:
        account = (await rpc.get_account(address)).value
        if account is None or account.owner != program_id:
            return CheckResult(name, Health.FAILED, f"{address} is no queue", "Correct operator.queues.")
        queue = layout.decode_queue(account.data)
        if key is None:
            return ok(name, f"{address} ({queue.name})")
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
        return failed(name, error)
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
    return ok(name, state)
