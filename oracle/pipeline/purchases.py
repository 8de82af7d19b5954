"""The signature manager as providers see it: buys by transaction under the laws of settlements (DESIGN §6).

The intent is durable before anything is asked of the chain, the signed bytes before they are sent. From then on
`pipeline.follow` sends the same bytes again and finds out what becomes of them, whoever waits here, and through any
restart. Nothing is signed a second time: where the transaction is proven dead, the attempt has bought nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from sqlalchemy import Connection

from oracle.chain.derived import DerivedKeys
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import Account, Blockhash, Simulation
from oracle.chain.signer import Signer
from oracle.config import Settlement
from oracle.core.compute import IdempotencyKey
from oracle.core.errors import OracleError
from oracle.core.packing import MAX_COMPUTE_UNITS
from oracle.core.purchase import (
    AccountState,
    AlreadyUsed,
    ChainView,
    Fate,
    InFlight,
    Landed,
    NotBought,
    Order,
    Refused,
)
from oracle.core.settlement import compute_unit_limit
from oracle.pipeline.clock import Clock
from oracle.pipeline.context import Bells
from oracle.pipeline.errors import PURCHASE_IN_FLIGHT, PURCHASE_NOT_BOUGHT, TRANSACTION_NOT_LANDED, UNEXPECTED
from oracle.pipeline.fees import Fees
from oracle.pipeline.transactions import LAMPORTS_PER_SIGNATURE, fee_lamports, message_of
from oracle.store import ledger, purchases, settlements
from oracle.store.engine import Store
from oracle.store.rows import SettlementRow
from oracle.store.schema import LedgerKind, SettlementState

log = structlog.get_logger(__name__)

BELL = "purchases"
LEASE_SECONDS = 120.0
"""Longer than any call of a provider: whoever holds an intent has signed it, or given it up, by then."""

LOOK_SECONDS = 0.5
LAND_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class _Signed:
    transaction: VersionedTransaction
    blockhash: Blockhash
    fee_lamports: int

    @property
    def signature(self) -> Signature:
        return self.transaction.signatures[0]


class Purchases:
    """Implements `TransactionBuyer`. `instance` names this process as holder of leases."""

    def __init__(
        self,
        store: Store,
        rpc: Client,
        signer: Signer,
        view: ChainView,
        fees: Fees,
        settings: Settlement,
        bells: Bells,
        clock: Clock,
        instance: str,
    ) -> None:
        self._store = store
        self._rpc = rpc
        self._signer = signer
        self._keys = DerivedKeys(signer)
        self._view = view
        self._fees = fees
        self._settings = settings
        self._bells = bells
        self._clock = clock
        self._instance = instance

    @property
    def payer(self) -> Pubkey:
        return self._signer.public_key

    async def address(self, key: IdempotencyKey, label: str) -> Pubkey:
        return (await self._keys.keypair(label, key)).pubkey()

    async def buy(self, key: IdempotencyKey, order: Order) -> Landed | Refused | AlreadyUsed:
        """See `TransactionBuyer`. Raises ORC-SETTLE-010 where it may still land, ORC-SETTLE-011 where it is dead."""
        cosigners = [await self._keys.keypair(label, key) for label in order.cosigners]
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
        now_ms, operator = self._clock.now_ms(), str(self.payer)
        purchase = await self._store.write(lambda c: purchases.withdraw(c, key, operator=operator, now_ms=now_ms))
        return NotBought("never intended") if purchase is None else await self._fate(purchase)

    async def perform(self, order: Order) -> Refused | None:
        """See `TransactionBuyer`. Raises ORC-SETTLE-012 where it has not landed in time."""
        simulation = await self._simulate(order)
        if simulation.failure is not None:
            return _refusal(simulation)
        signed = await self._signed(order, [], simulation)
        wire = bytes(signed.transaction)
        deadline = self._clock.monotonic() + LAND_SECONDS
        while self._clock.monotonic() < deadline:
            try:
                await self._rpc.send_transaction(wire)
            except OracleError as error:
                log.info("send not acknowledged", signature=str(signed.signature), code=error.code)
            for _ in range(4):
                (status,) = (await self._rpc.get_signature_statuses([signed.signature])).value
                if status is not None and status.commitment in ("confirmed", "finalized"):
                    await self._book(signed)
                    return None if status.failure is None else Refused(status.failure.kind, status.failure.custom)
                await asyncio.sleep(self._settings.poll_interval_seconds)
        raise TRANSACTION_NOT_LANDED(f"{signed.signature} in {LAND_SECONDS:g} s")

    def _intend(self, c: Connection, key: IdempotencyKey, order: Order) -> SettlementRow:
        return purchases.intend(
            c,
            key,
            detail=order.detail,
            operator=str(self.payer),
            owner=self._instance,
            lease_ms=int(LEASE_SECONDS * 1000),
            now_ms=self._clock.now_ms(),
        )

    async def _sign(
        self, intent: SettlementRow, order: Order, cosigners: Sequence[Keypair]
    ) -> Refused | AlreadyUsed | None:
        """Check, sign, write down and send. What is returned, or raised, says that nothing was signed."""
        used = await self._used([key.pubkey() for key in cosigners])
        if used is not None:
            return used
        simulation = await self._simulate(order)
        if simulation.failure is not None:
            return _refusal(simulation)
        if (excess := await self._excess(order, simulation)) is not None:
            return Refused(excess)
        signed = await self._signed(order, cosigners, simulation)
        wire = bytes(signed.transaction)
        row = await self._store.write(
            lambda c: settlements.record_signature(
                c,
                signature=str(signed.signature),
                wire=wire,
                blockhash=str(signed.blockhash.blockhash),
                last_valid_block_height=signed.blockhash.last_valid_block_height,
                signed_slot=signed.blockhash.slot,
                fee_lamports=signed.fee_lamports,
                settlement_ids=[intent.id],
                fences={intent.id: intent.fence},
                now_ms=self._clock.now_ms(),
            )
        )
        log.info("purchase sent", signature=str(signed.signature), fee_lamports=signed.fee_lamports)
        try:
            await self._rpc.send_transaction(wire)
        except OracleError as error:
            # It may have gone out or not: `follow` sends the same bytes again until its fate is known.
            log.info("send not acknowledged", signature=str(signed.signature), code=error.code, detail=error.detail)
        await self._store.write(lambda c: settlements.sent(c, row.id, self._clock.now_ms()))
        self._bells.ring("signatures")
        return None

    async def _used(self, addresses: Sequence[Pubkey]) -> AlreadyUsed | None:
        """A program may have deleted what an earlier purchase under this key created: then the key looks free, and only
        the transactions that named it tell that it was used."""
        accounts = await self._view.accounts(addresses)
        for address, account in zip(addresses, accounts, strict=True):
            if account is not None or await self._view.was_used(address):
                return AlreadyUsed(address)
        return None

    async def _simulate(self, order: Order) -> Simulation:
        message = message_of(
            self.payer, order.instructions, Hash.default(), unit_limit=MAX_COMPUTE_UNITS, micro_lamports=0
        )
        unsigned = [Signature.default()] * message.header.num_required_signatures
        wire = bytes(VersionedTransaction.populate(message, unsigned))
        return await self._rpc.simulate_transaction(wire, replace_blockhash=True, accounts=list(order.most_spent))

    async def _excess(self, order: Order, simulation: Simulation) -> str | None:
        """What the transaction would take beyond what was reckoned with, as where a price has just been raised."""
        before = await self._view.accounts(list(order.most_spent))
        for (address, most), held, left in zip(order.most_spent.items(), before, simulation.accounts, strict=True):
            spent = _tokens(held) - _tokens(left)
            if spent > most:
                return f"{spent} tokens would leave {address}, at most {most} were expected"
        return None

    async def _signed(self, order: Order, cosigners: Sequence[Keypair], simulation: Simulation) -> _Signed:
        units = compute_unit_limit(simulation.units_consumed or MAX_COMPUTE_UNITS, margin=self._settings.compute_margin)
        price = await self._fees.price_beside(order.contended)
        # A remote signer may take longer than a blockhash lives, so the blockhash comes after it is ready.
        await self._signer.ready()
        blockhash = await self._rpc.get_latest_blockhash()
        message = message_of(
            self.payer, order.instructions, blockhash.blockhash, unit_limit=units, micro_lamports=price
        )
        transaction = VersionedTransaction.populate(message, await self._signatures(order, message, cosigners))
        fee = fee_lamports(units, price) + LAMPORTS_PER_SIGNATURE * len(cosigners)
        return _Signed(transaction, blockhash, fee)

    async def _signatures(self, order: Order, message: MessageV0, cosigners: Sequence[Keypair]) -> list[Signature]:
        """In the order of the message's accounts, the payer first."""
        signed = to_bytes_versioned(message)
        by_address = {key.pubkey(): key for key in cosigners}
        tokens = sum(order.most_spent.values())
        own = Signature.from_bytes(await self._signer.sign(signed, micro_nos=tokens))
        others = message.account_keys[1 : message.header.num_required_signatures]
        return [own, *(by_address[address].sign_message(signed) for address in others)]

    async def _drop(self, intent: SettlementRow, error: OracleError) -> None:
        """Nothing was bought, and nothing will be. Raises ORC-SETTLE-010 where that is not certain: the bytes may have
        been written down though the answer was an error."""
        now_ms = self._clock.now_ms()
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

    async def _book(self, signed: _Signed) -> None:
        await self._store.write(
            lambda c: ledger.book(
                c,
                LedgerKind.TX_FEE,
                -signed.fee_lamports,
                now_ms=self._clock.now_ms(),
                note=str(signed.signature),
            )
        )


def _tokens(account: AccountState | Account | None) -> int:
    """The amount of an SPL token account, in its smallest unit."""
    return 0 if account is None else int.from_bytes(account.data[64:72], "little")


def _refusal(simulation: Simulation) -> Refused:
    assert simulation.failure is not None
    return Refused(simulation.failure.kind, simulation.failure.custom, simulation.logs)
