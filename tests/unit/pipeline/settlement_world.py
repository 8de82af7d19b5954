"""The real settlement manager on a simulated cluster, in memory, under a driven clock, killed and restarted at will.

A script of bytes decides everything that is left to chance; a byte of zero, and the end of the script, mean that
nothing bad happens, so that a failing history shrinks to the few things that matter.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from simulated_chain import Chain, Life
from simulated_program import (
    PAYER,
    PROGRAM,
    QUEUE,
    RIVAL,
    Refused,
    RequestAccount,
    State,
    Transaction,
    cancelled,
    claimed,
    parse,
)
from simulated_rpc import Manners, SimulatedClient
from solana.rpc.commitment import Confirmed, Finalized
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

from oracle.chain.clock import SlotClock
from oracle.chain.program.layout import decode_header
from oracle.chain.rpc.types import PerformanceSample
from oracle.chain.sightings import Sighting, Vanished
from oracle.chain.signer import KeypairSigner
from oracle.config import parse as parse_config
from oracle.core import lifecycle
from oracle.core.errors import OracleError
from oracle.core.request import Reason, RequestKey, Status
from oracle.pipeline import follow, housekeeping, intake, prices, settle, submit, worker
from oracle.pipeline.clock import Clock
from oracle.pipeline.context import Bells, Context
from oracle.pipeline.fees import Fees
from oracle.pipeline.refusals import header_of
from oracle.store import requests, settlements
from oracle.store.engine import Store, upgrade
from oracle.store.errors import COMMIT_UNKNOWN, LOCKED
from oracle.store.rows import RequestRow, SettlementRow, SignatureRow

T = TypeVar("T")
Item = TypeVar("Item")
LifecycleState = lifecycle.State

SLOT_SECONDS: Final = 0.4
OPERATOR: Final = Keypair.from_seed(bytes([7]) * 32)
OURS: Final = OPERATOR.pubkey()
CONFIG: Final = parse_config(
    {
        "operator": {"queues": [str(QUEUE)]},
        "policy": {"deadline_margin_seconds": 4.0},
        "daemon": {"lease_seconds": 90.0},
    }
)
ENDED: Final = str(tuple(str(state) for state in lifecycle.ENDED))
OPEN_SIGNATURE: Final = "state IN ('signed', 'sent', 'confirmed')"
ADDRESSES: Final = [Pubkey.from_bytes(bytes([n + 1]) * 32) for n in range(8)]


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if is_true():
                return
            await asyncio.sleep(0.001)


class Killed(BaseException):
    """`kill -9`: nothing of this process goes on from here."""


class Script:
    """Bytes that are read off as choices. Behind their end every choice is the first, and no chance comes true."""

    def __init__(self, choices: bytes = b"") -> None:
        self._choices = iter(choices)

    def byte(self) -> int:
        return next(self._choices, 0)

    def below(self, n: int) -> int:
        return self.byte() % n if n > 1 else 0

    def chance(self, per_cent: int) -> bool:
        return per_cent > 0 and self.byte() * 100 >= 256 * (100 - per_cent)

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]


class DrivenClock(Clock):
    def __init__(self) -> None:
        self.ms = self.latest_ms = 1_700_000_000_000
        self.seconds = 1_000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.seconds

    def jitter(self) -> float:
        return 0.5

    def pass_by(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        self.seconds += seconds
        self.latest_ms = max(self.latest_ms, self.ms)

    def step(self, milliseconds: int) -> None:
        """Somebody sets the wall clock."""
        self.latest_ms = max(self.latest_ms, self.ms)
        self.ms += milliseconds


class DrivenBells(Bells):
    """Whoever waits for nothing but the end of the daemon waits for time to pass, and here it passes at once."""

    def __init__(self, pass_by: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_by = pass_by

    async def wait(self, name: str, seconds: float) -> bool:
        if name != "stop":
            return await super().wait(name, seconds)
        self._pass_by(seconds)
        return False


class Memory:
    """SQLite in memory behind the real `Store`: the same schema and SQL, without threads and without a disk."""

    def __init__(self, template: sqlite3.Connection) -> None:
        self._template = template
        self._raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._engine = create_engine("sqlite+pysqlite://", creator=lambda: self._raw, poolclass=StaticPool)
        event.listen(self._engine, "begin", lambda conn: conn.connection.dbapi_connection.execute("BEGIN"))
        self._conn = self._engine.connect()

    def clear(self) -> None:
        self._template.backup(self._raw)
        self._raw.execute("PRAGMA foreign_keys=ON")

    def rows(self, query: str) -> list[Any]:
        return self._raw.execute(query).fetchall()

    def saved(self) -> sqlite3.Connection:
        backup = sqlite3.connect(":memory:")
        self._raw.backup(backup)
        return backup

    def restore(self, backup: sqlite3.Connection) -> None:
        backup.backup(self._raw)
        backup.close()

    async def open(self, check: Callable[[Connection], None]) -> None:
        return None

    async def read(self, work: Callable[[Connection], T]) -> T:
        try:
            return work(self._conn)
        finally:
            self._conn.rollback()

    async def transact(self, work: Callable[[Connection], T]) -> T:
        try:
            result = work(self._conn)
            self._conn.commit()
            return result
        finally:
            self._conn.rollback()

    async def close(self) -> None:
        return None

    def dispose(self) -> None:
        self._conn.close()
        self._engine.dispose()
        self._raw.close()


@contextmanager
def memory(directory: Path) -> Iterator[Memory]:
    """One database for many histories: each begins with `clear`."""
    path = directory / "template.sqlite"
    upgrade(f"sqlite:///{path}")
    template = sqlite3.connect(path)
    made = Memory(template)
    try:
        yield made
    finally:
        made.dispose()
        template.close()


@contextmanager
def strict_logs() -> Iterator[None]:
    """Nothing below an error is logged, and an error is a bug: it fails the test with its cause."""

    def fail(_: Any, __: str, entry: Any) -> Any:
        raise AssertionError(f"logged: {entry}")

    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR), processors=[fail])
    try:
        yield
    finally:
        structlog.configure(**before)


class UnsteadyStore:
    """The real store, with a point where the process can be killed before and after whatever is durable."""

    def __init__(self, store: Store, world: World) -> None:
        self._store, self._world = store, world

    async def read(self, work: Callable[[Connection], T]) -> T:
        await self._world.point("before a read")
        return await self._store.read(work)

    async def read_together(self, work: Callable[[Connection, Sequence[Item]], Sequence[T]], item: Item) -> T:
        await self._world.point("before a read")
        return await self._store.read_together(work, item)

    async def write(self, work: Callable[[Connection], T]) -> T:
        return await self._written(lambda: self._store.write(work))

    async def write_together(self, work: Callable[[Connection, Sequence[Item]], Sequence[T]], item: Item) -> T:
        return await self._written(lambda: self._store.write_together(work, item))

    async def _written(self, write: Callable[[], Awaitable[T]]) -> T:
        world = self._world
        await world.point("before a write")
        if world.script.chance(world.locked):
            raise LOCKED("simulated")
        result = await write()
        await world.point("after a write")
        if world.script.chance(world.commit_unknown):
            raise COMMIT_UNKNOWN("simulated")
        return result


class World:
    """The cluster, the database, and a daemon's loops over both, each driven turn by turn."""

    def __init__(self, database: Memory, choices: bytes = b"") -> None:
        database.clear()
        self.database = database
        self.script = Script(choices)
        self.chain = Chain()
        self.chain.sabotage = self._sabotage
        self.clock = DrivenClock()
        self.manners = Manners()
        self.slots = SlotClock()
        self.slots.seed([PerformanceSample(0, 150, 60)])
        self.locked = self.commit_unknown = self.failing = self.failing_unnamed = 0
        self.kills = self.pauses = self.yields = 0
        self.killed_at: str | None = None
        self.boots = 0
        self.touched: set[Life] = set()
        self.bought: Counter[Life] = Counter()
        self.sent: dict[str, Transaction] = {}
        self._is_dead = False
        self._sighted: dict[str, int] = {}
        self.boot()
        self.advance(40)

    # The process.

    def boot(self) -> None:
        """A new process over the old database."""
        self.boots += 1
        self._is_dead = False
        self._sighted = {}
        rpc = SimulatedClient(
            self.chain,
            self.manners,
            chance=lambda per_cent: self.script.chance(per_cent),
            below=lambda n: self.script.below(n),
            point=self.point,
            on_send=self._on_send,
        )
        self.store = Store(self.database)
        self.rpc = rpc
        self.context = Context(
            config=CONFIG,
            store=UnsteadyStore(self.store, self),  # type: ignore[arg-type]
            rpc=rpc,
            program_id=PROGRAM,
            signer=KeypairSigner(OPERATOR),
            queues=(QUEUE,),
            providers={},
            sources={},
            routes={},
            slots=self.slots,
            fees=Fees(rpc, OURS, CONFIG.settlement, self.clock),
            rates=prices.live(CONFIG.rates, self.clock.monotonic),
            instance=f"process-{self.boots}",
            clock=self.clock,
            bells=DrivenBells(lambda seconds: self.advance(math.ceil(seconds / SLOT_SECONDS))),
        )

    async def point(self, what: str) -> None:
        """Anywhere the daemon waits: it may be killed here, stopped for long, or overtaken by its other loops."""
        if self._is_dead:
            raise Killed(what)
        if self.yields:
            for _ in range(self.script.below(3) if self.script.chance(self.yields) else 0):
                await asyncio.sleep(0)
        if self.script.chance(self.pauses):
            self.advance(self.script.one_of((1, 3, 40, 170, 400)))
        if what == self.killed_at or self.script.chance(self.kills):
            self._is_dead, self.killed_at = True, None
            raise Killed(what)

    async def run(self, *turns: Callable[[], Awaitable[Any]]) -> None:
        """Some turns at once; if the process is killed meanwhile, a new one is there afterwards."""
        results = await asyncio.gather(*(turn() for turn in turns), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Killed | OracleError):
                raise result
        if self._is_dead:
            self.boot()

    # Time and the cluster.

    def advance(self, slots: int, *, skipped: int = 0, unnoticed: bool = False) -> None:
        self.chain.advance(slots, skipped=skipped)
        self.clock.pass_by(slots * SLOT_SECONDS)
        if not unnoticed:
            self.slots.observe(self.chain.slot, self.clock.seconds)

    def submit(self, n: int = 0, *, ttl_slots: int = 100_000, claim_required: bool = False) -> Pubkey:
        """A new request at one of the addresses, in the next block, if there is none."""
        address = ADDRESSES[n]

        def change(state: State, slot: int) -> dict[str, RequestAccount | None]:
            if str(address) in state:
                return {}
            made = RequestAccount(address, slot, slot + ttl_slots, 50_000 + n, claim_required=claim_required)
            return {str(address): made}

        self.chain.others(change)
        return address

    def meddle(self, n: int, change: Callable[[RequestAccount, int], RequestAccount | None]) -> None:
        """Somebody else does something with a request, in the next block, if it is there and the program allows it."""
        address = str(ADDRESSES[n])

        def apply(state: State, slot: int) -> dict[str, RequestAccount | None]:
            if address not in state:
                return {}
            after = change(state[address], slot)
            self.touched.add((address, state[address].created_slot))
            return {address: after}

        self.chain.others(apply)

    def account(self, n: int = 0) -> RequestAccount | None:
        return self.chain.tip.state.get(str(ADDRESSES[n]))

    def _on_send(self, wire: bytes) -> None:
        transaction = parse(wire)
        self.sent[transaction.signature] = transaction
        known = self.database.rows(f"SELECT 1 FROM signatures WHERE signature = '{transaction.signature}'")
        assert known, "bytes were sent that are not in the database"

    def _sabotage(self, transaction: Transaction) -> Any:
        if self.script.chance(self.failing_unnamed):
            return "InsufficientFundsForRent"
        if self.script.chance(self.failing):
            at = transaction.budget + self.script.below(len(transaction.members))
            return {"InstructionError": [at, "ComputationalBudgetExceeded"]}
        return None

    # The loops, one turn each.

    # Whether a loop has anything to do is asked in plain SQL first: an idle turn through the ORM costs a millisecond.

    async def watch(self) -> None:
        """As the watcher: what differs from the record, nothing older after something newer, absence at finalized."""
        known = {
            address: (created_slot, status, slot)
            for address, created_slot, status, slot in self.database.rows(
                "SELECT address, created_slot, chain_status, chain_slot FROM requests WHERE NOT closed ORDER BY id"
            )
        }
        read = await self.rpc.get_multiple_accounts(ADDRESSES, Confirmed)
        for key, account in zip(ADDRESSES, read.value, strict=True):
            address = str(key)
            created_slot, status, slot = known.get(address, (0, -1, 0))
            if account is None or read.slot < max(self._sighted.get(address, 0), slot):
                continue
            self._sighted[address] = read.slot
            header = decode_header(account.data)
            if (header.created_slot, header.status) != (created_slot, status):
                await intake.take_in(self.context, Sighting(key, account.data, read.slot, "scan"))
        final = await self.rpc.get_multiple_accounts([Pubkey.from_string(address) for address in known], Finalized)
        for (address, (created_slot, _, slot)), account in zip(known.items(), final.value, strict=True):
            header = header_of(account)
            is_there = header is not None and header.created_slot == created_slot
            if not is_there and final.slot > max(slot, self._sighted.get(address, 0)):
                await intake.take_in(self.context, Vanished(RequestKey(address, created_slot), final.slot))

    async def work(self) -> None:
        """The rest of the pipeline: every request is claimed where it must be, bought for once, and answered."""
        await self.point("before working")
        earliest = self.context.slot() + self.context.terms().deadline_margin_slots
        now = f"fence = fence + 1, lease_owner = NULL, lease_until_ms = NULL, wake_at_ms = {self.clock.ms}"
        for state, where in (("declined", f"deadline_slot < {earliest}"), ("admitted", "true")):
            self.database.rows(f"UPDATE requests SET state = '{state}', {now} WHERE state = 'seen' AND {where}")
        if self._is_due("requests", "state = 'admitted' AND claim_required"):
            for row in await worker.take(self.context, (LifecycleState.ADMITTED,), 10):
                if row.claim_required:
                    await worker.attempt(self.context, row, submit.intend_claim)
        for request_id, address, created_slot, fee in self.database.rows(
            "SELECT id, address, created_slot, fee_lamports FROM requests "
            "WHERE state = 'claimed' OR (state = 'admitted' AND NOT claim_required)"
        ):
            self.bought[address, created_slot] += 1
            output = output_hash(address, created_slot)
            outcome = (
                f"state = 'refused', reject_reason = {int(Reason.NO_PROVIDER)}"
                if fee % 5 == 4
                else f"state = 'computed', output_sha256 = '{output}', job_hash = '{output[::-1]}', completed_at = 7"
            )
            self.database.rows(f"UPDATE requests SET {outcome}, {now} WHERE id = {request_id}")
        await self.point("after working")

    async def prepare(self) -> None:
        if self._is_due("requests", "state IN ('computed', 'refused')"):
            await settle.prepare_turn(self.context)

    async def send(self) -> None:
        if self._is_due("settlements", "state = 'pending'"):
            packs = await settle.gather(self.context)
            await asyncio.gather(*(settle.send_pack(self.context, members) for members in packs))

    async def follow(self) -> None:
        if self._is_there("signatures", OPEN_SIGNATURE):
            await follow.turn(self.context)

    async def housekeep(self) -> None:
        slot, ended = self.context.slot(), f"state IN {ENDED} AND NOT closed"
        duties = (
            (housekeeping.finalize_ends, f"{ended} AND NOT end_finalized"),
            (housekeeping.expire_overdue, f"state NOT IN {ENDED} AND deadline_slot < {slot}"),
            (housekeeping.close_ended, f"{ended} AND ended_slot + retention_slots < {slot}"),
        )
        for duty, where in duties:
            if self._is_there("requests", where):
                await duty(self.context)

    def _is_due(self, table: str, where: str) -> bool:
        return self._is_there(table, f"{where} AND wake_at_ms <= {self.clock.ms}")

    def _is_there(self, table: str, where: str) -> bool:
        return bool(self.database.rows(f"SELECT 1 FROM {table} WHERE {where} LIMIT 1"))

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        return (self.watch, self.work, self.prepare, self.send, self.follow, self.housekeep)

    async def round(self, slots: int = 4) -> None:
        """Every loop once, and some slots."""
        for loop in self.loops:
            await self.run(loop)
        self.advance(slots)

    async def settle_down(self, rounds: int = 40, slots: int = 40) -> None:
        """The network behaves from now on, and the daemon lives: whatever is open must come to its end."""
        self.manners = Manners()
        self.rpc.manners = self.manners
        self.clock.ms = max(self.clock.ms, self.clock.latest_ms)
        self.locked = self.commit_unknown = self.failing = self.failing_unnamed = 0
        self.kills = self.pauses = self.yields = 0
        for _ in range(rounds):
            await self.round(slots)
            if self.is_quiet():
                return

    # What is true.

    def is_quiet(self) -> bool:
        return not (
            self._is_there("requests", "NOT closed")
            or self._is_there("settlements", "state IN ('pending', 'sent', 'landed')")
            or self._is_there("signatures", OPEN_SIGNATURE)
        )

    def edges(self) -> tuple[list[int], list[int]]:
        """Last valid heights of the open signatures, and near deadlines of the open requests."""
        heights = self.database.rows(
            f"SELECT last_valid_block_height FROM signatures WHERE {OPEN_SIGNATURE} ORDER BY id"
        )
        deadlines = self.database.rows(
            f"SELECT deadline_slot FROM requests WHERE state NOT IN {ENDED} "
            f"AND deadline_slot BETWEEN {self.chain.slot} AND {self.chain.slot + 1_000} ORDER BY id"
        )
        return [height for [height] in heights], [slot for [slot] in deadlines]

    async def rows(self) -> list[RequestRow]:
        return await self.store.read(lambda c: requests.listing(c))

    async def row(self, n: int = 0) -> RequestRow:
        row = await self.store.read(lambda c: requests.latest(c, str(ADDRESSES[n])))
        assert row is not None
        return row

    async def settlements(self, n: int = 0) -> list[SettlementRow]:
        row = await self.row(n)
        return await self.store.read(lambda c: settlements.of(c, row.id))

    async def signatures(self, n: int = 0) -> list[SignatureRow]:
        found = []
        for settlement in await self.settlements(n):
            found += await self.store.read(lambda c, s=settlement: settlements.signatures_of(c, s.id))  # type: ignore[misc]
        return found

    def check(self) -> None:
        """Law 2, by the truth of the cluster: of the signatures for one effect at most one may have it."""
        alive: Counter[tuple[int, str]] = Counter()
        for signature, last_valid, request_id, kind in self.database.rows(
            "SELECT g.signature, g.last_valid_block_height, s.request_id, s.kind FROM signatures g "
            "JOIN signature_members m ON m.signature_id = g.id JOIN settlements s ON s.id = m.settlement_id"
        ):
            if not self.chain.is_dead(signature, last_valid):
                block = self.chain.landed(signature)
                if kind == "claim" and block is not None and self.chain.is_final(block):
                    continue  # had, and lapsed since: a claim may be made anew
                alive[request_id, "settle" if kind in ("record", "reject") else kind] += 1
        twice = {key: count for key, count in alive.items() if count > 1}
        assert not twice, f"signatures that may both land: {twice}"

    async def check_the_end(self) -> None:
        """Everything has ended, the rows say what the chain says, and the books are right."""
        self.check()
        assert not self.database.rows(f"SELECT * FROM signatures WHERE {OPEN_SIGNATURE}")
        assert not self.database.rows("SELECT * FROM settlements WHERE state IN ('pending', 'sent', 'landed')")
        for row in await self.rows():
            self.check_row(row)
        self.check_books()

    def check_row(self, row: RequestRow) -> None:
        life = row.address, row.created_slot
        account = self.chain.finalized.ended.get(life)
        if account is None:
            now = self.chain.tip.state.get(row.address)
            assert now is None or now.created_slot != row.created_slot, f"still open: {row}"
            assert row.state in lifecycle.ENDED, row
            return
        # What was computed for an earlier life of the address may land on this one before anybody has seen it.
        is_ours = account.operator == OURS and (
            account.status is not Status.FULFILLED or account.output_hash.hex() == output_hash(*life)
        )
        expected = lifecycle.end_of(account.status, settled_by_us=is_ours)
        was_closed_unseen = row.state is LifecycleState.VANISHED and life in self.touched
        assert row.state is expected or was_closed_unseen, f"{row.state}, chain says {account}"
        if life not in self.touched:
            assert self.bought[life] <= 1, "bought twice"
            if row.deadline_slot > self.chain.slot:
                assert account.status in (Status.FULFILLED, Status.REJECTED), account

    def check_books(self) -> None:
        """Every fee that was earned, and every one that was paid, stands in the ledger once."""
        [[earned]] = self.database.rows("SELECT coalesce(sum(lamports), 0) FROM ledger WHERE kind = 'fee_earned'")
        ended = self.chain.finalized.ended.values()
        ours = [account for account in ended if account.status is Status.FULFILLED and account.operator == OURS]
        paid = self.database.rows("SELECT signature FROM ledger JOIN signatures ON signatures.id = ledger.signature_id")
        beyond = self.database.rows(f"SELECT signature FROM signatures WHERE error = '\"{follow.OUTLIVED}\"'")
        # Behind the end of every history nobody can tell what a request paid that somebody has closed since.
        total = sum(account.fee_lamports for account in ours)
        assert earned == total or (beyond and earned < total)
        landed = {signature for signature in self.sent if self.chain.landed(signature) is not None}
        assert {signature for [signature] in paid} == landed - {signature for [signature] in beyond}


