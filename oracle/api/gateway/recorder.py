"""waiting -> sent -> landed -> ended: puts the requests of answers that were given on chain, each exactly once.

The answer is durable before a transaction is signed, and the signed bytes before they are sent. Law 2 holds here as it
does for settlements: a second transaction only when the first is proven dead. A request that was answered and closed
could be made again at the same address, and would be paid for again. From the moment the daemon sees the request the
rest is its ordinary work, but for the purchase (`pipeline.recorded`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from solana.rpc.commitment import Finalized
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature
from sqlalchemy import Connection

from oracle.api.gateway.errors import RECORDING_GIVEN_UP, RECORDING_IMPOSSIBLE, RECORDING_UNCLEAR
from oracle.api.gateway.recording import submission
from oracle.chain.program.body import decode_body
from oracle.chain.program.errors import explain
from oracle.chain.rpc.types import SignatureStatus
from oracle.chain.signer import Signer
from oracle.core.backoff import backoff_seconds
from oracle.core.errors import ErrorCode, OracleError
from oracle.core.lifecycle import State
from oracle.core.packing import MAX_COMPUTE_UNITS
from oracle.core.settlement import Attempted, Next, Observed, SignatureState, compute_unit_limit, judge
from oracle.pipeline.context import Context
from oracle.pipeline.errors import SETTLEMENT_EXPIRED, SETTLEMENT_FAILED
from oracle.pipeline.transactions import fee_lamports, message_of, signed, unsigned
from oracle.store import calls, ledger, recordings, requests, settlements
from oracle.store.changes import Signing
from oracle.store.errors import LEASE_LOST
from oracle.store.rows import RecordingRow, SignatureRow
from oracle.store.schema import LedgerKind, RecordingState

log = structlog.get_logger(__name__)

BELL: Final = "recordings"
BATCH: Final = 256
AT_ONCE: Final = 8
GIVE_UP_MS: Final = 86_400_000
BLOCKHASH_SLOTS: Final = 150
PRUNE_SECONDS: Final = 3_600.0


class Recorder:
    """`signer` is the gateway's own key: it asks, and it pays."""

    def __init__(self, context: Context, signer: Signer) -> None:
        self._context = context
        self._signer = signer
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Until the daemon stops."""
        context = self._context
        pruned_at = context.clock.monotonic()
        while not context.stopping.is_set():
            context.pulse("recorder")
            try:
                await self.turn()
                if context.clock.monotonic() - pruned_at > PRUNE_SECONDS:
                    pruned_at = context.clock.monotonic()
                    await self._prune()
            except OracleError as error:
                log.warning("recordings not followed", code=error.code, detail=error.detail)
            await context.bells.wait(BELL, context.config.settlement.poll_interval_seconds)

    async def turn(self) -> None:
        """One look at every recording that is due."""
        await self._each(await self._due(RecordingState.WAITING), self._sign_and_send)
        await self._follow(await self._due(RecordingState.SENT))
        key = str(self._signer.public_key)
        for row, end in await self._context.store.read(lambda c: recordings.over(c, key, BATCH)):
            await self._over(row, end)

    async def _due(self, state: RecordingState) -> list[RecordingRow]:
        """Of our own key alone: what another has asked for, only that one can pay for."""
        now_ms, key = self._context.clock.now_ms(), str(self._signer.public_key)
        return await self._context.store.read(lambda c: recordings.due(c, state, key, now_ms, BATCH))

    async def _each(self, rows: Sequence[RecordingRow], step: Callable[[RecordingRow], Awaitable[None]]) -> None:
        """One failure is one recording's own affair (law 6)."""

        async def guarded(row: RecordingRow) -> None:
            try:
                async with self._gate:
                    await step(row)
            except OracleError as error:
                if error.error is not LEASE_LOST:
                    log.warning("recording postponed", request=row.address, code=error.code, detail=error.detail)
                    await self._later(row, error)
            except Exception:
                log.exception("recording failed", request=row.address)

        await asyncio.gather(*(guarded(row) for row in rows))

    async def _sign_and_send(self, row: RecordingRow) -> None:
        context = self._context
        if await self._is_there(row):
            await self._landed(row)
            return
        key, queue, body = self._signer.public_key, Pubkey.from_string(row.queue), decode_body(row.body)
        instruction = submission(context.program_id, key, queue, body, row.nonce, row.fee_lamports, row.ttl_slots)
        rehearsal = message_of(key, [instruction], Hash.default(), unit_limit=MAX_COMPUTE_UNITS, micro_lamports=0)
        simulation = await context.rpc.simulate_transaction(bytes(unsigned(rehearsal)), replace_blockhash=True)
        if (failure := simulation.failure) is not None:
            raise RECORDING_IMPOSSIBLE(failure.kind if failure.custom is None else str(explain(failure.custom)))
        units = compute_unit_limit(
            simulation.units_consumed or MAX_COMPUTE_UNITS, margin=context.config.settlement.compute_margin
        )
        price = await context.fees.price(escalation=row.refusals)
        await self._signer.ready()
        blockhash = await context.rpc.get_latest_blockhash()
        message = message_of(key, [instruction], blockhash.blockhash, unit_limit=units, micro_lamports=price)
        transaction = await signed(self._signer, message)
        wire, signature, now_ms = bytes(transaction), str(transaction.signatures[0]), context.clock.now_ms()

        signing = Signing(
            signature=signature,
            wire=wire,
            blockhash=str(blockhash.blockhash),
            last_valid_block_height=blockhash.last_valid_block_height,
            signed_slot=blockhash.slot,
            fee_lamports=fee_lamports(units, price),
            fences={},
            now_ms=now_ms,
        )

        def write(c: Connection) -> SignatureRow:
            kept = settlements.record_signature(c, signing)
            recordings.signed(c, row, kept.id, now_ms=now_ms)
            return kept

        kept = await context.store.write(write)
        log.info("recording sent", request=row.address, signature=signature)
        await self._send(kept)

    async def _send(self, signature: SignatureRow) -> None:
        """The same bytes may be sent at will."""
        try:
            await self._context.rpc.send_transaction(signature.wire)
        except OracleError as error:
            log.info("send not acknowledged", signature=signature.signature, code=error.code, detail=error.detail)
        now_ms = self._context.clock.now_ms()
        await self._context.store.write_together(settlements.sent_all, (signature.id, now_ms))

    async def _follow(self, rows: Sequence[RecordingRow]) -> None:
        if not rows:
            return
        context = self._context
        kept = await context.store.read(lambda c: [_signature_of(c, row) for row in rows])
        signatures = [Signature.from_string(each.signature) for each in kept]
        statuses = await context.rpc.get_signature_statuses(signatures)
        missing = []
        for row, signature, status in zip(rows, kept, statuses.value, strict=True):
            if status is not None:
                await self._decided(row, signature, status)
                continue
            missing.append((row, signature))
            if self._is_unsent(signature):
                await self._send(signature)
        slot = max(context.slot(), statuses.slot)
        await self._look_for_the_dead([each for each in missing if slot > each[1].signed_slot + BLOCKHASH_SLOTS])

    def _is_unsent(self, signature: SignatureRow) -> bool:
        interval_ms = self._context.config.settlement.resend_interval_seconds * 1000
        sent_at_ms = signature.last_sent_at_ms
        return sent_at_ms is None or abs(self._context.clock.now_ms() - sent_at_ms) >= interval_ms

    async def _decided(self, row: RecordingRow, signature: SignatureRow, status: SignatureStatus) -> None:
        observed = Observed(str(status.commitment), status.failure is not None, None, None, False)
        match judge(_attempted(signature), observed):
            case Next.DONE:
                await self._landed(row, signature, status.slot)
            case Next.FAILED:
                await self._dead(row, signature, SignatureState.FAILED, SETTLEMENT_FAILED, status)

    async def _look_for_the_dead(self, missing: Sequence[tuple[RecordingRow, SignatureRow]]) -> None:
        """Height, statuses with history, and depth of history, in one exchange with one endpoint."""
        if not missing:
            return
        signatures = [Signature.from_string(signature.signature) for _, signature in missing]
        history = await self._context.rpc.pinned().get_signature_history(signatures)
        for (row, signature), status in zip(missing, history.statuses, strict=True):
            if status is not None:
                await self._decided(row, signature, status)
                continue
            observed = Observed(
                None, False, history.finalized_block_height, history.first_available_slot, searched_history=True
            )
            match judge(_attempted(signature), observed):
                case Next.EXPIRED:
                    await self._dead(row, signature, SignatureState.EXPIRED, SETTLEMENT_EXPIRED)
                case Next.OUTLIVED if await self._is_there(row):
                    await self._landed(row)
                case Next.OUTLIVED:
                    await self._failed(row, RECORDING_UNCLEAR, signature.signature)

    async def _is_there(self, row: RecordingRow) -> bool:
        """Whether the request exists, or has existed as far as we remember."""
        known = await self._context.store.read(lambda c: requests.latest(c, row.address))
        if known is not None and known.state is not State.VANISHED:
            return True
        account = (await self._context.rpc.get_account(Pubkey.from_string(row.address), Finalized)).value
        return account is not None and bool(account.data)

    async def _landed(self, row: RecordingRow, signature: SignatureRow | None = None, slot: int | None = None) -> None:
        now_ms = self._context.clock.now_ms()

        def write(c: Connection) -> None:
            recordings.move(c, row, RecordingState.LANDED, now_ms=now_ms)
            ledger.book(
                c,
                LedgerKind.REQUEST_FEE,
                -row.fee_lamports,
                now_ms=now_ms,
                requester=row.requester,
                note=row.address,
            )
            if signature is not None:
                settlements.mark_signature(c, signature.id, SignatureState.FINALIZED, slot=slot, error=None)
                _book_fee(c, signature, now_ms)

        log.info("recording landed", request=row.address)
        await self._context.store.write(write)

    async def _dead(
        self,
        row: RecordingRow,
        signature: SignatureRow,
        state: SignatureState,
        error: ErrorCode,
        status: SignatureStatus | None = None,
    ) -> None:
        """Nothing of this transaction will ever take effect: the next one may be signed."""
        now_ms = self._context.clock.now_ms()
        failure = None if status is None else status.failure

        def write(c: Connection) -> None:
            settlements.mark_signature(
                c, signature.id, state, slot=None if status is None else status.slot, error=failure and failure.raw
            )
            recordings.move(c, row, RecordingState.WAITING, now_ms=now_ms, code=error.code)
            if state is SignatureState.FAILED:
                _book_fee(c, signature, now_ms)

        log.warning("recording not landed", request=row.address, code=error.code)
        await self._context.write(write, BELL)

    async def _later(self, row: RecordingRow, error: OracleError) -> None:
        """Try again, for a day: the answer was given with the promise to record it."""
        context, now_ms = self._context, self._context.clock.now_ms()
        if row.state is RecordingState.WAITING and now_ms - row.created_at_ms > GIVE_UP_MS:
            await self._failed(row, RECORDING_GIVEN_UP, str(error))
            return
        wait = backoff_seconds(row.refusals, context.clock.jitter(), told=error.retry_after_seconds)
        await context.store.write(
            lambda c: recordings.postpone(
                c, row, wake_at_ms=now_ms + int(wait * 1000), code=error.code, detail=error.detail, count=True
            )
        )

    async def _failed(self, row: RecordingRow, error: ErrorCode, detail: str) -> None:
        now_ms = self._context.clock.now_ms()
        is_paid = error is RECORDING_UNCLEAR

        def write(c: Connection) -> None:
            recordings.move(c, row, RecordingState.FAILED, now_ms=now_ms, code=error.code, detail=detail)
            if not is_paid:
                calls.charge_chain(c, row.call_id, 0)

        log.error("recording failed", request=row.address, code=error.code, detail=detail)
        await self._context.store.write(write)

    async def _over(self, row: RecordingRow, end: State) -> None:
        """The request has ended, and no fork can undo it: settled, or the fee comes back when it is closed."""
        now_ms = self._context.clock.now_ms()

        def write(c: Connection) -> None:
            if end is State.SETTLED:
                recordings.move(c, row, RecordingState.ENDED, now_ms=now_ms)
                return
            recordings.move(c, row, RecordingState.FAILED, now_ms=now_ms, code=RECORDING_GIVEN_UP.code, detail=end)
            calls.charge_chain(c, row.call_id, 0)
            ledger.book(
                c, LedgerKind.REQUEST_FEE, row.fee_lamports, now_ms=now_ms, requester=row.requester, note=row.address
            )

        log.info("recording ended", request=row.address, state=end)
        await self._context.store.write(write)

    async def _prune(self) -> None:
        """What is done is kept as long as its output is served."""
        keep_ms = int(self._context.config.api.retention_days * 86_400_000)
        older_than_ms = self._context.clock.now_ms() - keep_ms
        await self._context.store.write(lambda c: recordings.prune(c, older_than_ms))


def _signature_of(c: Connection, row: RecordingRow) -> SignatureRow:
    assert row.signature_id is not None
    return settlements.signature_by_id(c, row.signature_id)


def _attempted(row: SignatureRow) -> Attempted:
    return Attempted(row.state, row.last_valid_block_height, row.signed_slot)


def _book_fee(c: Connection, signature: SignatureRow, now_ms: int) -> None:
    """A transaction that landed has paid its fee, whether it succeeded or not."""
    ledger.book(c, LedgerKind.TX_FEE, -(signature.fee_lamports or 0), now_ms=now_ms, signature_id=signature.id)
