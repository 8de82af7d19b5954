"""Codes of the pipeline."""

from __future__ import annotations

from oracle.core.errors import ErrorCode, Verdict

UNEXPECTED = ErrorCode(
    "ORC-PIPE-001",
    "Unexpected failure",
    "A step failed in a way that the oracle does not know; the log has the traceback.",
    "The step is repeated within its budget. Report the traceback if it stays.",
    Verdict.RETRY,
)
UNKNOWN_PROVIDER = ErrorCode(
    "ORC-PIPE-002",
    "Provider is not configured any more",
    "A job is under way at a provider that the configuration no longer names.",
    "Restore its [providers.NAME] section until its jobs have ended, or cancel them by hand.",
    Verdict.RETRY,
)
ACCOUNT_MALFORMED = ErrorCode(
    "ORC-PIPE-003",
    "Request account cannot be read",
    "An account of the program on our queue is malformed, or of a version this oracle does not know.",
    "Upgrade the oracle if the program was upgraded; nothing is done for the request meanwhile.",
)
UNCONFIGURED_QUEUE = ErrorCode(
    "ORC-PIPE-004",
    "A queue names our key without our configuration",
    "Somebody registered this operator's key on a queue that the configuration does not list.",
    "Add the queue to operator.queues to serve it; otherwise ignore it: its requests are not touched.",
)
OVERDUE = ErrorCode(
    "ORC-PIPE-005",
    "Too late to settle",
    "The deadline is nearer than the configured margin: a settlement might land after it.",
    "The request is expired when due, and the fee is free to be taken back.",
)
ENDED_BY_ANOTHER = ErrorCode(
    "ORC-PIPE-006",
    "Ended by another's hand",
    "The request was cancelled, expired or settled by somebody else while we worked on it.",
    "Nothing to do: the job was cancelled and its cost booked.",
)
ALREADY_RUNNING = ErrorCode(
    "ORC-PIPE-007",
    "Another daemon runs here",
    "A daemon with the same database file or the same operator key runs on this machine.",
    "Stop it first; `oracle doctor` names its process.",
)
INPUT_UNREACHABLE = ErrorCode(
    "ORC-PIPE-008",
    "Input cannot be fetched",
    "The URI did not answer, or answered with an error.",
    "Serve the input at the URI until the request has ended.",
    Verdict.RETRY,
)
INPUT_FORBIDDEN = ErrorCode(
    "ORC-PIPE-009",
    "Input URI is not allowed",
    "The URI is not https, names a port or host that is not allowed, or resolves to a private address.",
    "Serve the input at a public https URI.",
)
INPUT_TOO_LARGE = ErrorCode(
    "ORC-PIPE-010",
    "Input is too large",
    "What the URI serves is larger than the operator allows.",
    "Shorten the input; as operator, see `input.max_bytes`.",
)
SOURCE_UNKNOWN = ErrorCode(
    "ORC-PIPE-011",
    "Data network is not configured",
    "The input is a data:// query to a network that this operator does not serve.",
    "Ask an operator that serves it, or give the data inline.",
)
OPERATOR_BROKE = ErrorCode(
    "ORC-PIPE-012",
    "The operator's wallet cannot pay",
    "A transaction was refused before its first instruction: the operator's key has no account, or too few lamports.",
    "Fund the operator's key; `oracle doctor` shows its balance.",
    Verdict.RETRY,
)
SETTLEMENT_REFUSED = ErrorCode(
    "ORC-SETTLE-001",
    "The program refused an instruction",
    "The simulation of a settlement was refused though the request is open.",
    "See the program's error; is the operator still registered on this queue?",
    Verdict.RETRY,
)
SETTLEMENT_FAILED = ErrorCode(
    "ORC-SETTLE-002",
    "A transaction failed on chain",
    "A transaction of ours landed with an error; its members are sent again, the failing one alone.",
    "Nothing to do, unless it repeats: then see the program's error.",
    Verdict.RETRY,
)
SETTLEMENT_EXPIRED = ErrorCode(
    "ORC-SETTLE-003",
    "A transaction expired",
    "A transaction is proven not to have landed within the life of its blockhash; its members are signed anew.",
    "If it repeats, raise `settlement.max_priority_micro_lamports` or add an RPC endpoint.",
    Verdict.RETRY,
)
SETTLEMENT_OVERTAKEN = ErrorCode(
    "ORC-SETTLE-004",
    "The request had ended already",
    "When a transaction was about to be signed, or had failed, the request was no longer open.",
    "Nothing to do: the account decides how the request ended.",
)
INPUT_GONE = ErrorCode(
    "ORC-PIPE-013",
    "Input is not there",
    "The URI answered that it has no such content, or redirected too often.",
    "Serve the input at the URI until the request has ended, and submit again.",
)
INPUT_WAITING = ErrorCode(
    "ORC-PIPE-014",
    "Input waits for its turn",
    "As many hosts are being asked for inputs as may be at once, of all requesters or of this one.",
    "Nothing to do: it is fetched as soon as another one is done. See `daemon.concurrency`.",
    Verdict.RETRY,
)
PURCHASE_IN_FLIGHT = ErrorCode(
    "ORC-SETTLE-010",
    "A purchase by transaction may still land",
    "Its transaction is signed and written down, and nothing proves yet that it has landed, or never will.",
    "Nothing to do by hand: the same bytes are sent again until its fate is known, and nothing is bought meanwhile.",
    Verdict.UNKNOWN,
)
PURCHASE_NOT_BOUGHT = ErrorCode(
    "ORC-SETTLE-011",
    "A purchase by transaction has bought nothing",
    "Its transaction was refused, failed on chain, or is proven not to have landed within the life of its blockhash.",
    "A request buys anew, a trial is over. If it repeats, see the detail, and the fee cap in `[settlement]`.",
    Verdict.RETRY,
)
TRANSACTION_NOT_LANDED = ErrorCode(
    "ORC-SETTLE-012",
    "A transaction has not landed in time",
    "A transaction that withdraws or ends a job was sent, and was not confirmed within 45 seconds.",
    "The daemon makes it anew; a trial tells how to find the job. If it repeats, see the fee cap in `[settlement]`.",
    Verdict.RETRY,
)
PROVIDER_SILENT = ErrorCode(
    "ORC-PIPE-030",
    "Provider does not answer in time",
    "It was asked something that costs nothing, and has not answered within twenty seconds.",
    "Is its address right? A service that is that slow now fails requests, too: look at its status page.",
    Verdict.RETRY,
)
TRIAL_TOO_DEAR = ErrorCode(
    "ORC-PIPE-031",
    "The trial would cost more than allowed",
    "The provider's quote for the job is above the limit that was given. Nothing was bought.",
    "Raise --max-lamports, or try a cheaper model or a shorter time with --model and --timeout.",
)
TRIAL_WITHOUT_MODEL = ErrorCode(
    "ORC-PIPE-033",
    "No model to try",
    "No route leads to the provider, and it lists no model.",
    "Name one with --model.",
)
TRIAL_NOT_FOUND = ErrorCode(
    "ORC-PIPE-034",
    "No such purchase",
    "The provider has no job of the key that was given, or cannot look it up: a chat API never can.",
    "A purchase that is proven absent has cost nothing. Leave --key out to buy a new job.",
)
WRONG_CLUSTER = ErrorCode(
    "ORC-PIPE-020",
    "The database belongs to another cluster",
    "Its requests are of a cluster with another genesis hash; here every one of them would look as if it had vanished.",
    "Correct cluster.rpc, or give this cluster a database of its own with database.url.",
)
