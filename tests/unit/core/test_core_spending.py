"""What a key signs, and for how much, is read from the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import request_heap_frame, set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import Message, MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.token import ID as TOKEN_PROGRAM

from oracle.core.errors import OracleError
from oracle.core.spending import Caps, Charter, Day, Spend, judge, nothing, set_aside

KEY, OURS = Pubkey.new_unique(), Pubkey.new_unique()


def costs_of(data: bytes) -> int:
    if len(data) != 9:
        raise ValueError("cut off")
    return int.from_bytes(data[1:], "little")


CHARTER = Charter({OURS: [(b"\x01", nothing), (b"\x02", costs_of)]}, frozenset({b"\xffa text"}))
CAPS = Caps(Spend(100_000, 50), Spend(1_000_000, 500))


def ours(data: bytes = b"\x01and more", *signers: Pubkey) -> Instruction:
    return Instruction(OURS, data, [AccountMeta(each, True, False) for each in signers])


def message(*instructions: Instruction, payer: Pubkey = KEY) -> bytes:
    return to_bytes_versioned(MessageV0.try_compile(payer, instructions, [], Hash.default()))


def judged(*instructions: Instruction, micro_nos: int = 0) -> Spend:
    return judge(message(*instructions), KEY, CHARTER, CAPS, micro_nos=micro_nos)


def refused(code: str, signed: bytes, micro_nos: int = 0) -> str:
    with pytest.raises(OracleError, match=code) as raised:
        judge(signed, KEY, CHARTER, CAPS, micro_nos=micro_nos)
    return raised.value.detail


def test_fee_priority_fee_and_what_is_moved_are_counted_together() -> None:
    budget = set_compute_unit_limit(20_000), set_compute_unit_price(200_001)
    paid = ours(b"\x02" + (777).to_bytes(8, "little"))
    assert judged(*budget, ours(), paid, micro_nos=3) == Spend(5_000 + 4_001 + 777, 3)
    assert judged(ours(b"\x01", Pubkey.new_unique(), Pubkey.new_unique())) == Spend(15_000)


def test_a_price_without_a_limit_is_reckoned_with_the_most_units_that_a_transaction_has() -> None:
    assert judged(set_compute_unit_price(10_000), ours()) == Spend(5_000 + 14_000)
    # A limit beyond what the cluster allows is cut by it, so nothing more is paid.
    assert judged(set_compute_unit_price(10_000), set_compute_unit_limit(2**32 - 1), ours()) == Spend(19_000)


@given(limit=st.integers(0, 2**32 - 1), price=st.integers(0, 2**64 - 1), moved=st.integers(0, 2**64 - 1))
def test_nothing_above_the_limit_is_ever_signed(limit: int, price: int, moved: int) -> None:
    budget = set_compute_unit_limit(limit), set_compute_unit_price(price)
    signed = message(*budget, ours(b"\x02" + moved.to_bytes(8, "little")))
    cost = 5_000 + -(-min(limit, 1_400_000) * price // 1_000_000) + moved
    if cost <= 100_000:
        assert judge(signed, KEY, CHARTER, CAPS) == Spend(cost)
    else:
        refused("ORC-SIGNER-011", signed)


def test_more_tokens_than_a_transaction_may_take_are_refused() -> None:
    assert judged(ours(), micro_nos=50) == Spend(5_000, 50)
    refused("ORC-SIGNER-011", message(ours()), micro_nos=51)
    refused("ORC-SIGNER-010", message(ours()), micro_nos=-1)


def hostile() -> dict[str, bytes]:
    thief = Pubkey.new_unique()
    drain = transfer(TransferParams(from_pubkey=KEY, to_pubkey=thief, lamports=1))
    accounts = [AccountMeta(each, each == KEY, True) for each in (Pubkey.new_unique(), thief, KEY)]
    tokens = Instruction(TOKEN_PROGRAM, bytes([3]) + (1).to_bytes(8, "little"), accounts)
    good = message(ours())
    table = AddressLookupTableAccount(Pubkey.new_unique(), [thief])
    looked_up = Instruction(OURS, b"\x01", [AccountMeta(thief, False, True)])
    return {
        "a transfer": message(drain),
        "a transfer beside ours": message(ours(), drain),
        "tokens": message(ours(), tokens),
        "another payer": message(ours(b"\x01", KEY), payer=thief),
        "another instruction of our program": message(ours(b"\x03")),
        "an instruction without data": message(ours(b"")),
        "an instruction that is cut off": message(ours(b"\x02\x00")),
        "our bytes to another program": message(Instruction(thief, b"\x01", [])),
        "a heap": message(request_heap_frame(65_536), ours()),
        "two prices": message(set_compute_unit_price(1), ours(), set_compute_unit_price(2)),
        "two limits": message(set_compute_unit_limit(1), ours(), set_compute_unit_limit(2)),
        "a look-up table": to_bytes_versioned(MessageV0.try_compile(KEY, [looked_up], [table], Hash.default())),
        "legacy": to_bytes_versioned(Message.new_with_blockhash([ours()], KEY, Hash.default())),
        "trailing bytes": good + b"\x00",
        "cut off": good[:-1],
        "without its version": good[1:],
        "another version": b"\x81" + good[1:],
        "nothing": b"",
        "a text of somebody else": b"\xffanother text",
        "a signed transaction": b"\x01" + bytes(64) + good,
    }


@pytest.mark.parametrize("kind", sorted(hostile()))
def test_what_the_daemon_does_not_make_is_refused(kind: str) -> None:
    assert refused("ORC-SIGNER-010", hostile()[kind])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_by_a_code_and_nothing_else(noise: bytes) -> None:
    refused("ORC-SIGNER-010", noise)
    refused("ORC-SIGNER-010", b"\x80" + noise)


@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
def test_one_changed_byte_never_makes_another_instruction_pass(at: int, value: int) -> None:
    signed = bytearray(message(set_compute_unit_limit(7), set_compute_unit_price(9), ours()))
    signed[at % len(signed)] = value
    try:
        spend = judge(bytes(signed), KEY, CHARTER, CAPS)
    except OracleError:
        return
    transaction = MessageV0.from_bytes(bytes(signed[1:]))
    assert transaction.account_keys[0] == KEY
    programs = {str(transaction.account_keys[each.program_id_index]) for each in transaction.instructions}
    assert programs <= {str(OURS), "ComputeBudget111111111111111111111111111111"}
    assert 5_000 <= spend.lamports <= 100_000


def test_a_text_of_the_charter_is_signed_and_costs_nothing() -> None:
    assert judge(b"\xffa text", KEY, CHARTER, CAPS) == Spend()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 600), st.integers(0, 300), st.integers(0, 200)), max_size=30)
)
def test_no_day_is_ever_overspent_whatever_is_asked_and_however_the_clock_is_set(
    asked: list[tuple[int, int, int, int]],
) -> None:
    cap, known, by_day = Spend(1_000, 500), None, dict.fromkeys(range(4), Spend())
    newest = 0
    for today, lamports, micro_nos, more in asked:
        newest = max(newest, today)
        least = Spend(lamports, micro_nos)
        try:
            known, granted = set_aside(known, today, least, least + Spend(more, more), cap)
        except OracleError:
            assert not (by_day[newest] + least).within(cap)
            continue
        assert least.within(granted)
        by_day[newest] += granted
        assert by_day[newest].within(cap)
        assert known == Day(newest, by_day[newest])
