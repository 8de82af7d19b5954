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
from oracle.chain.rpc.errors import BEHIND
from oracle.chain.rpc.types import TransactionFailure
from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.core.packing import MAX_COMPUTE_UNITS, bisect
from oracle.core.policy import FUTILE_SETTLEMENT, NOT_NOW
from oracle.core.request import ZERO_HASH
from oracle.pipeline.batch import Batch
from oracle.pipeline.context import Context
from oracle.pipeline.errors import OPERATOR_BROKE, SETTLEMENT_REFUSED
from oracle.pipeline.transactions import BUDGET_INSTRUCTIONS, is_of_wallet, message_of, unsigned
from oracle.store.rows import RequestRow

TOGETHER = 8
NOT_NOW_SECONDS = 5.0
BROKE_SECONDS = 10.0
"""How often a request that waits for our wallet to be funded asks whether it is."""

FRESH_MS = 10_000
"""For how long a rehearsal is believed."""

# What may change by itself, or ends the request by another's hand, of which the watcher will tell.
_PASSING = ("ClaimedByAnother", "QueuePaused", "RequestEnded", "DeadlinePassed")
WINDOW_SECONDS = 0.01

# What one row can bring upon all: then each half is tried, down to the one whose fault it is.
_SOMEBODYS_FAULT = (SETTLEMENT_REFUSED, BEHIND)


def rehearsals(context: Context) -> Batch[RequestRow, None]:
    async def do(rows: Sequence[RequestRow]) -> Sequence[BaseException | None]:
        return await simulate_all(context, rows)

    return Batch(do, most=TOGETHER, window_seconds=WINDOW_SECONDS, is_eager=True)


async def rehearse(context: Context, row: RequestRow) -> None:
    """Raise ORC-POLICY-012 where the program would refuse the next transaction that this request needs."""
    if context.rehearsals is None:
        context.rehearsals = rehearsals(context)
    await context.rehearsals.add(row)


async def rehearse_again(context: Context, row: RequestRow) -> None:
    """`rehearse`, where what admission has found is old by now, or was about another transaction."""
    is_recent = context.clock.now_ms() - row.state_since_ms < FRESH_MS
    was_just_admitted = row.state is State.ADMITTED and not row.attempts_made and is_recent
    # What is bought for as it is admitted is only `seen` in the record.
    is_fresh = row.state is State.SEEN or was_just_admitted
    if context.config.policy.simulate_before_buying and not is_fresh:
        await rehearse(context, row)


async def simulate_all(context: Context, rows: Sequence[RequestRow]) -> list[BaseException | None]:
    """One result a row: None, or the error against it."""
    try:
        return await simulated(context, rows)
    except OracleError as error:
        if len(rows) == 1 or error.error not in _SOMEBODYS_FAULT:
            return [error] * len(rows)
        return [result for half in bisect(rows) for result in await simulate_all(context, half)]


async def simulated(context: Context, rows: Sequence[RequestRow]) -> list[BaseException | None]:
    """A refused row is taken out, and the rest run again. Raises where nobody is named."""
    results: list[BaseException | None] = [None] * len(rows)
    left = list(range(len(rows)))
    while left:
        message = message_of(
            context.signer.public_key,
            [next_instruction(context, rows[at]) for at in left],
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
        if is_of_wallet(failure):
            raise OPERATOR_BROKE(failure.kind, retry_after_seconds=BROKE_SECONDS)
        if not 0 <= culprit < len(left):
            raise SETTLEMENT_REFUSED(failure.kind)
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


def next_instruction(context: Context, row: RequestRow) -> Instruction:
    """What comes next on chain: the claim where one is still required, else the record, with hashes yet unknown."""
    request, key = Pubkey.from_string(row.address), context.signer.public_key
    operator = context.operator_account(row.queue)
    if row.claim_required and row.state in (State.SEEN, State.ADMITTED):
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
