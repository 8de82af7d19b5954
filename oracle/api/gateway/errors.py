"""Codes of the gateway."""

from __future__ import annotations

from oracle.core.errors import ErrorCode, Verdict

KEY_UNKNOWN = ErrorCode(
    "ORC-GATEWAY-001",
    "Key is not known",
    "The call carries no key, or one that is none of the gateway's clients'.",
    "Send `Authorization: Bearer KEY` with the key you were given; as operator, see `[gateway.keys.NAME]`.",
)
NO_KEYS = ErrorCode(
    "ORC-GATEWAY-002",
    "The gateway has no clients",
    "No key is configured: anyone who reached an open gateway could spend the operator's money.",
    "Add a `[gateway.keys.NAME]` section.",
)
KEY_UNUSABLE = ErrorCode(
    "ORC-GATEWAY-003",
    "A client's key cannot be used",
    "The key is not there, is shorter than 16 characters, or is another client's, too.",
    "Make one with `openssl rand -hex 32`, and set `sha256`, `key_file` or `key_env` of the client.",
)
MODEL_UNKNOWN = ErrorCode(
    "ORC-GATEWAY-004",
    "No such model",
    "The model does not exist, or this client may not use it.",
    "See `GET /v1/models` for what may be asked for.",
)
REQUEST_INVALID = ErrorCode(
    "ORC-GATEWAY-005",
    "The request cannot be read",
    "The body is not JSON, or a field is missing, of another type or out of range.",
    "Correct the field that the message names.",
)
PARAMETER_UNSUPPORTED = ErrorCode(
    "ORC-GATEWAY-006",
    "Parameter is not supported",
    "The gateway cannot honour the parameter, and does not pretend to.",
    "Leave it out; docs/how-to/run-the-gateway.md lists what is passed on.",
)
BODY_TOO_LARGE = ErrorCode(
    "ORC-GATEWAY-007",
    "The request is too large",
    "The body is larger than the gateway reads.",
    "Shorten it; as operator, see `gateway.max_body_bytes`.",
)
TOO_FAST = ErrorCode(
    "ORC-GATEWAY-008",
    "Too many calls in a minute",
    "The client has made as many calls in the last minute as it may.",
    "Wait as long as `Retry-After` says; as operator, see `requests_per_minute` of the client.",
    Verdict.RETRY,
)
TOO_MANY_AT_ONCE = ErrorCode(
    "ORC-GATEWAY-009",
    "Too many calls at once",
    "As many calls of the client are under way as it may have.",
    "Wait until one has ended; as operator, see `concurrent` of the client.",
    Verdict.RETRY,
)
DAY_USED_UP = ErrorCode(
    "ORC-GATEWAY-010",
    "The day's allowance is used up",
    "With this call the client would use more tokens or lamports in a day than it may.",
    "Wait for midnight UTC, or allow fewer output tokens; as operator, see `tokens_per_day` and `lamports_per_day`.",
)
RECORDING_FORBIDDEN = ErrorCode(
    "ORC-GATEWAY-011",
    "The answer may not be recorded",
    "The client may not have answers recorded on chain: its key does not allow it, or keeps its prompts private.",
    "Ask without `X-Oracle-Record`; as operator, see `record` of the client.",
)
RECORDING_UNSUITABLE = ErrorCode(
    "ORC-GATEWAY-012",
    "The call cannot be recorded",
    "A request on chain has no field for something that the call asks for, or no room for its prompt.",
    "Shorten the prompt or leave the parameter out; or ask without `X-Oracle-Record`.",
)
RECORDING_IMPOSSIBLE = ErrorCode(
    "ORC-GATEWAY-013",
    "Nothing can be recorded now",
    "The request was refused in a simulation: the gateway's key cannot pay, or the queue is paused, requires claims or"
    " has another operator.",
    "As operator: fund the gateway's key, and give `gateway.queue` a queue of your own without claims.",
    Verdict.RETRY,
)
QUEUE_UNSUITABLE = ErrorCode(
    "ORC-GATEWAY-014",
    "The gateway's queue is not served",
    "`gateway.queue` is not among the queues that this daemon serves.",
    "Add it to `operator.queues`, or name one that is there.",
)
STOPPING = ErrorCode(
    "ORC-GATEWAY-015",
    "The gateway is stopping",
    "It takes no new calls; those under way are finished.",
    "Try again in a moment.",
    Verdict.RETRY,
)
NOT_HERE = ErrorCode(
    "ORC-GATEWAY-016",
    "There is nothing at this address",
    "The path or the method is not one of the gateway's, or the recording is not one of this client's.",
    "See docs/how-to/run-the-gateway.md for what the gateway serves.",
)
CLIENT_LEFT = ErrorCode(
    "ORC-GATEWAY-017",
    "The client has left",
    "The connection was closed before the answer was complete; the provider's call was stopped.",
    "Nothing to do.",
)
INTERRUPTED = ErrorCode(
    "ORC-GATEWAY-018",
    "The call was interrupted",
    "The gateway was killed while the call was under way. What it had bought was cancelled or stays booked.",
    "Send the call again.",
    Verdict.RETRY,
)
RECORDING_GIVEN_UP = ErrorCode(
    "ORC-GATEWAY-019",
    "The answer was not recorded",
    "The request could not be put on chain within a day, or it ended there without its result.",
    "See the recording's last error; the answer itself was given. No fee is kept for it.",
)
RECORDING_UNCLEAR = ErrorCode(
    "ORC-GATEWAY-020",
    "Whether the answer was recorded is not known",
    "The transaction can no longer land, but no endpoint keeps a history that tells whether it has.",
    "Look the address up in an explorer. Nothing is sent again: it might be paid for twice.",
    Verdict.UNKNOWN,
)
