"""The daemon: put together from a configuration, checked, run, and taken apart again."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from solana.rpc.commitment import Processed
from solders.hash import Hash
from solders.pubkey import Pubkey

from oracle.chain import signer as signers
from oracle.chain.clock import SlotClock
from oracle.chain.program import idl, layout, selfcheck
from oracle.chain.rpc.address import address
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.limits import Limits
from oracle.chain.rpc.pool import EndpointConfig, Pool
from oracle.chain.signer import Closable, KeypairSigner, Signer
from oracle.chain.signing.aws_kms import AwsKms
from oracle.chain.signing.gcp_kms import GcpKms
from oracle.chain.signing.remote import RemoteSigner
from oracle.chain.signing.socket_client import SigningSocket
from oracle.chain.watcher import Layout, Watcher
from oracle.chain.ws import PubSub, SlotNotice, websocket_url
from oracle.config import Config, Operator
from oracle.core.compute import Tended
from oracle.core.errors import OracleError
from oracle.core.purchase import ChainAccess
from oracle.pipeline import (
    admit,
    budget,
    charter,
    follow,
    housekeeping,
    intake,
    poll,
    prices,
    relay,
    settle,
    submit,
    treasury,
    worker,
)
from oracle.pipeline.chain_view import RpcView
from oracle.pipeline.clock import Clock
from oracle.pipeline.context import Bells, Context
from oracle.pipeline.errors import UNCONFIGURED_QUEUE, WRONG_CLUSTER
from oracle.pipeline.fees import Fees
from oracle.pipeline.orders import Orders
from oracle.pipeline.purchases import Purchases
from oracle.pipeline.queues import unconfigured_queues
from oracle.pipeline.supervisor import supervise
from oracle.providers import registry
from oracle.providers.sources import registry as source_registry
from oracle.store import journal, leases, lock, marks, migrate, requests
from oracle.store.engine import Store
from oracle.store.urls import is_sqlite, parse

log = structlog.get_logger(__name__)

SLOT_SECONDS = 2.0
"""How often the slot is asked for, besides the notices of the WebSocket."""

SIGNER_SECONDS = 15.0
"""How often the signer is asked whether it can sign."""

PATIENCE_SECONDS = 45.0
"""How long a write waits for room on the disk, or for the database: shorter than any lease, so that what was held still
is, and short enough that no loop is taken for a stuck one."""


@asynccontextmanager
async def assembled(config: Config, clock: Clock | None = None) -> AsyncIterator[Daemon]:
    """A daemon that holds its locks, has its schema at head and knows its cluster. Raises what speaks against it."""
    clock = clock or Clock()
    selfcheck.check(idl.built_in())
    async with AsyncExitStack() as stack:
        key = await open_signer(config.operator)
        stack.push_async_callback(key.close)
        held = lock.hold_database(config.database.url)
        if held is not None:
            stack.callback(held.release)
        if await asyncio.to_thread(migrate.current, config.database.url) is None:
            # A new database needs no ceremony; one with a schema is changed only by `oracle db upgrade`.
            await asyncio.to_thread(migrate.upgrade, config.database.url)
        store = await Store.open(config.database.url, patience_seconds=PATIENCE_SECONDS)
        stack.push_async_callback(store.close)
        await hold_key(stack, key.public_key, store, is_alone=held is not None)
        signer = charter.guarded(key, charter.operator_charter(config), config.spending, store, clock)
        await store.write(lambda c: requests.adopt(c, str(signer.public_key)))
        if held is None:
            await relay.check_time(store, clock)
        now_ms = clock.now_ms()
        if held is not None and (left := await store.write(lambda c: leases.take_over(c, now_ms))):
            log.info("took over from a dead daemon", rows=left)
        await store.write(lambda c: budget.reopen(c, config, now_ms))
        pool = pool_of(config)
        stack.push_async_callback(pool.close)
        await pool.check()
        await same_cluster(store, pool.client)
        slots = SlotClock()
        slots.seed(await pool.client.get_recent_performance_samples())
        slots.observe(await pool.client.get_slot(), clock.monotonic())
        bells = Bells()
        fees = Fees(pool.client, signer.public_key, config.settlement, clock)
        instance = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        chain = chain_access(config, store, pool.client, signer, fees=fees, bells=bells, clock=clock, instance=instance)
        rates = prices.live(config.rates, clock.monotonic)
        stack.push_async_callback(rates.close)
        providers = {
            name: registry.build(name, settings, rates=rates, chain=chain)
            for name, settings in config.providers.items()
        }
        for provider in providers.values():
            stack.push_async_callback(provider.close)
        sources = {
            name: source_registry.build(name, settings, rates=rates) for name, settings in config.sources.items()
        }
        for source in sources.values():
            stack.push_async_callback(source.close)
        context = Context(
            config=config,
            store=store,
            rpc=pool.client,
            program_id=charter.program_of(config),
            signer=signer,
            queues=tuple(Pubkey.from_string(queue) for queue in config.operator.queues),
            providers=providers,
            sources=sources,
            routes=config.routes(),
            slots=slots,
            fees=fees,
            rates=rates,
            instance=instance,
            clock=clock,
            bells=bells,
            pool=pool,
        )
        yield Daemon(context, pool)


def chain_access(
    config: Config,
    store: Store,
    rpc: Client,
    signer: Signer,
    *,
    fees: Fees,
    bells: Bells,
    clock: Clock,
    instance: str,
) -> ChainAccess:
    """What providers that are paid on chain are given."""
    orders = Orders(rpc, signer, RpcView(rpc), fees, config.settlement, clock)
    return ChainAccess(Purchases(store, orders, bells, instance), orders.view)


class Daemon:
    """The loops over one context. `run` returns after `context.stopping` is set and what was begun has ended."""

    def __init__(self, context: Context, pool: Pool) -> None:
        self.context = context
        self.pool = pool
        cluster = context.config.cluster
        urls = [cluster.websocket.get_secret_value()] if cluster.websocket else []
        urls += [websocket_url(url.get_secret_value()) for url in cluster.rpc if not cluster.websocket]
        self.pubsub = PubSub(urls)
        self.watcher = Watcher(
            context.rpc,
            self.pubsub,
            program=context.program_id,
            queues=context.queues,
            layout=Layout(layout.REQUEST_DISCRIMINATOR),
            known=lambda: intake.known(context),
            scan_seconds=cluster.scan_interval_seconds,
            clock=context.slots,
            stats=context.sight,
        )

    def stop(self) -> None:
        """Begin nothing more. Safe in a signal handler of the event loop."""
        self.context.stopping.set()
        self.context.bells.ring_all()

    async def run(self) -> None:
        context = self.context
        loops = {
            "admit": lambda: worker.run(context, admit.STATES, admit.admit, context.to_admit),
            "submit": lambda: worker.run(
                context,
                submit.STATES,
                submit.submit,
                context.to_buy,
                is_paused=lambda: not context.may_buy,
            ),
            "poll": lambda: poll.run(context),
            "prepare": lambda: settle.prepare(context),
            "send": lambda: settle.send(context),
            "follow": lambda: follow.run(context),
            "housekeeping": lambda: housekeeping.run(context),
        }
        feeds = {
            "pool": self.pool.run,
            "pubsub": self.pubsub.run,
            "slots": self.track_slots,
            "slot-poll": self.ask_slot,
            "signer": self.ask_signer,
            "treasury": lambda: treasury.run(context),
            "prices": lambda: prices.run(context),
            "intake": lambda: intake.run(context, self.watcher.watch()),
            **{f"tend {name}": held.tend for name, held in context.providers.items() if isinstance(held, Tended)},
        }
        url = context.config.database.url
        if not is_sqlite(parse(url)):
            feeds["relay"] = lambda: relay.run(url, context.operator, context.bells, context.clock)
        await self.note_unconfigured_queues()
        log.info("daemon started", operator=str(context.signer.public_key), queues=len(context.queues))
        await supervise(context, loops, feeds)
        try:
            # Calls that ran here end with this process: who looks after them next need not wait for a lease to lapse.
            await context.store.write(lambda c: requests.let_go(c, context.instance))
        except OracleError as error:
            log.warning("rows not let go", code=error.code, detail=error.detail)
        log.info("daemon stopped")

    async def note_unconfigured_queues(self) -> None:
        """A stranger's queue may name our key. Its requests are not ours to answer, but somebody should know."""
        context = self.context
        try:
            strangers = await unconfigured_queues(
                context.rpc, context.program_id, context.signer.public_key, context.config
            )
        except OracleError as error:
            log.warning("queues not checked", code=error.code, detail=error.detail)
            return
        for queue in strangers:
            log.warning("queue without configuration", code=UNCONFIGURED_QUEUE.code, queue=str(queue))
            now_ms = context.clock.now_ms()
            await context.store.write(
                lambda c, queue=queue, now_ms=now_ms: journal.note_once(  # type: ignore[misc]
                    c, None, UNCONFIGURED_QUEUE.code, str(queue), now_ms=now_ms, detail={"queue": str(queue)}
                )
            )

    async def track_slots(self) -> None:
        async for notice in self.pubsub.slots():
            if isinstance(notice, SlotNotice):
                self.context.slots.observe(notice.slot, self.context.clock.monotonic())

    async def ask_slot(self) -> None:
        while True:
            try:
                slot = await self.context.rpc.get_slot(Processed)
                self.context.slots.observe(slot, self.context.clock.monotonic())
            except OracleError as error:
                log.info("slot unknown", code=error.code, detail=error.detail)
            await asyncio.sleep(SLOT_SECONDS)

    async def ask_signer(self) -> None:
        """One that was in trouble is asked whether it still is, so that `/readyz` tells the truth of an idle daemon."""
        while True:
            try:
                await self.context.signer.ready()
            except OracleError as error:
                log.warning("signer not ready", code=error.code, detail=error.detail)
            await asyncio.sleep(SIGNER_SECONDS)


