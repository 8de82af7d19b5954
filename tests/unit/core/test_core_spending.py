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

KEY, OURS, THIEF = Pubkey.new_unique(), Pubkey.new_unique(), Pubkey.new_unique()
BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")


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


def test_everything_that_is_moved_is_counted_whatever_stands_between() -> None:
    three, four = (ours(b"\x02" + n.to_bytes(8, "little")) for n in (3, 4))
    assert judged(three, ours(), four, ours()) == Spend(5_000 + 7)
    assert judged(three, set_compute_unit_price(1), three) == Spend(5_000 + 2 + 6)


def test_a_part_of_a_lamport_of_the_priority_fee_is_paid_as_a_whole_one() -> None:
    for price, lamports in ((1, 1), (1_000_000, 1), (1_000_001, 2), (5_000_000, 5), (5_000_001, 6)):
        assert judged(set_compute_unit_limit(1), set_compute_unit_price(price), ours()) == Spend(5_000 + lamports)


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


def hostile() -> dict[str, bytes]:
    drain = transfer(TransferParams(from_pubkey=KEY, to_pubkey=THIEF, lamports=1))
    accounts = [AccountMeta(each, each == KEY, True) for each in (Pubkey.new_unique(), THIEF, KEY)]
    tokens = Instruction(TOKEN_PROGRAM, bytes([3]) + (1).to_bytes(8, "little"), accounts)
    good = message(ours())
    table = AddressLookupTableAccount(Pubkey.new_unique(), [THIEF])
    looked_up = Instruction(OURS, b"\x01", [AccountMeta(THIEF, False, True)])
    return {
        "a transfer": message(drain),
        "a transfer beside ours": message(ours(), drain),
        "tokens": message(ours(), tokens),
        "another payer": message(ours(b"\x01", KEY), payer=THIEF),
        "another instruction of our program": message(ours(b"\x03")),
        "an instruction without data": message(ours(b"")),
        "an instruction that is cut off": message(ours(b"\x02\x00")),
        "our bytes to another program": message(Instruction(THIEF, b"\x01", [])),
        "a heap": message(request_heap_frame(65_536), ours()),
        "two prices": message(set_compute_unit_price(1), ours(), set_compute_unit_price(2)),
        "two limits": message(set_compute_unit_limit(1), ours(), set_compute_unit_limit(2)),
        "a look-up table": to_bytes_versioned(MessageV0.try_compile(KEY, [looked_up], [table], Hash.default())),
        "a limit without data": message(Instruction(BUDGET, b"", []), ours()),
        "a limit that is too long": message(Instruction(BUDGET, bytes([2, 1, 0, 0, 0, 0]), []), ours()),
        "a price that is too short": message(Instruction(BUDGET, bytes([3, 1, 0, 0, 0]), []), ours()),
        "a fourth kind of the length of a price": message(Instruction(BUDGET, bytes([4]) + bytes(8), []), ours()),
        "an account twice": good.replace(bytes(OURS), bytes(KEY)),
        "a version alone": b"\x80",
        "legacy": to_bytes_versioned(Message.new_with_blockhash([ours()], KEY, Hash.default())),
        "trailing bytes": good + b"\x00",
        "cut off": good[:-1],
        "without its version": good[1:],
        "another version": b"\x81" + good[1:],
        "nothing": b"",
        "a text of somebody else": b"\xffanother text",
        "a signed transaction": b"\x01" + bytes(64) + good,
    }


WHY = {
    "a transfer": "instruction 0200000001000000 of program 11111111111111111111111111111111",
    "a transfer beside ours": "instruction 0200000001000000 of program 11111111111111111111111111111111",
    "tokens": f"instruction 0301000000000000 of program {TOKEN_PROGRAM}",
    "another payer": f"the fee payer is {THIEF}",
    "our bytes to another program": f"instruction 01 of program {THIEF}",
    "another instruction of our program": f"instruction 03 of program {OURS}",
    "an instruction without data": f"instruction without data of program {OURS}",
    "an instruction that is cut off": f"{OURS}: cut off",
    "a heap": "an unknown instruction of the compute budget",
    "two prices": "a compute budget is set twice",
    "two limits": "a compute budget is set twice",
    "a limit without data": "an unknown instruction of the compute budget",
    "a limit that is too long": "an unknown instruction of the compute budget",
    "a price that is too short": "an unknown instruction of the compute budget",
    "a fourth kind of the length of a price": "an unknown instruction of the compute budget",
    "a look-up table": "it names accounts by a look-up table",
    "an account twice": "an account stands in it twice, or none at all",
    "legacy": "no transaction of version 0",
    "a version alone": "it cannot be read: ValueError",
    "trailing bytes": "there is more in it than a transaction",
    "cut off": "it cannot be read: ValueError",
    "without its version": "no transaction of version 0",
    "another version": "no transaction of version 0",
    "nothing": "no transaction of version 0",
    "a text of somebody else": "no transaction of version 0",
    "a signed transaction": "no transaction of version 0",
}


