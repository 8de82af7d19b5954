"""What can go wrong between us and a node: codes of the room RPC, and the node's own errors put into them."""

from __future__ import annotations

from typing import Any, Final

from oracle.core.errors import ErrorCode, OracleError, Verdict

ANSWER_LOST = ErrorCode(
    "ORC-RPC-001",
    "No answer from the RPC endpoint",
    "The call was sent, and no whole answer came back in time.",
    "Check the network and the endpoint's status page; add a second endpoint.",
    Verdict.RETRY,
)
UNREACHABLE = ErrorCode(
    "ORC-RPC-002",
    "RPC endpoint unreachable",
    "No connection could be made: wrong host, closed port, no route, or a TLS failure. Nothing was sent.",
    "Check the URL with `oracle doctor`; add a second endpoint.",
    Verdict.RETRY,
)
RATE_LIMITED = ErrorCode(
    "ORC-RPC-003",
    "RPC endpoint is limiting our rate",
    "The endpoint refused a call because there were too many.",
    "Lower the endpoint's limits in the configuration, or use an endpoint with a higher allowance.",
    Verdict.RETRY,
)
SERVER_ERROR = ErrorCode(
    "ORC-RPC-004",
    "RPC endpoint failed",
    "The endpoint answered with an HTTP status of 500 or above.",
    "It usually passes. If not, check the endpoint's status page and add a second endpoint.",
    Verdict.RETRY,
)
REFUSED = ErrorCode(
    "ORC-RPC-005",
    "RPC endpoint refused the call",
    "An HTTP status of 3xx or 4xx: a wrong path, a missing or revoked API key, a blocked method.",
    "Check the URL and its API key, and that the plan allows the method.",
)
GARBAGE = ErrorCode(
    "ORC-RPC-006",
    "RPC endpoint answered nonsense",
    "The answer is not what the method returns: HTML, a broken body, missing or mistyped fields.",
    "Check that the URL is a Solana RPC endpoint, without a proxy or login page before it.",
    Verdict.RETRY,
)
BEHIND = ErrorCode(
    "ORC-RPC-007",
    "RPC endpoint is behind",
    "The read asked for a slot that the endpoint has not reached.",
    "It usually catches up in seconds. An endpoint that stays behind is ill: use another.",
    Verdict.RETRY,
)
NODE_ERROR = ErrorCode(
    "ORC-RPC-008",
    "The node answered with an error",
    "The node understood the call and refused it.",
    "Read the node's message; it names the parameter or the state that stands against the call.",
)
PREFLIGHT_FAILED = ErrorCode(
    "ORC-RPC-009",
    "The node refused the transaction in its preflight",
    "A simulation before sending failed, so the node did not forward the transaction.",
    "Read the error and the logs of the simulation.",
)
NO_ENDPOINT = ErrorCode(
    "ORC-RPC-010",
    "No usable RPC endpoint",
    "Every configured endpoint is unreachable, limiting our rate, behind, or on another cluster.",
    "`oracle doctor` shows the state of each; add an endpoint.",
    Verdict.RETRY,
)
WRONG_GENESIS = ErrorCode(
    "ORC-RPC-011",
    "RPC endpoint serves another cluster",
    "The genesis hash is not the expected one: a devnet URL beside mainnet ones, or a localnet that began anew.",
    "Remove the endpoint, or correct the cluster in the configuration.",
)
UNSUPPORTED = ErrorCode(
    "ORC-RPC-012",
    "RPC endpoint lacks the method",
    "The node does not serve this method, does not index this program, or keeps no transaction history.",
    "Use an endpoint that does.",
)
UNHEALTHY = ErrorCode(
    "ORC-RPC-013",
    "The node is not healthy",
    "The node says that it is behind the cluster, cannot complete a scan, or failed inside.",
    "It usually passes. If not, use another endpoint.",
    Verdict.RETRY,
)
TOO_LARGE = ErrorCode(
    "ORC-RPC-014",
    "The RPC answer is too large",
    "The answer exceeded what the daemon is willing to hold in memory.",
    "A healthy endpoint does not send this much: check the URL. For very large queues use more queues.",
)
SEND_UNCERTAIN = ErrorCode(
    "ORC-RPC-015",
    "A transaction was sent and the answer was lost",
    "The endpoint may or may not have forwarded the transaction.",
    "Nothing to do: the same bytes are sent again until the transaction is confirmed or can no longer land.",
    Verdict.UNKNOWN,
)
BAD_URL = ErrorCode(
    "ORC-RPC-016",
    "Not an RPC URL",
    "An endpoint's URL must be http:// or https:// (ws:// or wss:// for subscriptions) with a host.",
    "Correct the URL in the configuration.",
)
SUBSCRIPTION_LOST = ErrorCode(
    "ORC-RPC-017",
    "Subscriptions are down",
    "The WebSocket closed, went silent, or refused a subscription.",
    "Nothing to do: the daemon reconnects and scans. If it persists check the WebSocket URL.",
    Verdict.RETRY,
)

