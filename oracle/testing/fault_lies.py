"""What a node says that is not so: of some slots ago, about statuses, about blockhashes, about what it has sent."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson
from solders.transaction import VersionedTransaction

from oracle.localnet.chain import MAX_PROCESSING_AGE, Chain, Commitment
from oracle.localnet.rpc.context import in_context
from oracle.localnet.rpc.dispatch import handle
from oracle.testing.storm import CallFault

FAILED = {"InstructionError": [0, {"Custom": 1}]}


def as_of(chain: Chain, late_slots: Callable[[int], int], body: bytes) -> bytes:
    """The answer to a read, as it was `late_slots` of the newest slot ago."""
    with chain.seen_late(late_slots(chain.slot(Commitment.PROCESSED))):
        return handle(chain, body) or b""


def about_statuses(kind: CallFault, body: bytes) -> bytes:
    """The answer of `getSignatureStatuses` as this lie has it; an answer of another shape is left as it is."""
    answer = orjson.loads(body)
    result = answer.get("result")
    if not isinstance(result, dict):
        return body
    slot = result["context"]["slot"]
    if kind is CallFault.STATUS_FORGOTTEN:
        told = None
    else:
        err = FAILED if kind is CallFault.STATUS_FAILED else None
        outcome = {"Ok": None} if err is None else {"Err": err}
        told = {"slot": slot, "confirmations": 1, "status": outcome, "err": err, "confirmationStatus": "confirmed"}
    result["value"] = [told for _ in result["value"]]
    return orjson.dumps(answer)


def old_blockhash(chain: Chain, envelope: dict[str, Any]) -> bytes:
    """The answer of `getLatestBlockhash` with the youngest that has expired: as of now, beside its true last height."""
    block = chain.ledger.recent_blocks(chain.slot(Commitment.PROCESSED), MAX_PROCESSING_AGE + 2)[-1]
    value = {"blockhash": str(block.blockhash), "lastValidBlockHeight": block.height + MAX_PROCESSING_AGE}
    return _answer(envelope, in_context(chain.slot(Commitment.CONFIRMED), value))


def taken(envelope: dict[str, Any]) -> bytes:
    """The answer to a transaction that was sent on, or was not."""
    wire = base64.b64decode(envelope["params"][0])
    return _answer(envelope, str(VersionedTransaction.from_bytes(wire).signatures[0]))


def fork(chain: Chain, slots: int | None) -> None:
    """Drop the last slots, or as many as the cluster may still drop."""
    most = chain.slot(Commitment.PROCESSED) - chain.slot(Commitment.CONFIRMED)
    if (dropped := most if slots is None else slots) > 0:
        chain.fork(dropped)


def _answer(envelope: dict[str, Any], result: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "result": result, "id": envelope.get("id")})
