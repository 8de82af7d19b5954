"""JSON-RPC 2.0: from the bytes of a request, or of a batch, to the bytes of its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from oracle.localnet.chain import Chain
from oracle.localnet.rpc import accounts, slots, transactions
from oracle.localnet.rpc.errors import RpcError, invalid_request, method_not_found, parse_error
from oracle.localnet.rpc.params import Params

Method = Callable[[Chain, Params], Any]

METHODS: Mapping[str, Method] = {**accounts.METHODS, **slots.METHODS, **transactions.METHODS}


def handle(chain: Chain, body: bytes, methods: Mapping[str, Method] = METHODS) -> bytes | None:
    """Answers a request or a batch; `None` where all were notifications. Never raises for what a caller sent."""
    try:
        request = orjson.loads(body)
    except ValueError:
        return orjson.dumps(_answer(None, error=parse_error()))
    if not isinstance(request, list):
        answer = _handle_one(chain, request, methods)
        return None if answer is None else orjson.dumps(answer)
    if not request:
        return orjson.dumps(_answer(None, error=invalid_request()))
    answers = [answer for one in request if (answer := _handle_one(chain, one, methods)) is not None]
    return orjson.dumps(answers) if answers else None


def _handle_one(chain: Chain, request: Any, methods: Mapping[str, Method]) -> dict[str, Any] | None:
    if not isinstance(request, dict) or request.get("jsonrpc") != "2.0" or not isinstance(request.get("method"), str):
        return _answer(None, error=invalid_request())
    identifier = request.get("id")
    try:
        method = methods.get(request["method"])
        if method is None:
            raise method_not_found()
        result = method(chain, Params(request.get("params")))
    except RpcError as error:
        return _answer(identifier, error=error) if "id" in request else None
    return _answer(identifier, result=result) if "id" in request else None


def _answer(identifier: Any, *, result: Any = None, error: RpcError | None = None) -> dict[str, Any]:
    if error is not None:
        return {"jsonrpc": "2.0", "error": error.to_json(), "id": identifier}
    return {"jsonrpc": "2.0", "result": result, "id": identifier}