ENDPOINT_TROUBLE: Final = (
    ANSWER_LOST,
    UNREACHABLE,
    RATE_LIMITED,
    SERVER_ERROR,
    REFUSED,
    GARBAGE,
    BEHIND,
    NO_ENDPOINT,
    WRONG_GENESIS,
    UNSUPPORTED,
    UNHEALTHY,
)
"""What an endpoint has failed at, whatever it was asked: never the fault of the request that it was asked for."""

_RATE_LIMIT_CODES: Final = frozenset({429, -32429})
_UNSUPPORTED_CODES: Final = frozenset({-32601, -32010, -32011, 403, -32403})
_UNHEALTHY_CODES: Final = frozenset({-32603, -32004, -32007, -32008, -32009, -32012, -32014, -32019})
_RATE_LIMIT_WORDS: Final = ("rate limit", "too many requests", "limit exceeded", "credits", "quota")


class RpcError(OracleError):
    """An error that a node answered with. `rpc_code`, `rpc_message` and `data` are the node's own."""

    def __init__(self, error: ErrorCode, detail: str, *, rpc_code: int, rpc_message: str, data: Any = None) -> None:
        self.rpc_code = rpc_code
        self.rpc_message = rpc_message
        self.data = data
        super().__init__(error, detail)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.error, self.detail, self.rpc_code, self.rpc_message, self.data))


def _rebuild(error: ErrorCode, detail: str, rpc_code: int, rpc_message: str, data: Any) -> RpcError:
    return RpcError(error, detail, rpc_code=rpc_code, rpc_message=rpc_message, data=data)


def node_error(where: str, code: int, message: str, data: Any) -> RpcError:
    """Put an error that a node answered with under one of our codes.

    Codes: Agave `rpc-client-api/src/custom_error.rs`. -32005 means an unhealthy node when it carries `numSlotsBehind`;
    without it, providers use the same code to limit the rate.
    """
    return RpcError(
        _code_of(code, message, data), f"{where}: {message} ({code})", rpc_code=code, rpc_message=message, data=data
    )


def _code_of(code: int, message: str, data: Any) -> ErrorCode:
    if code in _RATE_LIMIT_CODES:
        return RATE_LIMITED
    if code == -32005:
        return UNHEALTHY if isinstance(data, dict) and "numSlotsBehind" in data else RATE_LIMITED
    if code == -32016:
        return BEHIND
    if code == -32002:
        return PREFLIGHT_FAILED
    if code in _UNSUPPORTED_CODES:
        return UNSUPPORTED
    if code in _UNHEALTHY_CODES:
        return UNHEALTHY
    if any(words in message.lower() for words in _RATE_LIMIT_WORDS):
        return RATE_LIMITED
    return NODE_ERROR
