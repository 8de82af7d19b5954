"""What remains of a closed request is what the program itself logged of its newest life, and nothing else."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.transport import Call
from oracle.client.verify import Check, Recorded, read_recorded
from oracle.core.errors import OracleError

T = TypeVar("T")
PROGRAM, OTHER, ADDRESS, QUEUE, OPERATOR, REQUESTER = (Keypair().pubkey() for _ in range(6))


def submitted(slot: int, address: Pubkey = ADDRESS) -> bytes:
    return event("RequestSubmitted", address, QUEUE, REQUESTER, 50_000, slot + 500, slot)


def recorded(slot: int, mark: int, address: Pubkey = ADDRESS) -> bytes:
    return event("InferenceRecorded", address, OPERATOR, bytes([mark]) * 32, bytes([mark + 100]) * 32, slot, 1_700)


def closed(slot: int) -> bytes:
    return event("RequestClosed", ADDRESS, slot, 5_000)


def event(name: str, *values: Pubkey | bytes | int) -> bytes:
    """As Anchor logs it: eight bytes of the hash of its name, then its fields (interface page of the program)."""
    packed = (value.to_bytes(8, "little") if isinstance(value, int) else bytes(value) for value in values)
    return hashlib.sha256(f"event:{name}".encode()).digest()[:8] + b"".join(packed)


def data(content: bytes) -> str:
    return f"Program data: {base64.b64encode(content).decode()}"


def by(program: Pubkey, *events: bytes, depth: int = 1) -> list[str]:
    return [f"Program {program} invoke [{depth}]", *map(data, events), f"Program {program} success"]


@dataclass
class Ledger:
    """A node's transaction history, newest last; answers with the JSON that a node sends."""

    page_size: int = 1_000
    name: str = "ledger"
    transactions: list[dict[str, Any]] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)

    def lands(self, *logs: str, failed: bool = False, known_as_failed: bool = True) -> str:
        signature = str(Signature.new_unique())
        failure = {"InstructionError": [0, {"Custom": 6001}]} if failed else None
        self.transactions.append(
            {"signature": signature, "failure": failure, "listed": failure if known_as_failed else None, "logs": logs}
        )
        return signature

    async def call(self, call: Call[T]) -> T:
        return call.read(getattr(self, call.method)(*call.params))

    def getAccountInfo(self, *_: Any) -> Any:
        return {"context": {"slot": 9_000}, "value": None}

    def getSignaturesForAddress(self, _: str, config: dict[str, Any]) -> Any:
        newest_first = self.transactions[::-1]
        names = [transaction["signature"] for transaction in newest_first]
        start = names.index(config["before"]) + 1 if "before" in config else 0
        return [
            {"signature": t["signature"], "slot": 1, "err": t["listed"], "blockTime": None}
            for t in newest_first[start : start + self.page_size]
        ]

    def getTransaction(self, signature: str, _: Any) -> Any:
        if signature in self.forgotten:
            return None
        (found,) = (t for t in self.transactions if t["signature"] == signature)
        return {"slot": 1, "meta": {"err": found["failure"], "fee": 5_000, "logMessages": list(found["logs"])}}


