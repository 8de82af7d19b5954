"""Errors in the envelope that a third-party client expects; the whole catalogue is unverified (§8)."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from oracle.localnet.emulators.faults import Fault, Wire


class Refused(Exception):
    """Carries the answer that ends a request."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(response.status_code)


def refuse(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Refused:
    return Refused(JSONResponse({"error": {"code": code, "message": message}}, status, headers))


def refusal(fault: Fault) -> Response:
    """The answer to a fault on the wire."""
    match fault.kind:
        case Wire.RATE_LIMIT:
            headers = None if fault.retry_after is None else {"retry-after": fault.retry_after}
            return refuse(429, "RATE_LIMITED", fault.text or "Too many requests", headers).response
        case Wire.UNAUTHORIZED:
            return refuse(401, "UNAUTHORIZED", "Invalid signature").response
        case Wire.OUT_OF_CREDITS:
            return refuse(fault.status or 402, "INSUFFICIENT_BALANCE", "Insufficient credits").response
    status = fault.status or 500
    code, text = _TEXTS.get(status, ("INTERNAL", "Internal server error"))
    return refuse(status, code, fault.text or text).response


_TEXTS = {
    400: ("VALIDATION_ERROR", "Bad request"),
    403: ("FORBIDDEN", "API key is not permitted to create jobs"),
    404: ("NOT_FOUND", "Job not found"),
    409: ("CONFLICT", "Job is already in a terminal state"),
    422: ("UNPROCESSABLE_ENTITY", "Unprocessable"),
}