async def hold_key(stack: AsyncExitStack, key: Pubkey, store: Store, *, is_alone: bool) -> None:
    """One database a key on this machine: daemons on two would sign for the same requests.

    On a file that is one daemon; on PostgreSQL they may be many, who share the work by leases.
    """
    name = f"operator-{key}"
    if is_alone:
        stack.callback(lock.hold(name).release)
        return
    own = secrets.token_hex(16)
    database = await store.write(lambda c: marks.keep(c, "database", own))
    stack.callback((await asyncio.to_thread(lock.share, name, database)).release)


async def same_cluster(store: Store, rpc: Client) -> None:
    """A database is of one cluster for ever: on another, finalized reads would prove every request gone (law 1)."""
    genesis = str(await rpc.get_genesis_hash())
    known = await store.write(lambda c: marks.keep(c, "genesis", genesis))
    if known != genesis:
        raise WRONG_CLUSTER(f"database {known}, cluster {genesis}")


async def open_signer(operator: Operator) -> Closable:
    """The operator's key, wherever it is kept; close it. Raises ORC-SIGNER-NNN."""
    if operator.aws_kms_key is not None:
        return await RemoteSigner.open(AwsKms(operator.aws_kms_key))
    if operator.gcp_kms_key is not None:
        return await RemoteSigner.open(GcpKms(operator.gcp_kms_key, operator.gcp_kms_endpoint.get_secret_value()))
    if operator.socket is not None:
        return await RemoteSigner.open(SigningSocket(operator.socket))
    return key_of(operator)


def key_of(operator: Operator) -> KeypairSigner:
    """The operator's key, where this process reads it. Raises ORC-SIGNER-001 … 003."""
    if operator.keypair is not None:
        return signers.from_file(operator.keypair)
    if operator.keypair_env is not None:
        return signers.from_environment(operator.keypair_env)
    if operator.keypair_credential is not None:
        return signers.from_credential(operator.keypair_credential)
    raise signers.KEY_MISSING("neither operator.keypair nor any of its siblings is set")


def pool_of(config: Config) -> Pool:
    cluster = config.cluster
    limits = Limits(cluster.requests_per_10_seconds, cluster.requests_per_method_per_10_seconds, 10.0)
    endpoints = [
        EndpointConfig(url.get_secret_value(), limits=_unless_local(url.get_secret_value(), limits))
        for url in cluster.rpc
    ]
    genesis = None if cluster.genesis_hash is None else Hash.from_string(cluster.genesis_hash)
    return Pool(endpoints, genesis=genesis)


def _unless_local(url: str, limits: Limits) -> Limits | None:
    """A chain on this machine is nobody's shared endpoint: the pool calls it freely."""
    return None if address(url).is_loopback else limits
