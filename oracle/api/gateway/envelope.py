"""Errors as an OpenAI client expects them: a status, an `error` object, and headers that say whether to try again."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

from oracle.api.gateway import errors
from oracle.core import policy
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.providers import errors as providers
from oracle.store.errors import CALL_EXISTS


@dataclass(frozen=True, slots=True)
class Shape:
    """How an error looks to a client. `may_retry` None leaves it to the client's own rules for the status."""

    status: int
    kind: str
    code: str | None = None
    may_retry: bool | None = None


_INVALID: Final = "invalid_request_error"
_SHAPES: Final[dict[ErrorCode, Shape]] = {
    errors.KEY_UNKNOWN: Shape(401, _INVALID, "invalid_api_key"),
    errors.MODEL_UNKNOWN: Shape(404, _INVALID, "model_not_found"),
    errors.REQUEST_INVALID: Shape(400, _INVALID, "invalid_value"),
    errors.PARAMETER_UNSUPPORTED: Shape(400, _INVALID, "unsupported_parameter"),
    errors.BODY_TOO_LARGE: Shape(413, _INVALID, "request_too_large"),
    errors.TOO_FAST: Shape(429, "requests", "rate_limit_exceeded"),
    errors.TOO_MANY_AT_ONCE: Shape(429, "requests", "rate_limit_exceeded"),
    errors.DAY_USED_UP: Shape(429, "insufficient_quota", "insufficient_quota", may_retry=False),
    errors.RECORDING_FORBIDDEN: Shape(403, _INVALID, "recording_forbidden"),
    errors.RECORDING_UNSUITABLE: Shape(400, _INVALID, "recording_unsuitable"),
    errors.RECORDING_IMPOSSIBLE: Shape(503, "service_unavailable_error", "recording_impossible", may_retry=False),
    errors.STOPPING: Shape(503, "service_unavailable_error", "stopping"),
    errors.NOT_HERE: Shape(404, _INVALID, "not_found"),
    policy.MODEL_NOT_ROUTED: Shape(404, _INVALID, "model_not_found"),
    policy.NO_PRIVATE_ROUTE: Shape(404, _INVALID, "no_private_route"),
    policy.OUTPUT_TOO_LONG: Shape(400, _INVALID, "invalid_value"),
    policy.BUDGET_EXHAUSTED: Shape(503, "service_unavailable_error", "budget_exhausted", may_retry=False),
    policy.BUDGET_TOO_SMALL: Shape(503, "service_unavailable_error", "budget_exhausted", may_retry=False),
    policy.FEE_TOO_LOW: Shape(503, "service_unavailable_error", "no_route_within_price", may_retry=False),
    CALL_EXISTS: Shape(409, _INVALID, "call_under_way"),
    providers.REQUEST_REFUSED: Shape(400, _INVALID, "upstream_refused"),
    providers.INPUT_TOO_LARGE: Shape(400, _INVALID, "context_length_exceeded"),
    providers.ANSWER_REFUSED: Shape(400, _INVALID, "content_filter"),
    providers.PRICE_UNKNOWN: Shape(503, "service_unavailable_error", "price_unknown", may_retry=False),
}
# What is lost after it was sent may have been paid for: a client that repeats it by itself may pay twice.
_UNKNOWN: Final = Shape(504, "server_error", "upstream_timeout", may_retry=False)
_BUSY: Final = Shape(503, "service_unavailable_error", "server_is_overloaded")
_BROKEN: Final = Shape(502, "server_error", "upstream_error", may_retry=False)
_BAD_INPUT: Final = Shape(400, _INVALID, "invalid_value")

# Whose details concern the client. Those of providers are the operator's affair, and are in its log.
_TOLD: Final = ("GATEWAY", "INPUT", "POLICY", "CHAIN")
_ALSO_TOLD: Final = frozenset({providers.REQUEST_REFUSED, providers.INPUT_TOO_LARGE, CALL_EXISTS})


def shape_of(error: OracleError) -> Shape:
    if (known := _SHAPES.get(error.error)) is not None:
        return known
    room = error.code.split("-")[1]
    if room == "INPUT":
        return _BAD_INPUT
    if error.verdict is Verdict.UNKNOWN:
        return _UNKNOWN
    return _BUSY if error.verdict is Verdict.RETRY or room == "STORE" else _BROKEN


def body_of(error: OracleError) -> dict[str, Any]:
    """The `error` object. A detail that begins with a name in backticks is about that parameter."""
    shape = shape_of(error)
    told = error.code.split("-")[1] in _TOLD or error.error in _ALSO_TOLD
    detail = error.detail if told else ""
    named = re.match(r"`([\w.\[\]]+)`", detail)
    return {
        "error": {
            "message": f"{error.error.title}: {detail}" if detail else f"{error.error.title} ({error.code})",
            "type": shape.kind,
            "param": named[1] if named else None,
            "code": shape.code,
            "oracle_code": error.code,
        }
    }


def headers_of(error: OracleError) -> dict[str, str]:
    shape = shape_of(error)
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if shape.may_retry is not None:
        headers["x-should-retry"] = str(shape.may_retry).lower()
    if shape.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
