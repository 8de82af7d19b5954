"""What can be wrong with an answer whose status is 200 (§2.9, §7 point 5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import StrEnum
from typing import Any

import orjson

from oracle.localnet.emulators.server import CutConnection

OTHER_MODEL = "another/model"
OTHER_FINGERPRINT = "vllm-0.27.2-00000000"


class AnswerFault(StrEnum):
    """The subject of these faults is `<model> <key id>`. Those of streams alone leave other answers as they are."""

    NULL_CONTENT = "null_content"
    """Reasoning ate the budget: content null, `length`."""
    EMPTY_CHOICES = "empty_choices"
    ERROR_IN_200 = "error_in_200"
    LENGTH = "length"
    WRONG_MODEL = "wrong_model"
    NEW_FINGERPRINT = "new_fingerprint"
    OTHER_TEXT = "other_text"
    """An answer that is not the first one's: ` (again)` stands at its end."""
    STALL = "stall"
    """The stream pauses for `seconds` in the middle; 0 is for ever."""
    CUT_STREAM = "cut_stream"
    """The connection ends in the middle of an event."""
    CUT_CHARACTER = "cut_character"
    """The connection ends in the middle of a character."""
    ERROR_IN_STREAM = "error_in_stream"
    NO_DONE = "no_done"
    NO_FINISH_REASON = "no_finish_reason"


def spoil(answer: dict[str, Any], kind: str | None) -> dict[str, Any]:
    """An answer in one piece, with this fault."""
    if kind == AnswerFault.ERROR_IN_200:
        return {"detail": "upstream error"}
    (choice,) = answer["choices"]
    if kind == AnswerFault.NULL_CONTENT:
        message = {**choice["message"], "content": None, "reasoning_content": "long…"}
        return {**answer, "choices": [{**choice, "message": message, "finish_reason": "length"}]}
    if kind == AnswerFault.OTHER_TEXT:
        message = {**choice["message"], "content": f"{choice['message']['content']} (again)"}
        return {**answer, "choices": [{**choice, "message": message}]}
    return _altered(answer, kind)


async def spoiled_stream(
    events: AsyncGenerator[dict[str, Any]], kind: str | None, seconds: float
) -> AsyncGenerator[bytes]:
    """The bytes of a stream, `[DONE]` included, with this fault. Its middle is the second event with content."""
    if kind == AnswerFault.ERROR_IN_200:
        yield _sse({"detail": "upstream error"})
        return
    async with aclosing(events):
        contents = 0
        async for plain in events:
            event = _altered(plain, kind)
            choice = event["choices"][0] if event["choices"] else {"delta": {}, "finish_reason": None}
            last = choice["finish_reason"] is not None
            contents += bool(choice["delta"].get("content"))
            if kind in _IN_THE_MIDDLE and (contents == 2 or last):
                if kind == AnswerFault.ERROR_IN_STREAM:
                    yield _sse({"error": {"message": "EngineCore encountered an issue", "code": 500}})
                    break
                if kind == AnswerFault.STALL:
                    await asyncio.sleep(seconds or 1e9)
                    kind = None
                else:
                    yield _cut(event, choice, kind)
                    raise CutConnection
            if kind == AnswerFault.NULL_CONTENT and choice["delta"].get("content"):
                if not last:
                    continue
                choice["delta"] = {}
            if kind == AnswerFault.OTHER_TEXT and last:
                choice["delta"]["content"] += " (again)"
            if kind == AnswerFault.NO_FINISH_REASON:
                choice["finish_reason"] = None
            yield _sse(event)
    if kind != AnswerFault.NO_DONE:
        yield b"data: [DONE]\n\n"


_IN_THE_MIDDLE = {
    AnswerFault.STALL,
    AnswerFault.CUT_STREAM,
    AnswerFault.CUT_CHARACTER,
    AnswerFault.ERROR_IN_STREAM,
}


def _altered(answer: dict[str, Any], kind: str | None) -> dict[str, Any]:
    """What is spoilt in the same way in one piece and in an event."""
    match kind:
        case AnswerFault.EMPTY_CHOICES:
            return {**answer, "choices": []}
        case AnswerFault.WRONG_MODEL:
            return {**answer, "model": OTHER_MODEL}
        case AnswerFault.NEW_FINGERPRINT if "system_fingerprint" in answer:
            return {**answer, "system_fingerprint": OTHER_FINGERPRINT}
        case AnswerFault.LENGTH | AnswerFault.NULL_CONTENT:
            cut = [{**choice, "finish_reason": choice["finish_reason"] and "length"} for choice in answer["choices"]]
            return {**answer, "choices": cut}
    return answer


def _cut(event: dict[str, Any], choice: dict[str, Any], kind: str) -> bytes:
    if kind == AnswerFault.CUT_CHARACTER:
        choice["delta"]["content"] += "é"
        whole = _sse(event)
        return whole[: whole.index("é".encode()) + 1]
    whole = _sse(event)
    return whole[: whole.index(b'"content"') + 12]


def _sse(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
