"""From intents to instructions, and from instructions to a signed transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from oracle.chain.program import instructions
from oracle.chain.rpc.types import TransactionFailure
from oracle.chain.signer import Signer
from oracle.core.packing import Item
from oracle.pipeline.context import Context
from oracle.pipeline.errors import UNEXPECTED
from oracle.store.rows import RequestRow, SettlementRow

LAMPORTS_PER_SIGNATURE = 5_000
BUDGET_INSTRUCTIONS = 2
"""Compute limit and price stand before the members: an error's instruction index counts them too."""

NO_DEADLINE = 2**62
"""Of intents that can wait: in a pack they stand behind every result that has a deadline."""

MOST_PUBLISHED_BYTES = 800
"""A longer output fits no transaction (docs/reference/program.md)."""

# Measured (docs/reference/program.md), rounded up: they only decide how many share a transaction.
_COMPUTE_UNITS = {"claim": 3_000, "record": 4_000, "publish": 8_000, "reject": 3_500, "expire": 2_500, "close": 2_500}


_PAYER_WOULD_NOT_LIVE = {"InsufficientFundsForRent": {"account_index": 0}}


def is_of_wallet(failure: TransactionFailure) -> bool:
    """Whether our wallet cannot pay: it has no account, too few lamports, or too few left to stay rent-exempt."""
    return failure.kind in ("AccountNotFound", "InsufficientFundsForFee") or failure.raw == _PAYER_WOULD_NOT_LIVE


@dataclass(frozen=True, slots=True)
class Member:
    """An intent with its request and its instruction, ready to be packed."""

    settlement: SettlementRow
    request: RequestRow
    instruction: Instruction
    item: Item

    @property
    def address(self) -> Pubkey:
        """The request's account, which every instruction names first."""
        return self.instruction.accounts[0].pubkey


def member_of(context: Context, settlement: SettlementRow, request: RequestRow) -> Member:
    instruction = instruction_of(context, settlement, request)
    item = Item(
        id=settlement.id,
        deadline_slot=settlement.deadline_slot,
        keys=frozenset({str(instruction.program_id), *(str(meta.pubkey) for meta in instruction.accounts)}),
        signers=frozenset(str(meta.pubkey) for meta in instruction.accounts if meta.is_signer),
        accounts=len(instruction.accounts),
        data_bytes=len(instruction.data),
        compute_units=_COMPUTE_UNITS[settlement.kind],
        alone=bool(settlement.args.get("alone")),
    )
    return Member(settlement, request, instruction, item)


def instruction_of(context: Context, settlement: SettlementRow, request: RequestRow) -> Instruction:
    program, key, args = context.program_id, context.signer.public_key, settlement.args
    address, operator = Pubkey.from_string(request.address), context.operator_account(request.queue)
    match settlement.kind:
        case "claim":
            return instructions.claim_request(
                program, request=address, operator_key=key, operator=operator, queue=Pubkey.from_string(request.queue)
            )
        case "record":
            return instructions.record_inference_result(
                program,
                request=address,
                operator_key=key,
                operator=operator,
                output_hash=bytes.fromhex(args["output_hash"]),
                job_hash=bytes.fromhex(args["job_hash"]),
                completed_at=args["completed_at"],
            )
        case "publish":
            output = bytes.fromhex(args["output"])
            return instructions.publish_output(
                program, request=address, operator_key=key, operator=operator, output=output
            )
        case "reject":
            return instructions.reject_request(
                program, request=address, operator_key=key, operator=operator, reason=args["reason"]
            )
        case "expire":
            return instructions.expire_request(program, request=address)
        case "close":
            return instructions.close_request(
                program, request=address, refund_to=Pubkey.from_string(request.refund_to), closer=key
            )
        case kind:
            raise UNEXPECTED(f"settlement of kind {kind}")


def message_of(
    payer: Pubkey, members: Sequence[Instruction], blockhash: Hash, *, unit_limit: int, micro_lamports: int
) -> MessageV0:
    budget = [set_compute_unit_limit(unit_limit), set_compute_unit_price(micro_lamports)]
    return MessageV0.try_compile(payer, [*budget, *members], [], blockhash)


def unsigned(message: MessageV0) -> VersionedTransaction:
    """For simulations that do not verify signatures."""
    return VersionedTransaction.populate(message, [Signature.default()])


async def signed(signer: Signer, message: MessageV0) -> VersionedTransaction:
    signature = Signature.from_bytes(await signer.sign(to_bytes_versioned(message)))
    return VersionedTransaction.populate(message, [signature])


def fee_lamports(unit_limit: int, micro_lamports: int) -> int:
    """Base fee of one signature and the priority fee, which is paid on the limit, not on what was used."""
    return LAMPORTS_PER_SIGNATURE + -(-unit_limit * micro_lamports // 1_000_000)
