"""A cluster in a few hundred lines: slots, heights, forks, blockhashes that expire, and transactions in flight.

It knows the truth that no endpoint tells: which signature has had its effect for good, and which can have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from simulated_program import Refused, RequestAccount, State, Transaction, apply, custom, parse
from solders.hash import Hash

FINALIZED_BLOCKS: Final = 32
BLOCKHASH_BLOCKS: Final = 150

FIRST_SLOT: Final = 1_000
FIRST_HEIGHT: Final = 900
"""Heights lag behind slots, as on a cluster that has skipped some: whoever mixes them up is found out."""

Life = tuple[str, int]
"""Address and slot of creation."""

Changes = Mapping[str, RequestAccount | None]
ByOthers = Callable[[State, int], Changes]


@dataclass(frozen=True, slots=True)
class Block:
    """One block. `ended` remembers every life that has ended, closed or not; `state` holds the accounts that exist.

    `landed` has each transaction's error as a node reports it, None for success.
    """

    number: int
    slot: int
    height: int
    state: State
    ended: Mapping[Life, RequestAccount]
    landed: Mapping[str, Any]

    @property
    def blockhash(self) -> Hash:
        return Hash(self.number.to_bytes(32, "big"))


@dataclass(frozen=True, slots=True)
class Fork:
    """What a fork left behind: the blocks up to its tip, the first of `own` being those that no other fork has."""

    blocks: list[Block]
    own: list[Block]


class Chain:
    """The cluster. `blocks` is the chain as of now: the block at an index is as many heights above the first.

    `sabotage` may make a transaction fail where it lands: it gives the error, or None.
    """

    def __init__(self) -> None:
        self.slot = FIRST_SLOT
        self.blocks = [Block(0, FIRST_SLOT, FIRST_HEIGHT, {}, {}, {})]
        self.abandoned: Fork | None = None
        self.root = 0
        self.sabotage: Callable[[Transaction], Any] = lambda transaction: None
        self._made = 0
        self._in_flight: list[tuple[int, bytes]] = []
        self._by_others: list[ByOthers] = []
        self._landed_in: dict[str, Block] = {}
        self._wires: dict[str, bytes] = {}

    @property
    def tip(self) -> Block:
        return self.blocks[-1]

    @property
    def finalized(self) -> Block:
        return self.blocks[self.root]

    def advance(self, slots: int, *, skipped: int = 0) -> None:
        """Some slots pass, the first `skipped` of them without a block."""
        for passed in range(slots):
            self.slot += 1
            if passed >= skipped:
                self.blocks.append(self._made_block())
        self.root = max(self.root, len(self.blocks) - 1 - FINALIZED_BLOCKS)

    def send(self, wire: bytes, *, delay_slots: int = 0) -> None:
        """The bytes reach a leader, now or later, as often as they are sent."""
        self._wires[parse(wire).signature] = wire
        self._in_flight.append((self.slot + delay_slots, wire))

    def others(self, change: ByOthers) -> None:
        """What somebody else does in the next block. What the program refuses, with `Refused`, does not happen."""
        self._by_others.append(change)

    def fork(self, count: int, *, resend: bool) -> list[Block]:
        """Drop the newest blocks, at most down to the root; what had landed is in flight again, or lost."""
        count = min(count, len(self.blocks) - 1 - self.root)
        if count <= 0:
            return []
        dropped = self.blocks[-count:]
        self.abandoned = Fork(list(self.blocks), dropped)
        del self.blocks[-count:]
        for block in dropped:
            for signature in block.landed:
                del self._landed_in[signature]
                if resend:
                    self.send(self._wires[signature])
        return dropped

    def landed(self, signature: str) -> Block | None:
        """The block that holds a transaction, on the chain as of now."""
        return self._landed_in.get(signature)

    def is_final(self, block: Block) -> bool:
        return block.height <= self.finalized.height

    def is_dead(self, signature: str, last_valid_block_height: int) -> bool:
        """The truth: it failed for good, or there is no block to come in which it could land."""
        block = self.landed(signature)
        if block is not None and self.is_final(block):
            return block.landed[signature] is not None
        return self.finalized.height >= last_valid_block_height

    def _made_block(self) -> Block:
        parent = self.tip
        state, ended = parent.state, parent.ended
        landed: dict[str, Any] = {}
        if self._by_others or self._in_flight:
            state, ended = dict(state), dict(ended)
            self._run_others(state, ended)
            due = [wire for slot, wire in self._in_flight if slot <= self.slot]
            self._in_flight = [flight for flight in self._in_flight if flight[0] > self.slot]
            for transaction in map(parse, due):
                fresh = transaction.signature not in self._landed_in and transaction.signature not in landed
                if fresh and self._is_valid(transaction, parent.height + 1):
                    landed[transaction.signature] = self._run(transaction, state, ended)
        self._made += 1
        block = Block(self._made, self.slot, parent.height + 1, state, ended, landed)
        self._landed_in.update(dict.fromkeys(landed, block))
        return block

    def _is_valid(self, transaction: Transaction, height: int) -> bool:
        """Whether its blockhash is of this fork, and young enough."""
        number = int.from_bytes(bytes(Hash.from_string(transaction.blockhash)), "big")
        recent = reversed(self.blocks[-BLOCKHASH_BLOCKS - 1 :])
        return any(block.number == number and height <= block.height + BLOCKHASH_BLOCKS for block in recent)

    def _run_others(self, state: dict[str, RequestAccount], ended: dict[Life, RequestAccount]) -> None:
        by_others, self._by_others = self._by_others, []
        for change in by_others:
            try:
                _put(change(state, self.slot), state, ended)
            except Refused:
                continue

    def _run(
        self, transaction: Transaction, state: dict[str, RequestAccount], ended: dict[Life, RequestAccount]
    ) -> Any:
        """Run it, all or nothing; its error, as a node reports it."""
        changes, error = simulated(transaction, state, self.slot)
        if error is None and (error := self.sabotage(transaction)) is None:
            _put(changes, state, ended)
        return error


def simulated(transaction: Transaction, state: State, slot: int) -> tuple[Changes, Any]:
    """The accounts that a transaction would change, and the error that it would end with."""
    view = dict(state)
    changes: dict[str, RequestAccount | None] = {}
    for position, member in enumerate(transaction.members):
        try:
            after = apply(view, member, slot)
        except Refused as refusal:
            return {}, {"InstructionError": [position + transaction.budget, {"Custom": custom(refusal)}]}
        changes[member.address] = after
        if after is None:
            del view[member.address]
        else:
            view[member.address] = after
    return changes, None


def _put(changes: Changes, state: dict[str, RequestAccount], ended: dict[Life, RequestAccount]) -> None:
    for address, account in changes.items():
        if account is None:
            state.pop(address, None)
            continue
        state[address] = account
        if not account.status.is_open:
            ended[address, account.created_slot] = account
