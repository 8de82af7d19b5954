"""Packs: the size that is computed is the size that is sent, nothing is left out, and the urgent go first."""

from __future__ import annotations

import itertools
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from oracle.chain.program import instructions
from oracle.core import packing
from oracle.core.packing import Item, bisect, compact_length, pack, transaction_bytes

PAYER = Pubkey.from_bytes(bytes([255] * 32))
KEYS = [Pubkey.from_bytes(bytes([n] * 32)) for n in range(1, 41)]
PROGRAMS = [Pubkey.from_bytes(bytes([200 + n] * 32)) for n in range(2)]

metas = st.builds(
    lambda key, is_signer, is_writable: AccountMeta(key, is_signer, is_writable),
    st.sampled_from([PAYER, *KEYS]),
    st.booleans(),
    st.booleans(),
)
some_instruction = st.builds(
    Instruction, st.sampled_from(PROGRAMS), st.binary(max_size=300), st.lists(metas, max_size=140)
)


def item_of(
    n: int, instruction: Instruction, *, deadline_slot: int = 0, units: int = 4_000, alone: bool = False
) -> Item:
    return Item(
        id=n,
        deadline_slot=deadline_slot,
        keys=frozenset({str(instruction.program_id), *(str(meta.pubkey) for meta in instruction.accounts)}),
        signers=frozenset(str(meta.pubkey) for meta in instruction.accounts if meta.is_signer),
        accounts=len(instruction.accounts),
        data_bytes=len(instruction.data),
        compute_units=units,
        alone=alone,
    )


def wire_bytes(members: list[Instruction], payer: Pubkey = PAYER) -> int:
    """What solders makes of a v0 transaction with compute limit, price and `members`."""
    budget = [set_compute_unit_limit(1_400_000), set_compute_unit_price(2**63)]
    message = MessageV0.try_compile(payer, [*budget, *members], [], Hash.default())
    signers = message.header.num_required_signatures
    return len(bytes(VersionedTransaction.populate(message, [Signature.default()] * signers)))


def record(n: int, operator_key: Pubkey = PAYER) -> Instruction:
    return instructions.record_inference_result(
        PROGRAMS[0],
        request=Pubkey.from_bytes(n.to_bytes(32, "big")),
        operator_key=operator_key,
        operator=PROGRAMS[1],
        output_hash=bytes(32),
        job_hash=bytes(32),
        completed_at=0,
    )


@settings(max_examples=4 * settings().max_examples)
@given(st.lists(some_instruction, max_size=6))
def test_the_arithmetic_gives_the_bytes_that_solders_produces(members: list[Instruction]) -> None:
    items = [item_of(n, member) for n, member in enumerate(members)]
    assert transaction_bytes(items, str(PAYER)) == wire_bytes(members)


def test_the_arithmetic_holds_where_a_length_takes_a_second_byte() -> None:
    for keys, data in itertools.product((126, 127, 128, 129), (0, 127, 128)):
        accounts = [AccountMeta(KEYS[n % 40], False, False) for n in range(keys)]
        member = Instruction(PROGRAMS[0], bytes(data), accounts)
        assert transaction_bytes([item_of(0, member)], str(PAYER)) == wire_bytes([member])
    distinct = [AccountMeta(Pubkey.from_bytes(n.to_bytes(32, "big")), n < 130, False) for n in range(1, 140)]
    wide = [Instruction(PROGRAMS[0], b"", distinct[:at]) for at in (124, 125, 126, 127, 128)]
    for member in wide:
        assert transaction_bytes([item_of(0, member)], str(PAYER)) == wire_bytes([member])


def test_the_arithmetic_counts_the_instructions_with_a_second_byte_from_128_on() -> None:
    for count in (125, 126, 127):
        members = [Instruction(PROGRAMS[0], b"", [])] * count
        assert transaction_bytes([item_of(0, m) for m in members], str(PAYER)) == wire_bytes(members)


def test_a_length_is_written_as_solana_writes_it() -> None:
    assert [compact_length(n) for n in (0, 127, 128, 16_383, 16_384, 65_535)] == [1, 1, 2, 2, 3, 3]


def test_eight_records_share_a_transaction_and_a_ninth_does_not() -> None:
    packs = pack((item_of(n, record(n)) for n in range(1, 18)), str(PAYER))
    assert [len(items) for items in packs] == [8, 8, 1]
    assert wire_bytes([record(n) for n in range(1, 9)]) <= packing.TRANSACTION_BYTES
    assert wire_bytes([record(n) for n in range(1, 10)]) > packing.TRANSACTION_BYTES


