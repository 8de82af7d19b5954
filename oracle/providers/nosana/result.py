"""What a job produced, judged by its operation's own results and never by its state. Pure. Source: nosana.md §3.7.

A failed container, a job that ran out of time and one that was stopped all end in the state COMPLETED.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from oracle.core.compute import Completion
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.failures import error_of, quotable
from oracle.providers.nosana.templates import OPERATION
from oracle.providers.openai.wire import read_completion

_PART: Final = re.compile(r"ORACLE_PART (\d{1,6}) (\d{1,6}) (\S+)")
_END: Final = re.compile(r"ORACLE_END (\d{3}) (\d{1,6}) ([0-9a-f]{64})")


def completion_of(document: Any) -> Completion:
    """The completion in a result document. Raises what the job came to otherwise, with whether another may help."""
    if not isinstance(document, dict):
        raise errors.HOST_FAILED("the result is no document")
    flow = document.get("status")
    if flow == "validation-error":
        raise errors.DEFINITION_INVALID(f"a host refused it: {_findings(document.get('errors'))}")
    operation = _operation(document)
    if operation is None:
        raise errors.JOB_STOPPED("before it began") if flow == "stopped" else errors.HOST_FAILED(f"flow {flow!r:.40}")
    _check_reasons(operation, flow)
    answer = _printed(operation)
    exit_code = operation.get("exitCode")
    if operation.get("status") == "success" and exit_code == 0:
        if answer is None:
            raise errors.OUTPUT_DAMAGED("parts are missing, or do not match their checksum")
        if answer.status == 200:
            return read_completion(_json(answer.content))
        if answer.status == 0:
            return _text(answer.content)
    if answer is not None and answer.status not in (0, 200):
        # The host did its work, and the model server refused: what it says is about our request.
        raise error_of(answer.status, {}, answer.content, repeatable=True, now=0.0)
    raise errors.JOB_FAILED(_symptoms(operation))


def ending_of(document: Any) -> str:
    """In a few words, how the first operation of any job ended: for a person, and with nothing that it printed."""
    states = document.get("opStates") if isinstance(document, dict) else None
    operation = states[0] if isinstance(states, list) and states and isinstance(states[0], dict) else None
    if operation is None:
        return "without a result"
    try:
        _check_reasons(operation, document.get("status"))
    except OracleError as error:
        return error.error.title.lower()
    return _symptoms(operation)


@dataclass(slots=True)
class _Answer:
    """An HTTP answer of the model server, put together from what was printed, and checked."""

    status: int
    content: bytes


@dataclass(slots=True)
class _Parts:
    parts: dict[int, str] = field(default_factory=dict)
    end: tuple[int, int, str] | None = None

    def read(self, line: str) -> None:
        if match := _PART.match(line):
            self.parts[int(match[1])] = match[3]
        elif match := _END.match(line):
            self.end = (int(match[1]), int(match[2]), match[3])

    def answer(self) -> _Answer | None:
        if self.end is None:
            return None
        status, total, digest = self.end
        if not all(number in self.parts for number in range(1, total + 1)):
            return None
        try:
            content = base64.b64decode("".join(self.parts[number] for number in range(1, total + 1)), validate=True)
        except binascii.Error:
            return None
        return _Answer(status, content) if hashlib.sha256(content).hexdigest() == digest else None


def _printed(operation: dict[str, Any]) -> _Answer | None:
    parts = _Parts()
    for line in _lines(operation):
        parts.read(line)
    return parts.answer()


def _lines(operation: dict[str, Any]) -> Iterator[str]:
    """From the extracted results and from the log: each may miss what the other has."""
    results = operation.get("results")
    for name in ("part", "end"):
        found = results.get(name) if isinstance(results, dict) else None
        # An invalid regular expression puts an error text in place of the list.
        yield from (line for line in found if isinstance(line, str)) if isinstance(found, list) else ()
    logs = operation.get("logs")
    for entry in logs if isinstance(logs, list) else ():
        if isinstance(entry, dict) and entry.get("type") == "stdout" and isinstance(entry.get("log"), str):
            yield from entry["log"].splitlines()


def _operation(document: dict[str, Any]) -> dict[str, Any] | None:
    states = document.get("opStates")
    for state in states if isinstance(states, list) else ():
        if isinstance(state, dict) and state.get("operationId") == OPERATION:
            return state
    return None


def _check_reasons(operation: dict[str, Any], flow: Any) -> None:
    """Out of time and stopped both come with exit code 0 and `success`, and are told by the diagnostics alone."""
    diagnostics = operation.get("diagnostics")
    reason = diagnostics.get("reason") if isinstance(diagnostics, dict) else None
    reasons = reason if isinstance(reason, dict) else {}
    if reasons.get("jobExpired"):
        raise errors.JOB_TIMED_OUT()
    if reasons.get("jobStopped") or flow == "stopped" or operation.get("status") == "stopped":
        raise errors.JOB_STOPPED()
    if reasons.get("hostShutDown"):
        raise errors.HOST_FAILED("it shut down")


def _symptoms(operation: dict[str, Any]) -> str:
    diagnostics = operation.get("diagnostics")
    state = diagnostics.get("state") if isinstance(diagnostics, dict) else None
    out_of_memory = isinstance(state, dict) and state.get("OOMKilled") is True
    parts = [f"exit code {operation.get('exitCode')!r:.12}"]
    parts += ["out of memory"] if out_of_memory else []
    # Schemas say `error`, hosts of 2026 write `errors`.
    parts += [text for text in (_findings(operation.get("errors")), _findings([operation.get("error")])) if text]
    return ", ".join(parts)


def _findings(found: Any) -> str:
    """The first message of a host: a stranger's text, so short and on one line."""
    for item in found if isinstance(found, list) else ():
        if isinstance(item, dict):
            return quotable(str(item.get("message") or item.get("path") or ""), ())
    return ""


def _text(content: bytes) -> Completion:
    """What a text template prints: the name of the model, and after the first line end the answer."""
    model, _, text = content.partition(b"\n")
    try:
        said = text.decode()
    except UnicodeDecodeError:
        raise errors.ANSWER_INCOMPLETE("the answer is not UTF-8") from None
    if not said.strip():
        raise errors.ANSWER_EMPTY("the container printed nothing")
    return Completion(said, model.decode(errors="replace"), "stop")


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        raise errors.ANSWER_INCOMPLETE("the model server answered 200 with something that is not JSON") from None
