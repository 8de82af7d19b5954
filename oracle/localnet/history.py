"""The `meta` of a transaction as `getTransaction` prints it, made once when the transaction lands."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from based58 import b58encode

from oracle.localnet.outcome import Outcome


def base58(data: bytes) -> str:
    return b58encode(data).decode()


def meta_of(outcome: Outcome) -> dict[str, Any]:
    """Balances are in lamports; token balances are left empty, see docs/reference/localnet-chain.md."""
    return {
        "err": outcome.err,
        "status": status_of(outcome.err),
        "fee": outcome.fee_lamports,
        "preBalances": outcome.pre_balances,
        "postBalances": outcome.post_balances,
        "innerInstructions": inner_instructions(outcome),
        "logMessages": list(outcome.logs),
        "preTokenBalances": [],
        "postTokenBalances": [],
        "rewards": [],
        "loadedAddresses": {
            "writable": [str(key) for key in outcome.accounts.loaded_writable],
            "readonly": [str(key) for key in outcome.accounts.loaded_readonly],
        },
        "computeUnitsConsumed": outcome.units_consumed,
        **({"returnData": returned} if (returned := return_data(outcome)) else {}),
    }


def status_of(err: Any) -> dict[str, Any]:
    return {"Ok": None} if err is None else {"Err": err}


def inner_instructions(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {"index": index, "instructions": [_inner_instruction(inner) for inner in group]}
        for index, group in enumerate(outcome.inner_instructions)
        if group
    ]


def _inner_instruction(inner: Any) -> dict[str, Any]:  # the stub of solders lacks `stack_height`
    instruction = inner.instruction()
    return {
        "programIdIndex": instruction.program_id_index,
        "accounts": list(bytes(instruction.accounts)),
        "data": base58(bytes(instruction.data)),
        "stackHeight": inner.stack_height(),
    }


def return_data(outcome: Outcome) -> dict[str, Any] | None:
    if outcome.return_data is None:
        return None
    program, data = outcome.return_data
    return {"programId": str(program), "data": [b64encode(data).decode(), "base64"]}
