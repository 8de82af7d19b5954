"""One order of a provider that is paid on chain, from instructions to signed bytes: checked, simulated, priced, signed.

Nothing here is durable. What must be written down, and when, is for those who buy (`purchases`, `trial_purchases`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from oracle.chain.derived import DerivedKeys
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import Account, Blockhash, Simulation
from oracle.chain.signer import Signer
from oracle.config import Settlement
from oracle.core.compute import IdempotencyKey
from oracle.core.errors import OracleError
from oracle.core.packing import MAX_COMPUTE_UNITS
from oracle.core.purchase import AccountState, AlreadyUsed, ChainView, Order, Refused
from oracle.core.settlement import compute_unit_limit
from oracle.pipeline.clock import Clock
from oracle.pipeline.errors import TRANSACTION_NOT_LANDED
from oracle.pipeline.fees import Fees
from oracle.pipeline.transactions import LAMPORTS_PER_SIGNATURE, fee_lamports, message_of

log = structlog.get_logger(__name__)

LAND_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Signed:
    """A transaction that has all its signatures, the slot where its blockhash was read, and what it pays."""

    transaction: VersionedTransaction
    blockhash: Blockhash
    fee_lamports: int

    @property
    def signature(self) -> Signature:
        return self.transaction.signatures[0]

    @property
    def wire(self) -> bytes:
        return bytes(self.transaction)


class Orders:
    """What every signature manager does with an order. The signer decides what may be spent."""

    def __init__(
        self, rpc: Client, signer: Signer, view: ChainView, fees: Fees, settings: Settlement, clock: Clock
    ) -> None:
        self.rpc = rpc
        self.view = view
        self.settings = settings
        self.clock = clock
        self._signer = signer
        self._keys = DerivedKeys(signer)
        self._fees = fees

    @property
    def payer(self) -> Pubkey:
        return self._signer.public_key

    async def address(self, key: IdempotencyKey, label: str) -> Pubkey:
        return (await self._keys.keypair(label, key)).pubkey()

    async def cosigners(self, key: IdempotencyKey, order: Order) -> list[Keypair]:
        return [await self._keys.keypair(label, key) for label in order.cosigners]

    async def checked(self, order: Order, cosigners: Sequence[Keypair]) -> Simulation | Refused | AlreadyUsed:
        """What the transaction would do now, or what speaks against it. Nothing is signed."""
        used = await self._used([key.pubkey() for key in cosigners])
        if used is not None:
            return used
        simulation = await self._simulated(order)
        if isinstance(simulation, Refused):
            return simulation
        excess = await self._excess(order, simulation)
        return simulation if excess is None else Refused(excess)

    async def signed(self, order: Order, cosigners: Sequence[Keypair], simulation: Simulation) -> Signed:
        units = compute_unit_limit(simulation.units_consumed or MAX_COMPUTE_UNITS, margin=self.settings.compute_margin)
        price = await self._fees.price_beside(order.contended)
        # A remote signer may take longer than a blockhash lives, so the blockhash comes after it is ready.
        await self._signer.ready()
        blockhash = await self.rpc.get_latest_blockhash()
        message = message_of(
            self.payer, order.instructions, blockhash.blockhash, unit_limit=units, micro_lamports=price
        )
        transaction = VersionedTransaction.populate(message, await self._signatures(order, message, cosigners))
        fee = fee_lamports(units, price) + LAMPORTS_PER_SIGNATURE * len(cosigners)
        return Signed(transaction, blockhash, fee)

    async def send(self, signed: Signed) -> None:
        """The same bytes may be sent at will. They may go out or not, whatever the answer: only the chain tells."""
        try:
            await self.rpc.send_transaction(signed.wire)
        except OracleError as error:
            log.info("send not acknowledged", signature=str(signed.signature), code=error.code, detail=error.detail)

    async def perform(self, order: Order, landed: Callable[[Signed], Awaitable[None]]) -> Refused | None:
        """See `TransactionBuyer`; `landed` is called with what has paid its fee. Raises ORC-SETTLE-012 where it has
        not landed in time."""
        simulation = await self._simulated(order)
        if isinstance(simulation, Refused):
            return simulation
        signed = await self.signed(order, [], simulation)
        deadline = self.clock.monotonic() + LAND_SECONDS
        while self.clock.monotonic() < deadline:
            await self.send(signed)
            for _ in range(4):
                (status,) = (await self.rpc.get_signature_statuses([signed.signature])).value
                if status is not None and status.commitment in ("confirmed", "finalized"):
                    await landed(signed)
                    return None if status.failure is None else Refused(status.failure.kind, status.failure.custom)
                await asyncio.sleep(self.settings.poll_interval_seconds)
        raise TRANSACTION_NOT_LANDED(f"{signed.signature} in {LAND_SECONDS:g} s")

    async def _used(self, addresses: Sequence[Pubkey]) -> AlreadyUsed | None:
        """A program may have deleted what an earlier purchase under this key created: then the key looks free, and only
        the transactions that named it tell that it was used."""
        accounts = await self.view.accounts(addresses)
        for address, account in zip(addresses, accounts, strict=True):
            if account is not None or await self.view.was_used(address):
                return AlreadyUsed(address)
        return None

    async def _simulated(self, order: Order) -> Simulation | Refused:
        message = message_of(
            self.payer, order.instructions, Hash.default(), unit_limit=MAX_COMPUTE_UNITS, micro_lamports=0
        )
        unsigned = [Signature.default()] * message.header.num_required_signatures
        wire = bytes(VersionedTransaction.populate(message, unsigned))
        found = await self.rpc.simulate_transaction(wire, replace_blockhash=True, accounts=list(order.most_spent))
        if found.failure is not None:
            return Refused(found.failure.kind, found.failure.custom, found.logs)
        return found

    async def _excess(self, order: Order, simulation: Simulation) -> str | None:
        """What the transaction would take beyond what was reckoned with, as where a price has just been raised."""
        before = await self.view.accounts(list(order.most_spent))
        for (address, most), held, left in zip(order.most_spent.items(), before, simulation.accounts, strict=True):
            spent = _tokens(held) - _tokens(left)
            if spent > most:
                return f"{spent} tokens would leave {address}, at most {most} were expected"
        return None

    async def _signatures(self, order: Order, message: MessageV0, cosigners: Sequence[Keypair]) -> list[Signature]:
        """In the order of the message's accounts, the payer first."""
        signed = to_bytes_versioned(message)
        by_address = {key.pubkey(): key for key in cosigners}
        tokens = sum(order.most_spent.values())
        own = Signature.from_bytes(await self._signer.sign(signed, micro_nos=tokens))
        others = message.account_keys[1 : message.header.num_required_signatures]
        return [own, *(by_address[address].sign_message(signed) for address in others)]


def _tokens(account: AccountState | Account | None) -> int:
    """The amount of an SPL token account, in its smallest unit."""
    return 0 if account is None else int.from_bytes(account.data[64:72], "little")
