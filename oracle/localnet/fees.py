"""What a transaction costs its payer: 5,000 lamports for every signature, and the compute price times the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from solders.instruction import CompiledInstruction
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey

LAMPORTS_PER_SIGNATURE = 5_000
MAX_COMPUTE_UNITS = 1_400_000
_DEFAULT_UNITS = 200_000
_DEFAULT_BUILTIN_UNITS = 3_000

COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
_PRECOMPILES = frozenset(
    Pubkey.from_string(address)
    for address in (
        "Ed25519SigVerify111111111111111111111111111",
        "KeccakSecp256k11111111111111111111111111111",
        "Secp256r1SigVerify1111111111111111111111111",
    )
)
_BUILTINS = _PRECOMPILES | {
    COMPUTE_BUDGET,
    *(
        Pubkey.from_string(address)
        for address in (
            "11111111111111111111111111111111",
            "Vote111111111111111111111111111111111111111",
            "BPFLoader1111111111111111111111111111111111",
            "BPFLoader2111111111111111111111111111111111",
            "BPFLoaderUpgradeab1e11111111111111111111111",
            "LoaderV411111111111111111111111111111111111",
        )
    ),
}


@dataclass(frozen=True, slots=True)
class Fee:
    """`price_micro_lamports` is per compute unit."""

    base_lamports: int
    price_micro_lamports: int
    limit_compute_units: int

    @property
    def priority_lamports(self) -> int:
        return -(-self.price_micro_lamports * self.limit_compute_units // 1_000_000)

    @property
    def lamports(self) -> int:
        return self.base_lamports + self.priority_lamports


def of_message(message: Message | MessageV0) -> Fee:
    """The fee of a message. Signatures that precompiles verify are paid for like those of the transaction."""
    keys = message.account_keys
    calls = [
        (keys[instruction.program_id_index], instruction)
        for instruction in message.instructions
        if instruction.program_id_index < len(keys)
    ]
    signatures = message.header.num_required_signatures + sum(
        bytes(instruction.data)[0] for program, instruction in calls if program in _PRECOMPILES and instruction.data
    )
    limit, price = _compute_budget(calls)
    return Fee(LAMPORTS_PER_SIGNATURE * signatures, price, limit)


def _compute_budget(calls: Sequence[tuple[Pubkey, CompiledInstruction]]) -> tuple[int, int]:
    limit, price = None, 0
    for program, instruction in calls:
        data = bytes(instruction.data)
        if program != COMPUTE_BUDGET or not data:
            continue
        if data[0] == 2 and len(data) >= 5:
            limit = int.from_bytes(data[1:5], "little")
        elif data[0] == 3 and len(data) >= 9:
            price = int.from_bytes(data[1:9], "little")
    if limit is None:
        limit = sum(_DEFAULT_BUILTIN_UNITS if program in _BUILTINS else _DEFAULT_UNITS for program, _ in calls)
    return min(limit, MAX_COMPUTE_UNITS), price
