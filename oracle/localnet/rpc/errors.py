"""JSON-RPC errors with the codes and sentences of Agave (`rpc-client-api/src/custom_error.rs`)."""

from __future__ import annotations

from typing import Any


class RpcError(Exception):
    """An error answer: a code, a sentence for people, and data for programs."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"{code}: {message}")

    def to_json(self) -> dict[str, Any]:
        body = {"code": self.code, "message": self.message}
        return body if self.data is None else {**body, "data": self.data}


def parse_error() -> RpcError:
    return RpcError(-32700, "Parse error")


def invalid_request(message: str = "Invalid request") -> RpcError:
    return RpcError(-32600, message)


def method_not_found() -> RpcError:
    return RpcError(-32601, "Method not found")


def invalid_params(message: str) -> RpcError:
    return RpcError(-32602, message)


def block_cleaned_up(slot: int, first_available: int) -> RpcError:
    return RpcError(
        -32001, f"Block {slot} cleaned up, does not exist on node. First available block: {first_available}"
    )


def preflight_failure(message: str, result: dict[str, Any]) -> RpcError:
    return RpcError(-32002, message, result)


def signature_verification_failure() -> RpcError:
    return RpcError(-32003, "Transaction signature verification failure")


def block_not_available(slot: int) -> RpcError:
    return RpcError(-32004, f"Block not available for slot {slot}")


def node_unhealthy(slots_behind: int) -> RpcError:
    return RpcError(-32005, f"Node is behind by {slots_behind} slots", {"numSlotsBehind": slots_behind})


def slot_skipped(slot: int) -> RpcError:
    return RpcError(-32007, f"Slot {slot} was skipped, or missing due to ledger jump to recent snapshot")


def unsupported_transaction_version(version: int) -> RpcError:
    return RpcError(
        -32015,
        f"Transaction version ({version}) is not supported by the requesting client. Please try the request again with"
        f' the following configuration parameter: "maxSupportedTransactionVersion": {version}',
    )


def min_context_slot_not_reached(context_slot: int) -> RpcError:
    return RpcError(-32016, "Minimum context slot has not been reached", {"contextSlot": context_slot})
