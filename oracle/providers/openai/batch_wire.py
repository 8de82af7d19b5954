"""Batches on the wire: the lines that go in and come out, and which requests a batch holds. No I/O.

Source: specs/openai_compatible.md §4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from oracle.core.compute import Completion, IdempotencyKey, Task
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.failures import error_of
from oracle.providers.openai.wire import Dictation, chat_body, check_not_cut, read_completion

ENDPOINT: Final = "/v1/chat/completions"
ENDED: Final = frozenset({"failed", "completed", "expired", "cancelled"})

# Metadata has 16 pairs of at most 512 characters (§2.1): one marks the batch as ours, the others hold its keys.
_MARK: Final = ("oracle", "1")
_KEYS_A_PAIR: Final = 13
MOST_REQUESTS: Final = 15 * _KEYS_A_PAIR

_BOUNDARY: Final = "oracle-batch-7b6f2c1e"


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the provider tells of it. `keys` are the requests in it; None where its metadata does not say."""

    id: str
    status: str
    input_file: str
    output_file: str | None
    error_file: str | None
    created_at: float
    keys: tuple[str, ...] | None
    total: int | None
    faults: tuple[tuple[str, int | None], ...] = ()
    """Codes of what failed its validation, with the number of the line."""


def input_lines(tasks: Mapping[IdempotencyKey, Task], dictation: Dictation) -> bytes:
    """The input file. A streamed answer is not possible in a batch."""
    lines = []
    for key, task in tasks.items():
        body = chat_body(task, dictation, stream=False)
        body.pop("stream")
        lines.append(orjson.dumps({"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}))
    return b"".join(line + b"\n" for line in lines)


def upload(content: bytes) -> tuple[bytes, str]:
    """A multipart form with the file in it, and its content type. Prompts are JSON, so no line is the boundary."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="oracle.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={_BOUNDARY}"


def metadata(keys: Sequence[str]) -> dict[str, str]:
    """What finds the batch again: the keys of its requests."""
    name, value = _MARK
    groups = [keys[at : at + _KEYS_A_PAIR] for at in range(0, len(keys), _KEYS_A_PAIR)]
    return {name: value} | {f"keys_{number}": " ".join(group) for number, group in enumerate(groups)}


def read_batch(body: Any) -> Batch | None:
    if not isinstance(body, dict) or not _text(body.get("id")) or not _text(body.get("status")):
        return None
    found = body.get("errors")
    faults = found.get("data") if isinstance(found, dict) else None
    counts = body.get("request_counts")
    total = counts.get("total") if isinstance(counts, dict) else None
    created_at = body.get("created_at")
    return Batch(
        id=body["id"],
        status=body["status"],
        input_file=_text(body.get("input_file_id")),
        output_file=_text(body.get("output_file_id")) or None,
        error_file=_text(body.get("error_file_id")) or None,
        created_at=float(created_at) if isinstance(created_at, int | float) else 0.0,
        keys=_keys(body.get("metadata")),
        total=total if isinstance(total, int) else None,
        faults=tuple(_fault(item) for item in faults if isinstance(item, dict)) if isinstance(faults, list) else (),
    )


def custom_ids(content: bytes) -> tuple[str, ...]:
    """The requests in an input file."""
    return tuple(_text(line.get("custom_id")) for line in _lines(content))


def results(content: bytes, private: Sequence[str] = ()) -> dict[str, Completion | OracleError]:
    """What a result or error file says of each request: the order is not kept, and the last line may be cut.

    Of a request that is there twice the first answer counts.
    """
    found: dict[str, Completion | OracleError] = {}
    for line in _lines(content):
        key = _text(line.get("custom_id"))
        if key and not isinstance(found.get(key), Completion):
            found[key] = _result(line, private)
    return found


def answer_within(result: Completion | OracleError, max_output_tokens: int) -> Completion | OracleError:
    """The result, or why it is none: an answer cut before its limit is not the one that was asked for."""
    if isinstance(result, OracleError):
        return result
    try:
        check_not_cut(result, max_output_tokens)
    except OracleError as error:
        return error
    return result


def _result(line: Mapping[str, Any], private: Sequence[str]) -> Completion | OracleError:
    response, error = line.get("response"), line.get("error")
    if isinstance(response, dict):
        status, body = response.get("status_code"), response.get("body")
        try:
            if status == 200:
                return read_completion(body, private)
        except OracleError as refused:
            return refused
        known = status if isinstance(status, int) and 400 <= status < 600 else 500
        # It has ended: even a 504 is no purchase that may still be under way.
        return error_of(known, {}, orjson.dumps(body), repeatable=True, now=0.0, private=private)
    code = _text(error.get("code")) if isinstance(error, dict) else ""
    if code == "batch_expired":
        return errors.BATCH_EXPIRED("not executed in its window")
    if code == "batch_cancelled":
        return errors.JOB_STOPPED("its batch was cancelled")
    return errors.BATCH_FAILED(code[:64] if code.replace("_", "").isalnum() else "no reason given")


def _keys(value: Any) -> tuple[str, ...] | None:
    """None where the batch does not carry our mark: then only its input file tells."""
    if not isinstance(value, dict) or value.get(_MARK[0]) != _MARK[1]:
        return None
    groups = sorted((int(name[5:]), keys) for name, keys in value.items() if re.fullmatch(r"keys_\d{1,2}", name))
    return tuple(key for _, keys in groups for key in _text(keys).split())


def _fault(item: Mapping[str, Any]) -> tuple[str, int | None]:
    line = item.get("line")
    return _text(item.get("code"))[:64], line if isinstance(line, int) else None


def _lines(content: bytes) -> list[dict[str, Any]]:
    found = []
    for raw in content.split(b"\n"):
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            continue
        if isinstance(line, dict):
            found.append(line)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
