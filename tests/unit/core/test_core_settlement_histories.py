"""Law 2 over time, by thousands of histories: one effect, a cluster that forks, endpoints that lag and forget.

Only what decides is real here: `judge` and `may_sign_again`. The cluster is a list of blocks, its windows are short,
and a driver of a few lines does what it is told. The whole manager goes through the same, a few hundred times and with
its SQL, in `tests/unit/pipeline/test_settlement_manager.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracle.core.settlement import Attempted, Next, Observed, SignatureState, judge, may_sign_again

IS_LONG = os.environ.get("ORACLE_TEST_LENGTH") == "long"
HISTORIES = settings().max_examples * (300 if IS_LONG else 30)
FINALIZED_BLOCKS = 4
BLOCKHASH_BLOCKS = 8
FIRST_SLOT = 1_000
FIRST_HEIGHT = 900
"""Heights lag behind slots: whoever mixes them up is found out."""

OPEN = frozenset({SignatureState.SIGNED, SignatureState.SENT, SignatureState.CONFIRMED})


class Script:
    """Bytes that are read off as choices; behind their end nothing bad happens any more."""

    def __init__(self, choices: bytes) -> None:
        self._choices = iter(choices)

    def below(self, n: int) -> int:
        return next(self._choices, 0) % n

    def chance(self, per_cent: int) -> bool:
        return next(self._choices, 0) * 100 >= 256 * (100 - per_cent) if per_cent else False


@dataclass(frozen=True, slots=True)
class Block:
    """`landed` has each signature and whether it succeeded; `is_open` says whether the request is, after the block."""

    number: int
    slot: int
    height: int
    is_open: bool
    landed: dict[int, bool]


@dataclass(frozen=True, slots=True)
class Flight:
    """A transaction on its way: from which slot on, on which blockhash."""

    due_slot: int
    signature: int
    block_number: int
    last_valid_height: int


@dataclass(frozen=True, slots=True)
class View:
    """What one endpoint knows."""

    blocks: Sequence[Block]
    root: int
    first_available_slot: int

    @property
    def finalized(self) -> Block:
        return self.blocks[self.root]

    def commitment(self, signature: int, *, recent: bool) -> tuple[str | None, bool]:
        """How far it has come, and whether it failed."""
        since = self.blocks[-1].slot - BLOCKHASH_BLOCKS if recent else self.first_available_slot
        for at, block in enumerate(self.blocks):
            if signature in block.landed and block.slot >= since:
                level = "finalized" if at <= self.root else "confirmed" if at < len(self.blocks) - 1 else "processed"
                return level, not block.landed[signature]
        return None, False


class Cluster:
    """Blocks, forks, and transactions in flight; it alone knows the truth."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.blocks = [Block(0, FIRST_SLOT, FIRST_HEIGHT, True, {})]
        self.abandoned: list[Block] = []
        self.root = self.slots = self.made = 0
        self.in_flight: list[Flight] = []
        self.failing = self.lag = self.forgetful = self.astray = 0

    @property
    def slot(self) -> int:
        return FIRST_SLOT + self.slots

    @property
    def finalized(self) -> Block:
        return self.blocks[self.root]

    def advance(self, slots: int) -> None:
        for _ in range(slots):
            self.slots += 1
            if not self.script.chance(10):
                self._make_block()
        self.root = max(self.root, len(self.blocks) - 1 - FINALIZED_BLOCKS)

    def _make_block(self) -> None:
        parent = self.blocks[-1]
        height, is_open, landed = parent.height + 1, parent.is_open, dict[int, bool]()
        numbers = {block.number for block in self.blocks[-BLOCKHASH_BLOCKS - 1 :]}
        known = {signature for block in self.blocks for signature in block.landed}
        for flight in [flight for flight in self.in_flight if flight.due_slot <= self.slot]:
            self.in_flight.remove(flight)
            is_valid = flight.block_number in numbers and height <= flight.last_valid_height
            if is_valid and flight.signature not in known | landed.keys():
                landed[flight.signature] = is_open and not self.script.chance(self.failing)
                is_open = is_open and not landed[flight.signature]
        self.made += 1
        self.blocks.append(Block(self.made, self.slot, height, is_open, landed))

    def fork(self, count: int) -> None:
        """The newest blocks are gone, and what had landed in them is lost; at most down to the root."""
        if count := min(count, len(self.blocks) - 1 - self.root):
            self.abandoned = list(self.blocks)
            del self.blocks[-count:]

    def is_dead(self, attempted: Attempted, signature: int) -> bool:
        """The truth: it failed for good, or there is no block to come in which it could land."""
        for block in self.blocks[: self.root + 1]:
            if signature in block.landed:
                return not block.landed[signature]
        return self.finalized.height >= attempted.last_valid_block_height

    def view(self) -> View:
        first = self.finalized.slot if self.script.chance(self.forgetful) else 0
        if self.abandoned and self.script.chance(self.astray):
            shared = sum(mine is theirs for mine, theirs in zip(self.blocks, self.abandoned, strict=False))
            root = min(self.root, shared - 1, len(self.abandoned) - 1 - FINALIZED_BLOCKS)
            return View(self.abandoned, max(0, root), first)
        seen = len(self.blocks) - (self.script.below(30) if self.script.chance(self.lag) else 0)
        blocks = self.blocks[: max(1, seen)]
        return View(blocks, max(0, min(self.root, len(blocks) - 1 - FINALIZED_BLOCKS)), first)


