"""What may be signed with a key, and what that may cost: read from the bytes that are to be signed, and judged.

Whoever can make the daemon sign something else than its own transactions has its wallet. So the bytes themselves are
read, whoever made them: only instructions of the charter pass, and everything that they can take is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey

from oracle.core.errors import ErrorCode, Verdict

NOT_OURS = ErrorCode(
    "ORC-SIGNER-010",
    "Not a transaction of this oracle",
    "What was to be signed is no transaction that the key pays for, or has an instruction that the daemon never makes.",
    "The daemon itself never asks for this. If it is in your log, somebody else uses the signer: see the detail.",
)
TOO_EXPENSIVE = ErrorCode(
    "ORC-SIGNER-011",
    "Transaction costs more than the spend policy allows",
    "Its fee and all that it can move are above the limit for one transaction.",
    "If that is right, raise max_lamports_per_transaction or max_micro_nos_per_transaction in [spending].",
)
DAY_SPENT = ErrorCode(
    "ORC-SIGNER-012",
    "The key has spent its allowance of the day",
    "All transactions signed since midnight UTC, with this one, would cost more than the limit for a day.",
    "Is the spending right (`oracle_ledger_lamports`)? Then raise the limits in [spending], or wait for midnight UTC.",
    Verdict.RETRY,
)

LAMPORTS_PER_SIGNATURE: Final = 5_000
MOST_COMPUTE_UNITS: Final = 1_400_000
COMPUTE_BUDGET: Final = Pubkey.from_string("ComputeBudget111111111111111111111111111111")

_VERSION_0: Final = b"\x80"
_UNIT_LIMIT: Final = b"\x02"
_UNIT_PRICE: Final = b"\x03"


@dataclass(frozen=True, slots=True)
class Spend:
    """What a transaction can take from the wallet: lamports, and millionths of a NOS."""

    lamports: int = 0
    micro_nos: int = 0

    def __add__(self, other: Spend) -> Spend:
        return Spend(self.lamports + other.lamports, self.micro_nos + other.micro_nos)

    def less(self, other: Spend) -> Spend:
        """What is left of it without `other`, of each kind at least nothing."""
        return Spend(max(0, self.lamports - other.lamports), max(0, self.micro_nos - other.micro_nos))

    def within(self, other: Spend) -> bool:
        return self.lamports <= other.lamports and self.micro_nos <= other.micro_nos

    def at_most(self, other: Spend) -> Spend:
        return Spend(min(self.lamports, other.lamports), min(self.micro_nos, other.micro_nos))

    def __str__(self) -> str:
        nos = f" and {Decimal(self.micro_nos) / 1_000_000:,f} NOS" if self.micro_nos else ""
        return f"{self.lamports:,} lamports{nos}"


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that one transaction, and all of a day (UTC), may take."""

    transaction: Spend
    day: Spend


Lamports = Callable[[bytes], int]
"""How many lamports an instruction can move out of the wallet, from its data. Raises ValueError for what is no such."""


@dataclass(frozen=True, slots=True)
class Charter:
    """The instructions that a key signs: by program and the first bytes of their data, longest first.

    `texts` are messages that are no transactions, and are signed as they are.
    """

    instructions: Mapping[Pubkey, Sequence[tuple[bytes, Lamports]]]
    texts: frozenset[bytes] = frozenset()


def nothing(_: bytes) -> int:
    """Of instructions that move no lamports out of the wallet."""
    return 0


def judge(message: bytes, key: Pubkey, charter: Charter, caps: Caps, *, micro_nos: int = 0) -> Spend:
    """What signing `message` can cost. Raises ORC-SIGNER-010 and 011.

    `micro_nos` is what the caller says that the transaction takes: the price of a job stands on chain, not in its
    instruction.
    """
    if message in charter.texts:
        return Spend()
    if micro_nos < 0:
        raise NOT_OURS("it is said to take less than nothing")
    transaction = _decoded(message)
    if transaction.account_keys[0] != key:
        raise NOT_OURS(f"the fee payer is {transaction.account_keys[0]}")
    spend = Spend(_lamports(transaction, charter), micro_nos)
    if not spend.within(caps.transaction):
        raise TOO_EXPENSIVE(f"{spend}, at most {caps.transaction}")
    return spend


def _decoded(message: bytes) -> MessageV0:
    """A message of version 0 without look-up tables: the daemon makes no others, and no table hides an account here."""
    if not message.startswith(_VERSION_0):
        raise NOT_OURS("no transaction of version 0")
    try:
        transaction = MessageV0.from_bytes(message[1:])
        transaction.sanitize()
        is_whole = to_bytes_versioned(transaction) == message
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # solders' PanicException is a BaseException
        raise NOT_OURS(f"it cannot be read: {type(error).__name__}") from None
    if not is_whole:
        raise NOT_OURS("there is more in it than a transaction")
    if transaction.address_table_lookups:
        raise NOT_OURS("it names accounts by a look-up table")
    if not transaction.account_keys or len(set(transaction.account_keys)) < len(transaction.account_keys):
        raise NOT_OURS("an account stands in it twice, or none at all")
    return transaction


def _lamports(transaction: MessageV0, charter: Charter) -> int:
    """Fee, priority fee and all that the instructions can move."""
    units, price, moved = MOST_COMPUTE_UNITS, 0, 0
    seen: set[bytes] = set()
    for each in transaction.instructions:
        program, data = transaction.account_keys[each.program_id_index], bytes(each.data)
        if program != COMPUTE_BUDGET:
            moved += _moved(program, data, charter)
            continue
        kind = data[:1]
        if kind in seen:
            raise NOT_OURS("a compute budget is set twice")
        seen.add(kind)
        if kind == _UNIT_LIMIT and len(data) == 5:
            units = min(int.from_bytes(data[1:], "little"), MOST_COMPUTE_UNITS)
        elif kind == _UNIT_PRICE and len(data) == 9:
            price = int.from_bytes(data[1:], "little")
        else:
            raise NOT_OURS("an unknown instruction of the compute budget")
    signatures = transaction.header.num_required_signatures
    return LAMPORTS_PER_SIGNATURE * signatures - (-units * price // 1_000_000) + moved


def _moved(program: Pubkey, data: bytes, charter: Charter) -> int:
    for start, lamports in charter.instructions.get(program, ()):
        if data.startswith(start):
            try:
                return lamports(data)
            except ValueError as error:
                raise NOT_OURS(f"{program}: {error}") from None
    raise NOT_OURS(f"instruction {data[:8].hex() or 'without data'} of program {program}")


@dataclass(frozen=True, slots=True)
class Day:
    """What has been set aside since midnight UTC of the `number`-th day since 1970."""

    number: int
    spent: Spend = Spend()


def set_aside(known: Day | None, today: int, least: Spend, most: Spend, cap: Spend) -> tuple[Day, Spend]:
    """Set aside at least `least` of today's allowance, `most` where there is as much, and tell how much it was.

    A clock that was set back does not open a day again. Raises ORC-SIGNER-012.
    """
    day = known if known is not None and known.number >= today else Day(today)
    free = cap.less(day.spent)
    if not least.within(free):
        raise DAY_SPENT(f"{day.spent} set aside, {least} more asked, {cap} allowed")
    granted = most.at_most(free)
    granted = Spend(max(granted.lamports, least.lamports), max(granted.micro_nos, least.micro_nos))
    return replace(day, spent=day.spent + granted), granted
