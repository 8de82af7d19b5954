"""A host that works for the queues on chain: takes jobs, runs them, pins what they left and ends them on chain (§2.5).

It knows its jobs by their run accounts, so one that is started again goes on with what it had. Its transactions are a
host's own: `work`, `finish`, `quit`, and `complete` for a job that its owner has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

import orjson
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain.rpc.pool import connect
from oracle.chain.rpc.types import Memcmp
from oracle.client.transact import transact
from oracle.core.errors import OracleError
from oracle.localnet.emulators.nosana import index, jobs_program
from oracle.localnet.emulators.nosana.definition import validate
from oracle.localnet.emulators.nosana.flow import BLANK, Ending, Flow, Mishap, validation_error
from oracle.localnet.emulators.nosana.host import ENDED_EARLY, JobFault
from oracle.localnet.emulators.nosana.ipfs import cid_of_digest, digest_of
from oracle.localnet.emulators.nosana.jobs_program import JobAccount, MarketAccount, QueueType, RunAccount
from oracle.localnet.emulators.nosana.markets import Market
from oracle.localnet.emulators.nosana.world import World

HOST_KEY: Final = Keypair.from_seed(bytes(range(96, 128)))
"""The host of §7; its address is `host.HOST`."""

_NODE_OFFSET: Final = 40
_NOTHING: Final = Pubkey.default()


class ChainHost:
    """One key that takes as many jobs of each market at once as the market has hosts.

    With `waits` it stands in the queue of a market where no job waits, so that the next is handed to it as it is
    listed; else it comes by every `poll_seconds`. Give the key lamports for the rent of run accounts and for fees.
    """

    def __init__(
        self, world: World, rpc_url: str, key: Keypair = HOST_KEY, *, waits: bool = False, poll_seconds: float = 0.1
    ) -> None:
        self._world = world
        self._rpc_url = rpc_url
        self._key = key
        self._waits = waits
        self._poll_seconds = poll_seconds
        self._faults: dict[Pubkey, Mapping[str, Any]] = {}
        self._first_seen: dict[Pubkey, float] = {}
        self._tasks: dict[Pubkey, asyncio.Task[None]] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._rpc = connect(self._rpc_url)
        self._loop = asyncio.create_task(self._live())

    async def close(self) -> None:
        tasks = [*self._tasks.values(), *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._rpc.close()

    async def _live(self) -> None:
        host = self._key.pubkey()
        has_account = False
        while True:
            # Whatever an endpoint refuses now is tried again: a host is patient.
            with contextlib.suppress(OracleError):
                if not has_account:
                    await self._send(jobs_program.create_token_account(host, host))
                    has_account = True
                await self._turn()
            await asyncio.sleep(self._poll_seconds)

    async def _turn(self) -> None:
        filters = [Memcmp(0, jobs_program.RUN), Memcmp(_NODE_OFFSET, bytes(self._key.pubkey()))]
        held = (await self._rpc.get_program_accounts(jobs_program.PROGRAM, filters)).value
        for address, data in zip(held.addresses, held.data, strict=True):
            run = Pubkey.from_string(address)
            if run not in self._tasks:
                task = self._tasks[run] = asyncio.create_task(self._work_on(run, jobs_program.read_run(data)))
                task.add_done_callback(lambda done, run=run: self._forget(run, done))  # type: ignore[misc]
        for market in self._world.markets:
            await self._look_for_work(market)

    def _forget(self, run: Pubkey, task: asyncio.Task[None]) -> None:
        """A run whose work has failed is found again in the next turn, and begun anew."""
        if self._tasks.get(run) is task:
            del self._tasks[run]

    async def _look_for_work(self, market: Market) -> None:
        address = Pubkey.from_string(market.address)
        account = (await self._rpc.get_account(address)).value
        if account is None:
            return
        state = jobs_program.read_market(account.data)
        if self._wants(market, state):
            accounts = {
                "run": (run := Keypair()).pubkey(),
                "market": address,
                "payer": self._key.pubkey(),
                "stake": _NOTHING,
                "nft": _NOTHING,
                "metadata": _NOTHING,
                "authority": self._key.pubkey(),
            }
            await self._send(jobs_program.instruction("work", accounts), run)

    def _wants(self, market: Market, state: MarketAccount) -> bool:
        if state.queue_type is not QueueType.JOBS:
            return self._waits and self._key.pubkey() not in state.waiting
        fault = self._fault_of(market, state.waiting[0])
        slow = fault["seconds"] if fault.get("kind") == JobFault.SLOW_START else 0
        since = self._first_seen.setdefault(state.waiting[0], self._world.now())
        return (
            fault.get("kind") != JobFault.NEVER_STARTS
            and len(self._tasks) < market.hosts
            and self._world.now() - since >= self._world.timings.queue_seconds + slow
        )

    def _fault_of(self, market: Market, job: Pubkey) -> Mapping[str, Any]:
        """What is to befall a job, asked once. The subject is `<market slug> chain <job>`."""
        if job not in self._faults:
            fault = self._world.faults.take("job", f"{market.slug} chain {job}")
            names = ("kind", "seconds", "text", "exit_code")
            self._faults[job] = {} if fault is None else {name: getattr(fault, name) for name in names}
        return self._faults[job]

    async def _work_on(self, address: Pubkey, run: RunAccount) -> None:
        with contextlib.suppress(OracleError):
            account = (await self._rpc.get_account(run.job)).value
            if account is None:
                return
            job = jobs_program.read_job(account.data)
            market = self._world.market(str(job.market))
            assert market is not None
            index.taken(self._world, market, run, job)
            await self._do(address, run, job, self._fault_of(market, run.job))

    async def _do(self, address: Pubkey, run: RunAccount, job: JobAccount, fault: Mapping[str, Any]) -> None:
        world, kind = self._world, fault.get("kind")
        definition = self._definition(job)
        if definition is None or kind == JobFault.HOST_QUITS:
            # What a host does that cannot read the definition is unverified; here it gives up.
            await self._send(self._ending("quit", address, run, job))
            index.ended(world, run.job, None, quit=True)
        elif kind == JobFault.NEVER_FINISHES:
            await asyncio.Event().wait()
        elif kind == JobFault.BLANK_RESULT:
            await self._finish(address, run, job, BLANK)
        elif refusals := validate(definition):
            await self._finish(address, run, job, validation_error(refusals, world.now()))
        else:
            slow = fault["seconds"] if kind == JobFault.SLOW_RUN else 0
            flow = self._flow(definition, fault)
            work = asyncio.create_task(self._run(flow, world.timings.start_seconds + slow))
            try:
                ending = await self._watch(address, run, flow, work, kind)
            finally:
                work.cancel()
                await asyncio.wait({work})
            if ending is Ending.STOPPED:
                await self._complete(run, flow.end(ending))
            else:
                await self._finish(address, run, job, flow.document() if ending is None else flow.end(ending))

    async def _run(self, flow: Flow, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await flow.run()

    async def _watch(
        self, address: Pubkey, run: RunAccount, flow: Flow, work: asyncio.Task[None], kind: str | None
    ) -> Ending | None:
        """Waits for the work, for the job's deadline, or for its owner, who ends it by closing the run."""
        if kind in ENDED_EARLY:
            await flow.begun.wait()
            return ENDED_EARLY[kind]
        while True:
            done, _ = await asyncio.wait({work}, timeout=self._poll_seconds)
            if done:
                work.result()
                return None
            held, account = (await self._rpc.get_multiple_accounts([address, run.job])).value
            if held is None:
                return Ending.STOPPED
            if account is not None:
                timeout = jobs_program.read_job(account.data).timeout
                if self._world.now() > run.time + timeout:
                    return Ending.EXPIRED

    def _flow(self, definition: dict[str, Any], fault: Mapping[str, Any]) -> Flow:
        world, kind = self._world, fault.get("kind")
        mishap = Mishap.HANGS if kind in ENDED_EARLY else Mishap(kind) if kind in set(Mishap) else None
        return Flow(
            definition,
            world.models,
            world.now,
            world.entropy(6).hex(),
            pace=world.timings.pace,
            mishap=mishap,
            stderr=fault.get("text", ""),
            exit_code=fault.get("exit_code", 1),
        )

    def _definition(self, job: JobAccount) -> dict[str, Any] | None:
        document = self._world.pinned(cid_of_digest(job.ipfs_job))
        try:
            return None if document is None else orjson.loads(document)
        except orjson.JSONDecodeError:
            return None

    async def _finish(self, address: Pubkey, run: RunAccount, job: JobAccount, document: Mapping[str, Any]) -> None:
        result = self._world.pin(orjson.dumps(document))
        await self._send(self._ending("finish", address, run, job, ipfs_result=digest_of(result)))
        index.ended(self._world, run.job, result)

    async def _complete(self, run: RunAccount, document: Mapping[str, Any]) -> None:
        await asyncio.sleep(self._world.timings.stop_lag_seconds)
        result = self._world.pin(orjson.dumps(document))
        accounts = {"job": run.job, "authority": self._key.pubkey()}
        await self._send(jobs_program.instruction("complete", accounts, ipfs_result=digest_of(result)))
        index.ended(self._world, run.job, result)

    def _ending(self, name: str, address: Pubkey, run: RunAccount, job: JobAccount, **arguments: Any) -> Instruction:
        accounts = {
            "job": run.job,
            "run": address,
            "market": job.market,
            "vault": jobs_program.vault_of(job.market)[0],
            "deposit": jobs_program.nos_account(job.payer),
            "user": jobs_program.nos_account(self._key.pubkey()),
            "payer": run.payer,
            "payer_run": run.payer,
            "payer_job": job.payer,
            "authority": self._key.pubkey(),
        }
        return jobs_program.instruction(name, accounts, **arguments)

    async def _send(self, instruction: Instruction, *others: Keypair) -> None:
        await transact(self._rpc, [instruction], [self._key, *others], unit_limit=200_000)
