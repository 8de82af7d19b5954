"""The signature manager as providers see it: buys by transaction under the laws of settlements (DESIGN §6).

The intent is durable before anything is asked of the chain, the signed bytes before they are sent. From then on
`pipeline.follow` sends the same bytes again and finds out what becomes of them, whoever waits here, and through any
restart. Nothing is signed a second time: where the transaction is proven dead, the attempt has bought nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from sqlalchemy import Connection

from oracle.chain.rpc.types import Simulation
from oracle.core.compute import IdempotencyKey
from oracle.core.errors import OracleError
from oracle.core.purchase import AlreadyUsed, Fate, InFlight, Landed, NotBought, Order, Refused
from oracle.pipeline.context import Bells
from oracle.pipeline.errors import PURCHASE_IN_FLIGHT, PURCHASE_NOT_BOUGHT, UNEXPECTED
from oracle.pipeline.orders import Orders, Signed
from oracle.store import ledger, purchases, settlements
from oracle.store.changes import Signing
from oracle.store.engine import Store
from oracle.store.rows import SettlementRow
from oracle.store.schema import LedgerKind, SettlementState

log = structlog.get_logger(__name__)

BELL = "purchases"
LEASE_SECONDS = 120.0
"""Longer than any call of a provider: whoever holds an intent has signed it, or given it up, by then."""

LOOK_SECONDS = 0.5


class Purchases:
    """Implements `TransactionBuyer`. `instance` names this process as holder of leases."""

    def __init__(self, store: Store, orders: Orders, bells: Bells, instance: str) -> None:
        self._store = store
        self._orders = orders
        self._bells = bells
        self._instance = instance

    @property
    def payer(self) -> Pubkey:
        return self._orders.payer

    async def address(self, key: IdempotencyKey, label: str) -> Pubkey:
        return await self._orders.address(key, label)

    async def buy(self, key: IdempotencyKey, order: Order) -> Landed | Refused | AlreadyUsed:
        """See `TransactionBuyer`. Raises ORC-SETTLE-010 where it may still land, ORC-SETTLE-011 where it is dead."""
        cosigners = await self._orders.cosigners(key, order)
        intent = await self._store.write(lambda c: self._intend(c, key, order))
        try:
            refusal = await self._sign(intent, order, cosigners)
        except OracleError as error:
            await self._drop(intent, error)
            raise
        if refusal is not None:
            await self._drop(intent, PURCHASE_NOT_BOUGHT(str(refusal)))
            return refusal
        return await self._outcome(intent.id)

    async def withdraw(self, key: IdempotencyKey) -> Fate:
        now_ms, operator = self._orders.clock.now_ms(), str(self.payer)
        purchase = await self._store.write(lambda c: purchases.withdraw(c, key, operator=operator, now_ms=now_ms))
        return NotBought("never intended") if purchase is None else await self._fate(purchase)

    async def perform(self, order: Order) -> Refused | None:
        return await self._orders.perform(order, self._book)

    def _intend(self, c: Connection, key: IdempotencyKey, order: Order) -> SettlementRow:
        return purchases.intend(
            c,
            key,
            detail=order.detail,
            operator=str(self.payer),
            owner=self._instance,
            lease_ms=int(LEASE_SECONDS * 1000),
            now_ms=self._orders.clock.now_ms(),
        )

    async def _sign(
        self, intent: SettlementRow, order: Order, cosigners: Sequence[Keypair]
    ) -> Refused | AlreadyUsed | None:
        """Check, sign, write down and send. What is returned, or raised, says that nothing was signed."""
        simulation = await self._orders.checked(order, cosigners)
        if not isinstance(simulation, Simulation):
            return simulation
        signed = await self._orders.signed(order, cosigners, simulation)
        signing = Signing(
            signature=str(signed.signature),
            wire=signed.wire,
            blockhash=str(signed.blockhash.blockhash),
            last_valid_block_height=signed.blockhash.last_valid_block_height,
            signed_slot=signed.blockhash.slot,
            fee_lamports=signed.fee_lamports,
            fences={intent.id: intent.fence},
            now_ms=self._orders.clock.now_ms(),
        )
        row = await self._store.write(lambda c: settlements.record_signature(c, signing))
        log.info("purchase sent", signature=str(signed.signature), fee_lamports=signed.fee_lamports)
        # It may have gone out or not: `follow` sends the same bytes again until its fate is known.
        await self._orders.send(signed)
        await self._store.write_together(settlements.sent_all, (row.id, self._orders.clock.now_ms()))
        self._bells.ring("signatures")
        return None

    async def _drop(self, intent: SettlementRow, error: OracleError) -> None:
        """Nothing was bought, and nothing will be. Raises ORC-SETTLE-010 where that is not certain: the bytes may have
        been written down though the answer was an error."""
        now_ms = self._orders.clock.now_ms()
        try:
            dropped = await self._store.write(
                lambda c: purchases.drop(c, intent, code=error.code, detail=error.detail, now_ms=now_ms)
            )
        except OracleError as lost:
            raise PURCHASE_IN_FLIGHT(f"purchase {intent.id}: {lost}") from error
        if not dropped:
            raise PURCHASE_IN_FLIGHT(f"purchase {intent.id}") from error

    async def _outcome(self, purchase_id: int) -> Landed | Refused:
        """Waits until `follow` knows: as long as the caller has patience."""
        while True:
            fate = await self._fate(await self._store.read(lambda c: settlements.get(c, purchase_id)))
            match fate:
                case Landed():
                    return fate
                case NotBought(why):
                    raise PURCHASE_NOT_BOUGHT(why)
            await self._bells.wait(BELL, LOOK_SECONDS)

    async def _fate(self, purchase: SettlementRow) -> Fate:
        match purchase.state:
            case SettlementState.LANDED | SettlementState.FINALIZED:
                signatures = await self._store.read(lambda c: settlements.signatures_of(c, purchase.id))
                return Landed(max(row.slot or 0 for row in signatures), purchase.args)
            case SettlementState.FAILED | SettlementState.DROPPED:
                return NotBought(f"{purchase.error_code or 'withdrawn'}: {purchase.error_detail or ''}")
            case SettlementState.PENDING | SettlementState.SENT:
                return InFlight(purchase.args)
        raise UNEXPECTED(f"purchase in state {purchase.state}")

    async def _book(self, signed: Signed) -> None:
        await self._store.write(
            lambda c: ledger.book(
                c,
                LedgerKind.TX_FEE,
                -signed.fee_lamports,
                now_ms=self._orders.clock.now_ms(),
                note=str(signed.signature),
            )
        )