@pytest.mark.parametrize("kind", sorted(hostile()))
def test_what_the_daemon_does_not_make_is_refused_for_its_own_reason(kind: str) -> None:
    assert refused("ORC-SIGNER-010", hostile()[kind]) == WHY[kind]


def test_what_is_refused_for_its_price_is_told_with_its_limit() -> None:
    dear = message(ours(b"\x02" + (100_000).to_bytes(8, "little")))
    assert (
        refused("ORC-SIGNER-011", dear, 3)
        == "105,000 lamports and 0.000003 NOS, at most 100,000 lamports and 0.00005 NOS"
    )
    assert refused("ORC-SIGNER-010", message(ours()), -1) == "it is said to take less than nothing"


def test_every_limit_may_be_reached_but_not_passed() -> None:
    def paying(lamports: int) -> Instruction:
        return ours(b"\x02" + lamports.to_bytes(8, "little"))

    assert judged(paying(95_000), micro_nos=50) == Spend(100_000, 50)
    refused("ORC-SIGNER-011", message(paying(95_001)), 50)
    refused("ORC-SIGNER-011", message(paying(95_000)), 51)


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
    assert programs <= {str(OURS), str(BUDGET)}
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


def test_spends_are_compared_kind_by_kind() -> None:
    one, other = Spend(10, 2), Spend(7, 5)
    assert one + other == Spend(17, 7)
    assert one.less(other) == Spend(3, 0)
    assert other.less(one) == Spend(0, 3)
    assert one.at_most(other) == Spend(7, 2)
    assert one.within(one)
    assert not one.within(Spend(9, 9))
    assert not one.within(Spend(11, 1))


def test_a_spend_names_the_tokens_only_where_there_are_any_and_then_to_the_last_millionth() -> None:
    assert str(Spend(1_234_567)) == "1,234,567 lamports"
    assert str(Spend(0, 2_500_000)) == "0 lamports and 2.5 NOS"
    assert str(Spend(0, 10_000_000)) == "0 lamports and 10 NOS"
    assert str(Spend(1, 1_234_567_890_123)) == "1 lamports and 1,234,567.890123 NOS"


CAP = Spend(1_000, 500)


def test_as_much_is_set_aside_as_there_is_up_to_what_is_wished_and_never_less_than_what_is_needed() -> None:
    assert set_aside(None, 5, Spend(10, 1), Spend(100, 20), CAP) == (Day(5, Spend(100, 20)), Spend(100, 20))
    nearly = Day(5, Spend(950, 490))
    assert set_aside(nearly, 5, Spend(10, 1), Spend(100, 20), CAP) == (Day(5, CAP), Spend(50, 10))
    # Whoever wishes for less than is needed gets what is needed.
    assert set_aside(nearly, 5, Spend(50, 10), Spend(0, 0), CAP) == (Day(5, CAP), Spend(50, 10))


def test_a_new_day_has_its_whole_allowance_and_an_old_one_does_not_come_back() -> None:
    spent = Day(5, CAP)
    assert set_aside(spent, 6, Spend(1), Spend(1), CAP) == (Day(6, Spend(1)), Spend(1))
    for today in (5, 4):
        with pytest.raises(OracleError, match="ORC-SIGNER-012") as raised:
            set_aside(spent, today, Spend(1), Spend(1), CAP)
        assert raised.value.detail == (
            "1,000 lamports and 0.0005 NOS set aside, 1 lamports more asked, 1,000 lamports and 0.0005 NOS allowed"
        )