@pytest.fixture(params=[1_000, 1], ids=["one page", "many pages"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    return Ledger(page_size=request.param)


async def found(ledger: Ledger) -> Recorded | Check:
    return await read_recorded(Client(ledger), PROGRAM, ADDRESS)  # type: ignore[arg-type]


async def result_of(ledger: Ledger) -> Recorded:
    result = await found(ledger)
    assert isinstance(result, Recorded), result
    return result


async def refusal(ledger: Ledger) -> str:
    result = await found(ledger)
    assert isinstance(result, Check)
    assert not result.ok
    return result.detail


async def test_the_result_of_a_closed_request_is_read_from_its_events(ledger: Ledger) -> None:
    ledger.lands(*by(PROGRAM, submitted(10)))
    ledger.lands(*by(PROGRAM, recorded(10, 1)))
    ledger.lands(*by(PROGRAM, closed(10)))
    assert await result_of(ledger) == Recorded(
        ADDRESS, QUEUE, OPERATOR, REQUESTER, 10, b"\x01" * 32, bytes([101]) * 32, 1_700, None
    )


async def test_of_two_lives_the_newest_counts(ledger: Ledger) -> None:
    for slot, mark in ((10, 1), (50, 2)):
        for happened in (submitted(slot), recorded(slot, mark), closed(slot)):
            ledger.lands(*by(PROGRAM, happened))
    assert (await result_of(ledger)).created_slot == 50
    assert (await result_of(ledger)).output_hash == b"\x02" * 32


async def test_the_answer_of_an_earlier_life_is_not_that_of_the_newest(ledger: Ledger) -> None:
    for happened in (submitted(10), recorded(10, 1), closed(10), submitted(50), closed(50)):
        ledger.lands(*by(PROGRAM, happened))
    assert "slot 50 was closed without" in await refusal(ledger)


async def test_a_close_and_a_new_life_may_share_one_transaction(ledger: Ledger) -> None:
    ledger.lands(*by(PROGRAM, submitted(10)))
    ledger.lands(*by(PROGRAM, recorded(10, 1)))
    ledger.lands(*by(PROGRAM, closed(10)), *by(PROGRAM, submitted(50)))
    assert "slot 50" in await refusal(ledger)
    ledger.lands(*by(PROGRAM, recorded(50, 2)))
    assert (await result_of(ledger)).output_hash == b"\x02" * 32


async def test_a_pack_holds_the_results_of_others_too(ledger: Ledger) -> None:
    ledger.lands(*by(PROGRAM, submitted(10)))
    ledger.lands(
        *by(PROGRAM, recorded(10, 7, OTHER)), *by(PROGRAM, recorded(10, 1)), *by(PROGRAM, recorded(10, 8, OTHER))
    )
    assert (await result_of(ledger)).output_hash == b"\x01" * 32


async def test_the_result_of_another_request_is_not_ours(ledger: Ledger) -> None:
    ledger.lands(*by(PROGRAM, submitted(10)))
    ledger.lands(*by(PROGRAM, recorded(10, 1, OTHER)))
    assert "without" in await refusal(ledger)


FORGERIES = {
    "by another program": by(OTHER, recorded(10, 66)),
    "by a program that ours called": [
        f"Program {PROGRAM} invoke [1]",
        *by(OTHER, recorded(10, 66), depth=2),
        f"Program {PROGRAM} success",
    ],
    "by a program that calls ours": [
        f"Program {OTHER} invoke [1]",
        *by(PROGRAM, depth=2),
        data(recorded(10, 66)),
        f"Program {OTHER} success",
    ],
    "as a message": [
        f"Program {PROGRAM} invoke [1]",
        f"Program log: {data(recorded(10, 66))}",
        f"Program {PROGRAM} success",
    ],
    "as a message with a line break": [
        f"Program {OTHER} invoke [1]",
        f"Program log: x\nProgram {PROGRAM} invoke [1]\n{data(recorded(10, 66))}",
        f"Program {OTHER} success",
    ],
    "after ours has returned": [*by(PROGRAM), data(recorded(10, 66))],
    "in a log that was cut": ["Log truncated", data(recorded(10, 66))],
    "with a byte too many": by(PROGRAM, recorded(10, 66) + b"\0"),
    "under another name": by(PROGRAM, event("InferenceForged", ADDRESS, OPERATOR, bytes(32), bytes(32), 10, 0)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_an_event_that_the_program_did_not_log_counts_for_nothing(ledger: Ledger, forgery: str) -> None:
    ledger.lands(*by(PROGRAM, submitted(10)))
    ledger.lands(*FORGERIES[forgery])
    ledger.lands(*by(PROGRAM, closed(10)))
    assert "slot 10 was closed without" in await refusal(ledger)
    ledger.transactions.insert(1, {**ledger.transactions[0], "logs": by(PROGRAM, recorded(10, 1))})
    ledger.transactions[1]["signature"] = str(Signature.new_unique())
    assert (await result_of(ledger)).output_hash == b"\x01" * 32


@pytest.mark.parametrize("known_as_failed", [True, False])
async def test_a_transaction_that_failed_recorded_nothing(ledger: Ledger, known_as_failed: bool) -> None:
    ledger.lands(*by(PROGRAM, submitted(10)))
    ledger.lands(*by(PROGRAM, recorded(10, 66)), failed=True, known_as_failed=known_as_failed)
    ledger.lands(*by(PROGRAM, recorded(10, 1)))
    ledger.lands(*by(PROGRAM, submitted(50)), failed=True, known_as_failed=known_as_failed)
    ledger.lands(*by(PROGRAM, recorded(10, 67)), failed=True, known_as_failed=known_as_failed)
    assert (await result_of(ledger)).output_hash == b"\x01" * 32


async def test_a_life_that_somebody_else_pretends_is_none(ledger: Ledger) -> None:
    for happened in (submitted(10), recorded(10, 1), closed(10)):
        ledger.lands(*by(PROGRAM, happened))
    ledger.lands(*by(OTHER, submitted(50)))
    assert (await result_of(ledger)).created_slot == 10


async def test_where_a_transaction_is_not_kept_nothing_is_guessed(ledger: Ledger) -> None:
    """What the endpoint forgot may have been a newer life."""
    for happened in (submitted(10), recorded(10, 1), closed(10)):
        ledger.lands(*by(PROGRAM, happened))
    ledger.forgotten.add(ledger.lands(*by(PROGRAM, submitted(50))))
    assert "does not keep" in await refusal(ledger)


async def test_where_the_history_begins_too_late_nothing_is_guessed(ledger: Ledger) -> None:
    ledger.lands(*by(PROGRAM, recorded(10, 1)))
    ledger.lands(*by(PROGRAM, closed(10)))
    assert "does not reach back" in await refusal(ledger)


async def test_an_address_without_a_history_is_no_request(ledger: Ledger) -> None:
    with pytest.raises(OracleError, match="ORC-CLIENT-001"):
        await found(ledger)
    ledger.lands(*by(OTHER, submitted(10), recorded(10, 1)))
    with pytest.raises(OracleError, match="ORC-CLIENT-001"):
        await found(ledger)
