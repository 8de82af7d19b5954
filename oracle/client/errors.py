"""Codes of the requester's side."""

from __future__ import annotations

from oracle.core.errors import ErrorCode, Verdict

REQUEST_NOT_FOUND = ErrorCode(
    "ORC-CLIENT-001",
    "No such request",
    "The cluster holds no account at this address, and no transaction of the program that recorded a result for it.",
    "Check the address and the cluster; an RPC endpoint that keeps little history may not know a closed request.",
)
TRANSACTION_REFUSED = ErrorCode(
    "ORC-CLIENT-002",
    "Transaction refused",
    "The cluster refused the transaction when it was simulated.",
    "Do what the program's message says; `oracle doctor` checks wallet, program and queue.",
)
TRANSACTION_LOST = ErrorCode(
    "ORC-CLIENT-003",
    "Transaction did not land",
    "The transaction was not confirmed while its blockhash lived, and is not in the chain. Nothing was paid.",
    "Try again; on a busy cluster with a priority fee (--priority).",
    Verdict.RETRY,
)
QUEUE_NOT_FOUND = ErrorCode(
    "ORC-CLIENT-004",
    "No such queue",
    "The address is not a queue of the program on this cluster.",
    "Check the address and the cluster; `oracle queue create` makes one.",
)
OUTPUT_NOT_SERVED = ErrorCode(
    "ORC-CLIENT-005",
    "Operator does not serve it",
    "The operator's URI did not answer with the output or the receipt.",
    "Try again later; outputs are served for the period that the operator documents.",
    Verdict.RETRY,
)
WAIT_TOO_LONG = ErrorCode(
    "ORC-CLIENT-006",
    "Not answered in time",
    "The request was still open when the time to wait was over. It goes on without us.",
    "Look again with `oracle inspect`; after its deadline the fee is free to be taken back.",
    Verdict.RETRY,
)
TRANSACTION_TOO_LARGE = ErrorCode(
    "ORC-CLIENT-007",
    "Too large for a transaction",
    "A transaction holds 1,232 bytes, of which a request leaves some 800 to model and input.",
    "Serve a longer input at an https URI, and submit that with its SHA-256 (--uri, --uri-sha256).",
)
TRANSACTION_UNKNOWN = ErrorCode(
    "ORC-CLIENT-008",
    "Nobody knows whether the transaction landed",
    "It was sent, and then the cluster could not be asked what became of it.",
    "Look its signature up before you try again: it may have landed.",
    Verdict.UNKNOWN,
)
