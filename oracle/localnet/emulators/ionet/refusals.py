"""FastAPI's error envelope, `{"detail": ...}`, and the texts that are known (§2.9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.responses import JSONResponse, Response

from oracle.localnet.emulators.faults import Fault, Wire


class Refused(Exception):
    """Carries the answer that ends a request."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(response.status_code)


def refuse(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Refused:
    return Refused(JSONResponse({"detail": detail}, status, headers))


def unauthorized() -> Refused:
    """28 bytes, as captured."""
    return refuse(401, "Invalid API Key")


def model_unavailable(offered: Iterable[str]) -> Refused:
    """400 and not 404, as captured."""
    available = ", ".join(f"'{name}'" for name in offered)
    text = f"The requested model is not available for Chat Completions API. Available models: [{available}]"
    return refuse(400, text)


def rate_limited(retry_after: str | None = None) -> Refused:
    """Body and header are unverified."""
    return refuse(429, "Too many requests", None if retry_after is None else {"retry-after": retry_after})


def out_of_credits(status: int, *, is_sub_key: bool) -> Refused:
    """429 for a sub-key is documented, its body is not; nothing is known of an account's (§2.9, §9 point 1)."""
    return (
        refuse(429, "Credit limit exceeded for this API key") if is_sub_key else refuse(status, "Insufficient credits")
    )


def refusal(fault: Fault) -> Response:
    """The answer to a fault on the wire."""
    match fault.kind:
        case Wire.RATE_LIMIT:
            return rate_limited(fault.retry_after).response
        case Wire.UNAUTHORIZED:
            return unauthorized().response
        case Wire.OUT_OF_CREDITS:
            status = fault.status or 402
            return out_of_credits(status, is_sub_key=status == 429).response
    status = fault.status or 500
    return refuse(status, fault.text or _TEXTS.get(status, "Internal Server Error")).response


_TEXTS = {
    400: "Bad Request",
    402: "Insufficient credits",
    403: "Model is not allowed for this API key",
    404: "Not Found",
    409: "Conflict",
    500: "Internal Server Error",
    503: "Service temporarily unavailable",
}
