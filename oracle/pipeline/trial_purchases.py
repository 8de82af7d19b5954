"""Buying by transaction for a trial, which has no request, and so no row to be found again by.

What a daemon keeps in its database is kept in memory here, because a trial buys once by construction: its key was told
before anything is bought and belongs to nothing else, and whoever comes back with it only looks. One transaction is
signed for a key, and its bytes are sent again until they have landed or are dead. If this process dies, nobody signs
in its place, and the chain alone tells what became of the bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from solana.rpc.commitment import Finalized, Processed
from solders.pubkey import Pubkey

from oracle.chain.rpc.types import SignatureStatus, Simulation
from oracle.core.compute import IdempotencyKey
from oracle.core.endpoints import MAX_LAG_SLOTS
from oracle.core.errors import OracleError
from oracle.core.purchase import AlreadyUsed, Fate, InFlight, Landed, NotBought, Order, Refused
from oracle.core.settlement import Attempted, Next, SignatureState, judge
from oracle.pipeline.errors import PURCHASE_IN_FLIGHT, PURCHASE_NOT_BOUGHT
from oracle.pipeline.follow import BLOCKHASH_SLOTS, absent, present
from oracle.pipeline.orders import Orders, Signed
from oracle.pipeline.trial import Tell
from oracle.store import ledger, trials
from oracle.store.engine import Store
from oracle.store.schema import LedgerKind

log = structlog.get_logger(__name__)

DEAD_AFTER_BLOCKS: Final = BLOCKHASH_SLOTS + MAX_LAG_SLOTS
"""Of a process that has died: the endpoint that gave it its blockhash may have been ahead of the one asked now."""


@dataclass(slots=True)
class _Purchase:
    """The bytes of a key, and what is known of them. `dead` is for ever."""

    signed: Signed
    detail: Mapping[str, Any]
    sent_at: float = float("-inf")
    is_booked: bool = False
    dead: NotBought | None = None


class TrialPurchases:
    """Implements `TransactionBuyer`. `tell` hears of every signature and what became of it."""

    def __init__(self, orders: Orders, store: Store, tell: Tell) -> None:
        self._orders = orders
        self._store = store
        self._tell = tell
        self._purchases: dict[IdempotencyKey, _Purchase] = {}
        self._withdrawn: dict[IdempotencyKey, int | None] = {}
        """Keys of which nothing was signed here, and the block height above which nothing of a process that has died
        can land: None until an endpoint has told one."""

    @property
    def payer(self) -> Pubkey:
        return self._orders.payer

    async def address(self, key: IdempotencyKey, label: str) -> Pubkey:
        return await self._orders.address(key, label)

    async def buy(self, key: IdempotencyKey, order: Order) -> Landed | Refused | AlreadyUsed:
        """See `TransactionBuyer`. Raises ORC-SETTLE-010 where it may still land, ORC-SETTLE-011 where it is dead."""
        cosigners = await self._orders.cosigners(key, order)
        simulation = await self._orders.checked(order, cosigners)
        if not isinstance(simulation, Simulation):
            return simulation
        signed = await self._orders.signed(order, cosigners, simulation)
        # From here to the entry nothing is awaited: what is not entered was never sent, and is thrown away.
        if key in self._purchases:
            raise PURCHASE_IN_FLIGHT(f"key {key} has bought before")
        if key in self._withdrawn:
            raise PURCHASE_NOT_BOUGHT(f"key {key} was withdrawn")
        purchase = self._purchases[key] = _Purchase(signed, order.detail)
        self._tell("signed", f"{signed.signature}, {signed.fee_lamports:,} lamports if it lands")
        return await self._outcome(purchase)

    async def withdraw(self, key: IdempotencyKey) -> Fate:
        purchase = self._purchases.get(key)
        return await (self._unsigned(key) if purchase is None else self._fate(purchase))

    async def perform(self, order: Order) -> Refused | None:
        return await self._orders.perform(order, self._landed)

    async def _outcome(self, purchase: _Purchase) -> Landed:
        """As long as the caller has patience: `withdraw` goes on where it has none."""
        while True:
            try:
                fate = await self._fate(purchase)
            except OracleError as error:
                log.info("purchase not followed", signature=str(purchase.signed.signature), code=error.code)
                fate = InFlight()
            match fate:
                case Landed():
                    return fate
                case NotBought(why):
                    raise PURCHASE_NOT_BOUGHT(why)
            await asyncio.sleep(self._orders.settings.poll_interval_seconds)

    async def _fate(self, purchase: _Purchase) -> Fate:
        """One look, judged as the daemon judges its signatures; the same bytes go out again where nobody knows them."""
        if purchase.dead is not None:
            return purchase.dead
        signed, rpc = purchase.signed, self._orders.rpc
        await self._send_if_due(purchase)
        found = await rpc.get_signature_statuses([signed.signature])
        (status,) = found.value
        slot, verdict = found.slot, Next.RESEND
        if status is not None:
            verdict = judge(_attempted(signed), present(status))
        elif slot > signed.blockhash.slot + BLOCKHASH_SLOTS:
            history = await rpc.pinned().get_signature_history([signed.signature])
            (status,) = history.statuses
            slot = history.finalized_slot
            verdict = judge(_attempted(signed), absent(history) if status is None else present(status))
        return await self._judged(purchase, verdict, status, slot)

    async def _judged(self, purchase: _Purchase, verdict: Next, status: SignatureStatus | None, slot: int) -> Fate:
        match verdict:
            case Next.SHOW | Next.DONE if status is not None:
                await self._book(purchase)
                return Landed(status.slot, purchase.detail)
            case Next.FAILED if status is not None and status.failure is not None:
                await self._book(purchase)
                purchase.dead = NotBought(f"{purchase.signed.signature} failed on chain: {status.failure.kind}", slot)
                return purchase.dead
            case Next.EXPIRED:
                why = f"{purchase.signed.signature} has not landed, and its blockhash has expired"
                purchase.dead = NotBought(why, slot)
                return purchase.dead
        return InFlight(purchase.detail)

    async def _send_if_due(self, purchase: _Purchase) -> None:
        now = self._orders.clock.monotonic()
        if now - purchase.sent_at >= self._orders.settings.resend_interval_seconds:
            purchase.sent_at = now
            await self._orders.send(purchase.signed)

    async def _unsigned(self, key: IdempotencyKey) -> Fate:
        """Nothing is signed here from now on. A process that has died can have sent something until its blockhash, no
        younger than this moment, has expired: only then do the accounts prove that it has not."""
        dead_after = self._withdrawn.setdefault(key, None)
        if dead_after is None:
            # An endpoint that lags further would tell a height after which bytes of that process may still land.
            rpc = self._orders.rpc
            tip = await rpc.get_epoch_info(Processed, min_context_slot=max(0, rpc.tip_slot - MAX_LAG_SLOTS) or None)
            self._withdrawn[key] = tip.block_height + DEAD_AFTER_BLOCKS
            self._tell("waiting", f"{DEAD_AFTER_BLOCKS} blocks, until nothing that was sent under this key can land")
            return InFlight()
        finalized = await self._orders.rpc.get_epoch_info(Finalized)
        if finalized.block_height <= dead_after:
            return InFlight()
        return NotBought("never signed, or dead", finalized.slot)

    async def _book(self, purchase: _Purchase) -> None:
        if not purchase.is_booked:
            purchase.is_booked = True
            await self._landed(purchase.signed)

    async def _landed(self, signed: Signed) -> None:
        """It has paid its fee. Booked once, whatever comes of it: the purchase matters more than its entry."""
        self._tell("landed", f"{signed.signature}, {signed.fee_lamports:,} lamports")
        try:
            await self._store.write(
                lambda c: ledger.book(
                    c,
                    LedgerKind.TX_FEE,
                    -signed.fee_lamports,
                    now_ms=self._orders.clock.now_ms(),
                    requester=trials.REQUESTER,
                    note=str(signed.signature),
                )
            )
        except OracleError as error:
            self._tell("not booked", f"the fee of {signed.signature}: {error}")


def _attempted(signed: Signed) -> Attempted:
    return Attempted(SignatureState.SENT, signed.blockhash.last_valid_block_height, signed.blockhash.slot)
