"""The lines of an input file, and what is wrong with them (§4.1)."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import orjson

MOST_REQUESTS = 50_000


def parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """The fields of a multipart form; none where it is no such form."""
    head = b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n"
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    if not message.is_multipart():
        return {}
    found = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            found[name] = payload
    return found


def read_lines(content: bytes, endpoint: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The requests, and the errors for which the whole batch fails. Only the first code is documented (§4.2)."""
    lines: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    raw_lines = content.split(b"\n")
    if raw_lines and not raw_lines[-1].strip():
        raw_lines.pop()
    if not 1 <= len(raw_lines) <= MOST_REQUESTS:
        return [], [_error("invalid_request_count", f"1 to {MOST_REQUESTS} requests are allowed.", None)]
    models = set()
    for number, raw in enumerate(raw_lines, 1):
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            line = None
        if not isinstance(line, dict):
            errors.append(_error("invalid_json_line", "This line is not parseable as valid JSON.", number))
            continue
        body = line.get("body")
        custom_id = line.get("custom_id")
        if not isinstance(custom_id, str) or custom_id in seen:
            errors.append(_error("duplicate_custom_id", "The custom_id is missing, or there already.", number))
        elif line.get("method") != "POST" or line.get("url") != endpoint:
            errors.append(_error("mismatched_url", "Method and url must be those of the batch.", number))
        elif not isinstance(body, dict) or not isinstance(body.get("model"), str) or body.get("stream"):
            errors.append(_error("invalid_body", "The body is no request that a batch can hold.", number))
        else:
            seen.add(custom_id)
            models.add(body["model"])
            lines.append(line)
    if len(models) > 1:
        errors.append(_error("mismatched_model", "All requests of a file must name one model.", None))
    return lines, errors


def _error(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": line}
