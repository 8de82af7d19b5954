"""The guard stands before every key: what it refuses is never signed, and what it counts is never forgotten."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer

from oracle.chain.signer import KeypairSigner
from oracle.chain.signing.errors import SIGNER_UNAVAILABLE
from oracle.chain.signing.guard import DAY_MS, Allowance, Guard, SetAside
from oracle.chain.signing.spent_file import SpentFile
from oracle.core.errors import OracleError
from oracle.core.spending import Caps, Charter, Day, Spend, judge, nothing, set_aside

OURS = Pubkey.new_unique()
CHARTER = Charter({OURS: [(b"\x01", nothing)]})
CAPS = Caps(Spend(10_000, 100), Spend(50_000, 300))
DOWN = SIGNER_UNAVAILABLE


class Wall:
    """A time that only tests move."""

    def __init__(self) -> None:
        self.day = 20_000

    def now_ms(self) -> int:
        return self.day * DAY_MS + 1


class Memory:
    """What a disk would keep; counts how often it is written."""

    def __init__(self, cap: Spend = CAPS.day) -> None:
        self.cap = cap
        self.day: Day | None = None
        self.writes = 0

    async def __call__(self, today: int, least: Spend, most: Spend) -> Spend:
        self.day, granted = set_aside(self.day, today, least, most, self.cap)
        self.writes += 1
        await asyncio.sleep(0)
        return granted


def message(n: int = 0) -> bytes:
    return to_bytes_versioned(
        MessageV0.try_compile(KEYPAIR.pubkey(), [Instruction(OURS, bytes([1, n]), [])], [], Hash.default())
    )


KEYPAIR = Keypair()


def guarded(kept: SetAside, wall: Wall, signer: KeypairSigner | None = None, *, caps: Caps = CAPS) -> Guard:
    return Guard(signer or KeypairSigner(KEYPAIR), CHARTER, caps, Allowance(caps, kept, wall.now_ms))


async def signed(guard: Guard, n: int = 0, micro_nos: int = 0) -> str:
    """The code of the refusal, or `signed`."""
    try:
        signature = Signature.from_bytes(await guard.sign(message(n), micro_nos=micro_nos))
    except OracleError as error:
        return error.code
    assert signature.verify(KEYPAIR.pubkey(), message(n))
    return "signed"


async def test_a_day_pays_for_as_much_as_it_may_and_the_next_one_for_as_much_again() -> None:
    wall, kept = Wall(), Memory()
    guard = guarded(kept, wall)
    assert [await signed(guard) for _ in range(11)] == ["signed"] * 10 + ["ORC-SIGNER-012"]
    assert guard.trouble is not None
    assert "ORC-SIGNER-012" in guard.trouble
    wall.day += 1
    assert guard.trouble is None
    assert [await signed(guard) for _ in range(11)] == ["signed"] * 10 + ["ORC-SIGNER-012"]
    wall.day -= 1  # a clock that is set back opens no day again
    assert await signed(guard) == "ORC-SIGNER-012"


async def test_many_at_once_cannot_overspend_together() -> None:
    guard = guarded(Memory(), Wall())
    outcomes = await asyncio.gather(*(signed(guard, n) for n in range(40)))
    assert outcomes.count("signed") == 10


async def test_two_guards_of_one_key_share_what_is_kept_of_the_day() -> None:
    kept, wall = Memory(), Wall()
    both = guarded(kept, wall), guarded(kept, wall)
    outcomes = await asyncio.gather(*(signed(both[n % 2], n) for n in range(40)))
    assert outcomes.count("signed") in (9, 10)  # a remainder that one has set aside is not the other's
    assert kept.day is not None
    assert kept.day.spent.within(CAPS.day)


async def test_tokens_have_a_day_of_their_own() -> None:
    guard = guarded(Memory(), Wall())
    assert [await signed(guard, micro_nos=100) for _ in range(4)] == ["signed"] * 3 + ["ORC-SIGNER-012"]
    assert await signed(guard) == "signed"


async def test_what_was_refused_or_could_not_be_signed_costs_nothing() -> None:
    class Down(KeypairSigner):
        async def sign(self, message: bytes, *, micro_nos: int = 0) -> bytes:
            raise DOWN()

    kept = Memory()
    guard = guarded(kept, Wall(), Down(KEYPAIR))
    assert [await signed(guard) for _ in range(30)] == [DOWN.code] * 30
    drain = transfer(TransferParams(from_pubkey=KEYPAIR.pubkey(), to_pubkey=OURS, lamports=1))
    stolen = to_bytes_versioned(MessageV0.try_compile(KEYPAIR.pubkey(), [drain], [], Hash.default()))
    with pytest.raises(OracleError, match="ORC-SIGNER-010"):
        await guard.sign(stolen)
    assert kept.day is not None
    assert kept.day.spent.lamports < 6_000


async def test_the_disk_is_asked_rarely_for_many_signatures() -> None:
    caps = Caps(Spend(10_000), Spend(200_000_000))
    guard = guarded(kept := Memory(caps.day), Wall(), caps=caps)
    assert {await signed(guard) for _ in range(200)} == {"signed"}
    assert kept.writes <= 9


@pytest.mark.parametrize("signatures", [1, 2, 5, 40])
async def test_a_process_that_dies_again_and_again_loses_no_more_of_the_day_than_it_has_spent(signatures: int) -> None:
    caps = Caps(Spend(10_000), Spend(10_000_000))
    kept, wall, spent = Memory(caps.day), Wall(), 0
    for _ in range(800 // signatures):
        guard = guarded(kept, wall, caps=caps)
        assert {await signed(guard) for _ in range(signatures)} == {"signed"}
        spent += signatures * judge(message(), KEYPAIR.pubkey(), CHARTER, caps).lamports
    assert kept.day is not None
    assert spent <= kept.day.spent.lamports <= 2 * spent


async def test_the_day_outlives_the_process_in_a_file(tmp_path: Path) -> None:
    path, wall = tmp_path / "spent.json", Wall()
    outcomes = []
    for _ in range(4):
        file = SpentFile(path, CAPS.day)
        outcomes += [await signed(guarded(file, wall)) for _ in range(4)]
        file.close()
    # What a dead process had set aside is lost to the day: never the other way round.
    assert 9 <= outcomes.count("signed") <= 10
    assert json.loads(path.read_text())["lamports"] <= CAPS.day.lamports


async def test_a_file_of_spending_that_is_damaged_held_or_not_writable_is_a_coded_error(tmp_path: Path) -> None:
    path = tmp_path / "spent.json"
    for damage in ("", "{", "[]", '{"day": 1}', '{"day": "x", "lamports": 1, "micro_nos": 1}'):
        path.write_text(damage)
        with pytest.raises(OracleError, match="ORC-SIGNER-013"):
            SpentFile(path, CAPS.day)
    path.unlink()
    first = SpentFile(path, CAPS.day)
    with pytest.raises(OracleError, match="ORC-SIGNER-013"):
        SpentFile(path, CAPS.day)
    first.close()
    with pytest.raises(OracleError, match="ORC-SIGNER-013"):
        SpentFile(tmp_path / "spent.json.lock" / "x", CAPS.day)