LISTS = (10 if os.environ.get("ORACLE_TEST_LENGTH") == "long" else 2) * settings().max_examples
MANY = settings(max_examples=LISTS, deadline=None, suppress_health_check=list(HealthCheck))
some_items = st.lists(
    st.builds(
        lambda instruction, deadline_slot, units, alone: (instruction, deadline_slot, units, alone),
        st.builds(
            Instruction, st.sampled_from(PROGRAMS), st.binary(max_size=200), st.lists(metas, min_size=1, max_size=8)
        ),
        st.integers(0, 5),
        st.sampled_from([1_000, 4_000, 400_000, 1_400_000]),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=24,
).map(
    lambda drawn: [
        item_of(n, instruction, deadline_slot=deadline_slot, units=units, alone=alone)
        for n, (instruction, deadline_slot, units, alone) in enumerate(drawn)
    ]
)


@MANY
@given(some_items)
def test_nothing_is_left_out_and_nothing_goes_twice(items: list[Item]) -> None:
    packed = [item.id for items in pack(items, str(PAYER)) for item in items]
    assert sorted(packed) == [item.id for item in items]


@MANY
@given(some_items)
def test_every_pack_keeps_every_limit(items: list[Item]) -> None:
    for members in pack(items, str(PAYER)):
        if len(members) > 1:
            assert transaction_bytes(members, str(PAYER)) <= 1_232
            assert sum(item.compute_units for item in members) <= 1_400_000
            assert len(frozenset.union(*(item.keys for item in members)) | {str(PAYER), "budget"}) < 64


@MANY
@given(some_items)
def test_an_item_that_is_alone_shares_with_nobody(items: list[Item]) -> None:
    for members in pack(items, str(PAYER)):
        assert len(members) == 1 or not any(item.alone for item in members)


@MANY
@given(some_items)
def test_the_urgent_are_never_overtaken(items: list[Item]) -> None:
    packs = pack(items, str(PAYER))

    def urgency(item: Item) -> tuple[int, int]:
        return item.deadline_slot, item.id

    for members in packs:
        assert list(members) == sorted(members, key=urgency)
    firsts = [urgency(members[0]) for members in packs]
    assert firsts == sorted(firsts)
    shared = [urgency(item) for members in packs for item in members if not item.alone]
    assert shared == sorted(shared)


@MANY
@given(some_items)
def test_a_pack_is_closed_only_by_an_item_that_does_not_fit(items: list[Item]) -> None:
    packs = [members for members in pack(items, str(PAYER)) if not members[0].alone]
    for members, following in itertools.pairwise(packs):
        longer = [*members, following[0]]
        assert transaction_bytes(longer, str(PAYER)) > 1_232 or sum(item.compute_units for item in longer) > 1_400_000


def test_limits_are_reached_exactly() -> None:
    units = [item_of(n, record(n), units=700_000) for n in range(1, 4)]
    assert [len(members) for members in pack(units, str(PAYER))] == [2, 1]
    sizes = []
    for length in range(700, 1_100):
        items = [item_of(0, record(1)), item_of(1, Instruction(PROGRAMS[0], bytes(length), []))]
        if len(pack(items, str(PAYER))) == 1:
            sizes.append(transaction_bytes(items, str(PAYER)))
    assert max(sizes) == 1_232


def test_an_item_too_large_for_any_transaction_is_still_handed_on() -> None:
    """The simulation refuses it with a reason; dropped here, it would be forgotten."""
    huge = item_of(1, Instruction(PROGRAMS[0], bytes(2_000), []))
    assert pack([item_of(0, record(1)), huge, item_of(2, record(2))], str(PAYER)) == [
        (item_of(0, record(1)),),
        (huge,),
        (item_of(2, record(2)),),
    ]


def test_nothing_makes_no_pack() -> None:
    assert pack([], str(PAYER)) == []
    assert bisect([]) == []


@MANY
@given(some_items)
def test_halves_hold_each_member_once_in_order_and_end_with_each_alone(items: list[Item]) -> None:
    halves = bisect(items)
    assert [item for half in halves for item in half] == items
    assert max((len(half) for half in halves), default=0) <= (len(items) + 1) // 2
    rounds, packs = 0, halves
    while any(len(half) > 1 for half in packs):
        packs = [smaller for half in packs for smaller in bisect(half)]
        rounds += 1
    assert len(packs) == len(items)
    assert rounds <= 5