def output_hash(address: str, created_slot: int) -> str:
    """The answer to one life of a request: another for each, so that a mix-up shows."""
    return hashlib.sha256(f"{address}@{created_slot}".encode()).hexdigest()


def cancel(account: RequestAccount, slot: int) -> RequestAccount:
    return cancelled(account, slot)


def rival_claims(account: RequestAccount, slot: int) -> RequestAccount:
    return claimed(account, RIVAL, slot)


def rival_records(account: RequestAccount, slot: int) -> RequestAccount:
    if not account.claim_required or account.operator != RIVAL or not account.status.is_open:
        raise Refused("ClaimedByAnother")
    return account.ended(Status.FULFILLED, slot, operator=RIVAL, output_hash=bytes([9]) * 32)


def somebody_expires(account: RequestAccount, slot: int) -> RequestAccount:
    if not account.status.is_open or slot <= account.deadline_slot:
        raise Refused("DeadlineNotPassed")
    return account.ended(Status.EXPIRED, slot)


def payer_closes(account: RequestAccount, slot: int) -> None:
    if not account.settled_slot or slot <= account.created_slot:
        raise Refused("RequestStillOpen")


def payer_closes_and_submits_again(account: RequestAccount, slot: int) -> RequestAccount:
    payer_closes(account, slot)
    ttl = account.deadline_slot - account.created_slot
    return RequestAccount(
        account.address, slot, slot + ttl, account.fee_lamports, claim_required=account.claim_required
    )


assert PAYER != OURS