class Driver:
    """Does what the core tells it to do for one intent, and checks every death that it is told of."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.script = cluster, cluster.script
        self.attempts: list[Attempted] = []
        self.flights: list[Flight] = []
        self.proof_slot = 0
        self.is_done = False
        self.lost = self.delayed = 0

    def turn(self) -> None:
        for at, attempted in enumerate(self.attempts):
            if attempted.state in OPEN and not self.is_done:
                self._follow(at)
        if not self.is_done:
            self._sign()
        self._check()

    def _follow(self, at: int) -> None:
        commitment, failed = self.cluster.view().commitment(at, recent=True)
        observed = Observed(commitment, failed, None, None, False)
        if commitment is None:
            observed = self._history(at)
        match judge(self.attempts[at], observed):
            case Next.RESEND:
                self._become(at, SignatureState.SENT)
                self._send(at)
            case Next.SHOW:
                self._become(at, SignatureState.CONFIRMED)
            case Next.DONE:
                self._become(at, SignatureState.FINALIZED)
                self.is_done = True
            case Next.FAILED:
                assert self._is_dead(at)
                self._die(at, SignatureState.FAILED)
            case Next.EXPIRED:
                assert self._is_dead(at)
                self._die(at, SignatureState.EXPIRED)
            case Next.OUTLIVED:
                assert self._is_dead(at) or not self.cluster.finalized.is_open
                self._die(at, SignatureState.EXPIRED)

    def _history(self, at: int) -> Observed:
        """The height is read first, the status later: meanwhile the endpoint may have gone on, or we may have slept."""
        view = self.cluster.view()
        height = view.finalized.height
        if view.blocks is not self.cluster.abandoned and self.script.chance(20):
            self.cluster.advance(1 + self.script.below(10))
            view = replace(view, blocks=list(self.cluster.blocks), root=self.cluster.root)
        # Some endpoints look no further than their cache, and say so.
        searched = not self.script.chance(10)
        commitment, failed = view.commitment(at, recent=not searched)
        return Observed(commitment, failed, height, view.first_available_slot, searched)

    def _die(self, at: int, state: SignatureState) -> None:
        self._become(at, state)
        self.proof_slot = self.cluster.finalized.slot

    def _is_dead(self, at: int) -> bool:
        return self.cluster.is_dead(self.attempts[at], at)

    def _become(self, at: int, state: SignatureState) -> None:
        self.attempts[at] = replace(self.attempts[at], state=state)

    def _sign(self) -> None:
        read = self.cluster.view().finalized
        states = [attempted.state for attempted in self.attempts]
        if not may_sign_again(states, request_is_open=read.is_open, read_slot=read.slot, proof_slot=self.proof_slot):
            # Settled by a signature of which no history could tell.
            self.is_done = read.slot >= self.proof_slot and not read.is_open
            return
        blocks = self.cluster.view().blocks
        parent = blocks[max(0, len(blocks) - 2)]
        last_valid = parent.height + BLOCKHASH_BLOCKS
        self.attempts.append(Attempted(SignatureState.SIGNED, last_valid, parent.slot))
        self.flights.append(Flight(0, len(self.flights), parent.number, last_valid))
        self._send(len(self.flights) - 1)

    def _send(self, at: int) -> None:
        if not self.script.chance(self.lost):
            wait = self.script.below(2 * BLOCKHASH_BLOCKS) if self.script.chance(self.delayed) else 0
            self.cluster.in_flight.append(replace(self.flights[at], due_slot=self.cluster.slot + 1 + wait))

    def _check(self) -> None:
        may_land = [at for at in range(len(self.attempts)) if not self._is_dead(at)]
        assert len(may_land) <= 1, f"signatures that may both land: {may_land}"


def misbehave(cluster: Cluster, driver: Driver) -> None:
    """One kind of trouble more, or less."""
    chance = (0, 30, 80)[cluster.script.below(3)]
    match cluster.script.below(6):
        case 0:
            cluster.failing = chance
        case 1:
            cluster.lag = chance
        case 2:
            cluster.forgetful = chance
        case 3:
            cluster.astray = chance
        case 4:
            driver.lost = chance
        case 5:
            driver.delayed = chance


@settings(max_examples=HISTORIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=40, max_size=400))
def test_in_no_history_may_two_signatures_of_one_effect_land_and_each_comes_to_its_end(choices: bytes) -> None:
    cluster = Cluster(Script(choices))
    driver = Driver(cluster)
    cluster.advance(10)
    for _ in range(25):
        match cluster.script.below(8):
            case 0:
                cluster.fork(1 + cluster.script.below(6))
            case 1 | 2:
                misbehave(cluster, driver)
            case 3:
                cluster.advance(BLOCKHASH_BLOCKS + cluster.script.below(8))
            case _:
                cluster.advance(1 + cluster.script.below(3))
        driver.turn()
    cluster.failing = cluster.lag = cluster.forgetful = cluster.astray = driver.lost = driver.delayed = 0
    for _ in range(30):
        cluster.advance(3)
        driver.turn()
    assert driver.is_done
    assert sum(sum(block.landed.values()) for block in cluster.blocks) == 1
