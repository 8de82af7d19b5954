"""Simulates the settlement of a request before anything is bought for it: the cheapest insurance there is.

What a settlement needs of the chain is known at admission, all but the answer: that the operator is registered, the
request open, and the terms met. Requests that arrive together are rehearsed in one simulation.
"""

from __future__ import annotations

from collections.abc import Sequence

from solders.hash import Hash
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from oracle.chain.program import instructions
from oracle.chain.program.errors import explain
from oracle.chain.rpc.types import TransactionFailure
from oracle.core.errors import OracleError
from oracle.core.packing import MAX_COMPUTE_UNITS
from oracle.core.policy import FUTILE_SETTLEMENT, NOT_NOW
from oracle.core.request import ZERO_HASH
from oracle.pipeline.batch import Batch
from oracle.pipeline.context import Context
from oracle.pipeline.errors import OPERATOR_BROKE
from oracle.pipeline.transactions import BUDGET_INSTRUCTIONS, message_of, unsigned
from oracle.store.rows import RequestRow

TOGETHER = 8
NOT_NOW_SECONDS = 5.0

# What may change by itself, or ends the request by another's hand, of which the watcher will tell.
_PASSING = ("ClaimedByAnother", "QueuePaused", "RequestEnded", "DeadlinePassed")
WINDOW_SECONDS = 0.01


def rehearsals(context: Context) -> Batch[RequestRow, None]:
    async def do(rows: Sequence[RequestRow]) -> Sequence[BaseException | None]:
        return await simulate_all(context, rows)

    return Batch(do, most=TOGETHER, window_seconds=WINDOW_SECONDS, is_eager=True)


async def rehearse(context: Context, row: RequestRow) -> None:
    """Raise ORC-POLICY-012 where the program would refuse the first transaction that this request needs."""
    if context.rehearsals is None:
        context.rehearsals = rehearsals(context)
    await context.rehearsals.add(row)


async def simulate_all(context: Context, rows: Sequence[RequestRow]) -> list[BaseException | None]:
    """One result a row: None, or the error against it. A refused row is taken out, and the rest run again."""
    results: list[BaseException | None] = [None] * len(rows)
    left = list(range(len(rows)))
    while left:
        message = message_of(
            context.signer.public_key,
            [first_instruction(context, rows[at]) for at in left],
            Hash.default(),
            unit_limit=MAX_COMPUTE_UNITS,
            micro_lamports=0,
        )
        simulation = await context.rpc.simulate_transaction(
            bytes(unsigned(message)),
            replace_blockhash=True,
            min_context_slot=max(rows[at].chain_slot for at in left),
        )
        failure = simulation.failure
        if failure is None:
            break
        culprit = -1 if failure.instruction is None else failure.instruction - BUDGET_INSTRUCTIONS
        if not 0 <= culprit < len(left):
            error = OPERATOR_BROKE(failure.kind)
            for at in left:
                results[at] = error
            break
        results[left.pop(culprit)] = judged(failure)
    return results


def judged(failure: TransactionFailure) -> OracleError | None:
    """What a refusal of the rehearsal means for the request; None where it speaks for us after all."""
    if failure.custom is None:
        return FUTILE_SETTLEMENT(failure.kind)
    refusal = explain(failure.custom)
    if refusal.name == "AlreadyClaimed":
        return None
    if refusal.name in _PASSING:
        return NOT_NOW(str(refusal), retry_after_seconds=NOT_NOW_SECONDS)
    return FUTILE_SETTLEMENT(str(refusal))


def first_instruction(context: Context, row: RequestRow) -> Instruction:
    """What comes first on chain: the claim where one is required, else the record, with hashes yet unknown."""
    request, key = Pubkey.from_string(row.address), context.signer.public_key
    operator = context.operator_account(row.queue)
    if row.claim_required:
        return instructions.claim_request(
            context.program_id,
            request=request,
            operator_key=key,
            operator=operator,
            queue=Pubkey.from_string(row.queue),
        )
    return instructions.record_inference_result(
        context.program_id,
        request=request,
        operator_key=key,
        operator=operator,
        output_hash=ZERO_HASH,
        job_hash=ZERO_HASH,
        completed_at=0,
    )
