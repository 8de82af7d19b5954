"""What a refusal means: the error envelopes of every provider, and the one coded error each becomes. No I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from oracle.core.errors import ErrorCode, OracleError
from oracle.providers import errors

LONGEST_RETRY_AFTER_SECONDS: Final = 3600.0
_LONGEST_QUOTE: Final = 200
_PROBE: Final = 12

# 408 and 425 refuse before accepting. 504, and Cloudflare's 520 and 524: the origin got the call and did not answer.
_NOT_ACCEPTED: Final = frozenset({408, 425})
_ORIGIN_SILENT: Final = frozenset({504, 520, 524})
_RATE_CODES: Final = frozenset({"rate_limit_exceeded", "slow_down", "RESOURCE_EXHAUSTED", "ThrottlingException"})
_CREDIT_CODES: Final = frozenset(
    {"insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded", "billing_error"}
)
_MODEL_CODES: Final = frozenset({"model_not_found"})
_MODEL_MISSING: Final = re.compile(
    r"\bmodel\b.*\b(not available|does not exist|not found|isn't supported)", re.I | re.S
)
_KEY_LIKE: Final = re.compile(r"\b(?:Bearer\s+\S+|(?:sk|nos|io|pk)[-_][\w*.-]{4,}|eyJ[\w.-]{8,})")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a provider departs from OpenAI: `credit_words` in a 403 or 429 mean money, not rate (ionet.md §2.9)."""

    credit_words: tuple[str, ...] = ()


OPENAI_DIALECT: Final = Dialect()


@dataclass(frozen=True, slots=True)
class Complaint:
    """What an error body says, as far as it says it. `message` is the provider's own text: quote it with `quotable`."""

    code: str = ""
    kind: str = ""
    message: str = ""
    parameter: str = ""


def error_of(
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    *,
    repeatable: bool,
    now: float,
    dialect: Dialect = OPENAI_DIALECT,
    private: Sequence[str] = (),
) -> OracleError:
    """The error for an answer that is not a success.

    `repeatable` calls buy nothing, so silence of the origin is no purchase. `private` texts (prompts, secrets) are
    never quoted. `now` is unix seconds, to read a `Retry-After` that is a date.
    """
    complaint = read_complaint(content)
    error = _code_of(status, complaint, repeatable=repeatable, dialect=dialect)
    wait = retry_after_seconds(headers, now)
    return error(describe(status, complaint, error, private), retry_after_seconds=wait)


def read_complaint(content: bytes) -> Complaint:
    """Any envelope of openai_compatible.md §1: `error` object or string, `detail`, `message`, or one in a list."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return Complaint()
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, str):
        return Complaint(message=body)
    if not isinstance(body, dict):
        return Complaint()
    inner = body.get("error")
    if isinstance(inner, dict):
        return Complaint(
            code=_word(inner.get("code")),
            kind=_word(inner.get("type")) or _word(inner.get("status")),
            message=_text(inner.get("message")),
            parameter=_word(inner.get("param")),
        )
    message = _text(body.get("message")) or _text(body.get("Message"))
    if isinstance(inner, str):
        return Complaint(code=_word(body.get("code")), kind=_word(inner), message=message or inner)
    if "detail" in body:
        return _fastapi(body["detail"])
    return Complaint(code=_word(body.get("code")), kind=_word(body.get("type")), message=message)


def describe(status: int, complaint: Complaint, error: ErrorCode, private: Sequence[str]) -> str:
    """A detail fit for logs: the status, the provider's codes, and its words where they repeat nothing private."""
    parts = [f"HTTP {status}"]
    parts += [
        word for word in (complaint.code, complaint.kind, complaint.parameter) if word and quotable(word, private)
    ]
    # Providers repeat part of a refused key in the message, so it is not quoted at all.
    if error is not errors.CREDENTIALS_REFUSED and (message := quotable(complaint.message, private)):
        parts.append(message)
    return ", ".join(dict.fromkeys(parts))


def quotable(message: str, private: Sequence[str]) -> str:
    """`message` on one short line without keys; nothing where it repeats a private text, as validators like to do."""
    line = _KEY_LIKE.sub("[key]", " ".join(message.split()))[:_LONGEST_QUOTE]
    for text in private:
        flat = " ".join(text.split())
        if not flat:
            continue
        if len(flat) <= _PROBE:
            if flat in line:
                return ""
        elif any(line[at : at + _PROBE] in flat for at in range(len(line) - _PROBE + 1)):
            return ""
    return line


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """What `retry-after-ms` or `Retry-After` (seconds or an HTTP date) asks for, at most an hour; None for nonsense."""
    if (seconds := _number(headers.get("retry-after-ms"))) is not None:
        seconds /= 1000
    elif (raw := headers.get("retry-after")) is not None:
        seconds = _number(raw)
        if seconds is None:
            try:
                seconds = parsedate_to_datetime(raw).timestamp() - now
            except (ValueError, OverflowError):
                return None
    if seconds is None or seconds < 0:
        return None
    return min(seconds, LONGEST_RETRY_AFTER_SECONDS)


def _code_of(status: int, complaint: Complaint, *, repeatable: bool, dialect: Dialect) -> ErrorCode:
    words = {complaint.code, complaint.kind}
    # Rate first: Google says "quota" when it means rate, and OpenAI's rate messages mention billing.
    about_rate = not words.isdisjoint(_RATE_CODES)
    text = complaint.message.lower()
    about_credit = not about_rate and (
        not words.isdisjoint(_CREDIT_CODES)
        or (status in (403, 429) and any(word in text for word in dialect.credit_words))
    )
    about_model = not words.isdisjoint(_MODEL_CODES) or _MODEL_MISSING.search(complaint.message) is not None
    if status == 401:
        return errors.CREDENTIALS_REFUSED
    if status == 402 or about_credit:
        return errors.OUT_OF_CREDIT
    if status == 429 or about_rate:
        return errors.RATE_LIMITED
    if status in (400, 403, 404) and about_model:
        return errors.MODEL_UNAVAILABLE
    if status == 403:
        return errors.NOT_PERMITTED
    if 300 <= status < 400:
        return errors.WRONG_ADDRESS
    if status in _ORIGIN_SILENT and not repeatable:
        return errors.NO_ANSWER
    if status in _NOT_ACCEPTED or (status >= 500 and status != 501):
        return errors.UNAVAILABLE
    return errors.REQUEST_REFUSED


def _fastapi(detail: Any) -> Complaint:
    """`detail` is a text, or a list of findings whose `input` repeats what was sent and is therefore left out."""
    if isinstance(detail, str):
        return Complaint(message=detail)
    if not isinstance(detail, list):
        return Complaint()
    findings = [item for item in detail if isinstance(item, dict)]
    if not findings:
        return Complaint()
    first = findings[0]
    where = first.get("loc")
    return Complaint(
        kind=_word(first.get("type")),
        message=_text(first.get("msg")),
        parameter=".".join(str(part) for part in where)[:64] if isinstance(where, list) else "",
    )


def _word(value: Any) -> str:
    """An identifier such as a code or a type; a sentence in its place is dropped, for it could quote anything."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    word = str(value)
    return word if re.fullmatch(r"[\w.\-:/\[\] ]{1,64}", word) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(raw: str | None) -> float | None:
    try:
        number = float(raw) if raw is not None else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None
