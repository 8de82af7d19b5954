"""An RPC pool over the simulated cluster: endpoints that lag, forget, sit on a fork, and lose what they were told.

What an endpoint says of itself is true (its slots, its heights, how far its history goes back): law 2 trusts in that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simulated_chain import BLOCKHASH_BLOCKS, FINALIZED_BLOCKS, FIRST_HEIGHT, Block, Chain, simulated
from simulated_program import PROGRAM, Transaction, parse
from solana.rpc.commitment import Commitment, Confirmed, Finalized, Processed
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.errors import ANSWER_LOST, BEHIND, SEND_UNCERTAIN, UNREACHABLE
from oracle.chain.rpc.shapes import failure
from oracle.chain.rpc.types import (
    Account,
    AtSlot,
    Blockhash,
    DataSlice,
    EpochInfo,
    PriorityFee,
    SignatureStatus,
    Simulation,
)

CONFIRMED_BLOCKS: Final = 1
RECENT_SLOTS: Final = 200
UNITS: Final = 1_500

Point = Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class Manners:
    """How badly the endpoints behave: chances in per cent, and bounds. The default is well."""

    lag: int = 0
    lag_blocks: int = 0
    on_abandoned_fork: int = 0
    unanswered: int = 0
    cold_cache: int = 0
    short_history: int = 0
    lost: int = 0
    delayed: int = 0
    delay_slots: int = 0
    repeated: int = 0
    uncertain: int = 0
    refusing: int = 0
    blaming_nobody: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """What one endpoint knows: a chain up to the block at index `tip`, finalized up to that at `root`."""

    blocks: Sequence[Block]
    tip: int
    root: int
    first_available_slot: int
    landed: Callable[[str], Block | None]

    def at(self, commitment: Commitment) -> Block:
        if commitment == Finalized:
            return self.blocks[self.root]
        return self.blocks[self.tip if commitment == Processed else max(self.root, self.tip - CONFIRMED_BLOCKS)]

    def status(self, signature: Signature, *, since_slot: int) -> SignatureStatus | None:
        block = self.landed(str(signature))
        if block is None or block.height > self.at(Processed).height or block.slot < since_slot:
            return None
        error = block.landed[str(signature)]
        levels = (level for level in (Finalized, Confirmed, Processed) if block.height <= self.at(level).height)
        return SignatureStatus(block.slot, None if error is None else failure(error), next(levels))


class SimulatedClient(Client):
    """The real client, with its calls answered by the simulated cluster; what it composes of them is its own."""

    def __init__(
        self,
        chain: Chain,
        manners: Manners,
        *,
        chance: Callable[[int], bool],
        below: Callable[[int], int],
        point: Point,
        on_send: Callable[[bytes], None],
        view: View | None = None,
    ) -> None:
        self.chain, self.manners = chain, manners
        self._chance, self._below, self._point, self._on_send = chance, below, point, on_send
        self._pinned_view = view
        self.refusal: Callable[[Transaction], Any] = lambda transaction: None

    @property
    def name(self) -> str:
        return "simulated"

    def pinned(self) -> Client:
        return SimulatedClient(
            self.chain,
            self.manners,
            chance=self._chance,
            below=self._below,
            point=self._point,
            on_send=self._on_send,
            view=self._pinned_view or self._some_view(),
        )

    async def get_slot(self, commitment: Commitment = Confirmed, *, min_context_slot: int | None = None) -> int:
        return (await self._asked("getSlot", min_context_slot, commitment)).at(commitment).slot

    async def get_epoch_info(
        self, commitment: Commitment = Confirmed, *, min_context_slot: int | None = None
    ) -> EpochInfo:
        block = (await self._asked("getEpochInfo", min_context_slot, commitment)).at(commitment)
        return EpochInfo(0, block.slot, block.height)

    async def get_first_available_block(self) -> int:
        return (await self._asked("getFirstAvailableBlock")).first_available_slot

    async def get_latest_blockhash(
        self, commitment: Commitment = Confirmed, *, min_context_slot: int | None = None
    ) -> Blockhash:
        block = (await self._asked("getLatestBlockhash", min_context_slot, commitment)).at(commitment)
        return Blockhash(block.blockhash, block.height + BLOCKHASH_BLOCKS, block.slot)

    async def get_account(
        self,
        address: Pubkey,
        commitment: Commitment = Confirmed,
        *,
        min_context_slot: int | None = None,
        data_slice: DataSlice | None = None,
    ) -> AtSlot[Account | None]:
        read = await self.get_multiple_accounts([address], commitment, min_context_slot=min_context_slot)
        return AtSlot(read.slot, read.value[0])

    async def get_multiple_accounts(
        self,
        addresses: Sequence[Pubkey],
        commitment: Commitment = Confirmed,
        *,
        min_context_slot: int | None = None,
        data_slice: DataSlice | None = None,
    ) -> AtSlot[list[Account | None]]:
        block = (await self._asked("getMultipleAccounts", min_context_slot, commitment)).at(commitment)
        found = [block.state.get(str(address)) for address in addresses]
        return AtSlot(block.slot, [None if account is None else Account(1, PROGRAM, account.data) for account in found])

    async def get_signature_statuses(
        self, signatures: Sequence[Signature], *, search_history: bool = False
    ) -> AtSlot[list[SignatureStatus | None]]:
        view = await self._asked("getSignatureStatuses")
        is_cold = not search_history and self._chance(self.manners.cold_cache)
        slot = view.at(Processed).slot
        since = view.first_available_slot if search_history else slot - RECENT_SLOTS
        return AtSlot(slot, [None if is_cold else view.status(each, since_slot=since) for each in signatures])

    async def simulate_transaction(
        self,
        wire: bytes,
        commitment: Commitment = Confirmed,
        *,
        sig_verify: bool = False,
        replace_blockhash: bool = False,
        accounts: Sequence[Pubkey] = (),
        min_context_slot: int | None = None,
    ) -> Simulation:
        block = (await self._asked("simulateTransaction", min_context_slot, commitment)).at(commitment)
        transaction = parse(wire)
        _, error = simulated(transaction, block.state, block.slot)
        error = error or self.refusal(transaction)
        if error is None and self._chance(self.manners.refusing):
            culprit = transaction.budget + self._below(len(transaction.members))
            error = {"InstructionError": [culprit, {"Custom": 3012}]}
        if error is None and self._chance(self.manners.blaming_nobody):
            error = "InsufficientFundsForFee"
        units = UNITS * len(transaction.members)
        return Simulation(block.slot, None if error is None else failure(error), (), units)

    async def send_transaction(
        self,
        wire: bytes,
        *,
        skip_preflight: bool = True,
        max_retries: int = 0,
        preflight_commitment: Commitment = Confirmed,
        min_context_slot: int | None = None,
    ) -> Signature:
        await self._point("before sendTransaction")
        self._on_send(wire)
        manners = self.manners
        if not self._chance(manners.lost):
            delay = self._below(manners.delay_slots + 1) if self._chance(manners.delayed) else 0
            self.chain.send(wire, delay_slots=delay)
            if self._chance(manners.repeated):
                self.chain.send(wire, delay_slots=self._below(manners.delay_slots + 1))
        await self._point("after sendTransaction")
        if self._chance(manners.uncertain):
            raise SEND_UNCERTAIN("simulated")
        return Signature.from_string(parse(wire).signature)

    async def get_recent_prioritization_fees(self, addresses: Sequence[Pubkey] = ()) -> list[PriorityFee]:
        await self._asked("getRecentPrioritizationFees")
        return [PriorityFee(self.chain.tip.slot, price) for price in (0, 10, 200)]

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(method)

    async def _asked(
        self, method: str, min_context_slot: int | None = None, commitment: Commitment = Confirmed
    ) -> View:
        """The view of the endpoint that answers; raises where none does, or where it is behind."""
        await self._point(f"before {method}")
        if self._chance(self.manners.unanswered):
            raise (ANSWER_LOST if self._chance(50) else UNREACHABLE)("simulated")
        view = self._pinned_view or self._some_view()
        if min_context_slot is not None and view.at(commitment).slot < min_context_slot:
            raise BEHIND("simulated")
        await self._point(f"after {method}")
        return view

    def _some_view(self) -> View:
        chain, manners = self.chain, self.manners
        first = chain.finalized.slot if self._chance(manners.short_history) else 0
        if chain.abandoned is not None and self._chance(manners.on_abandoned_fork):
            fork = chain.abandoned
            tip = len(fork.blocks) - 1
            own = {signature: block for block in fork.own for signature in block.landed}
            root = min(chain.root, tip - FINALIZED_BLOCKS, tip - len(fork.own))
            return View(fork.blocks, tip, max(0, root), first, lambda s: own.get(s) or _at(chain, s, fork.blocks))
        tip = len(chain.blocks) - 1
        if self._chance(manners.lag):
            tip = max(0, tip - self._below(manners.lag_blocks + 1))
        return View(chain.blocks, tip, max(0, min(chain.root, tip - FINALIZED_BLOCKS)), first, chain.landed)


def _at(chain: Chain, signature: str, blocks: Sequence[Block]) -> Block | None:
    """Where a transaction is, if that block is also among `blocks`."""
    block = chain.landed(signature)
    if block is None:
        return None
    index = block.height - FIRST_HEIGHT
    return block if index < len(blocks) and blocks[index] is block else None
