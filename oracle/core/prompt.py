"""From the bytes of an input to the messages a model gets; and back from a text to its hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from oracle.core.compute import Message
from oracle.core.errors import ErrorCode
from oracle.core.request import Flags

MAX_MESSAGES: Final = 256
_ROLES: Final = ("system", "user", "assistant")
# Tab, newline and carriage return are text; every other C0 or C1 control, and DEL, is not.
_CONTROLS: Final = frozenset([*range(0x20), *range(0x7F, 0xA0)]) - {0x09, 0x0A, 0x0D}

INPUT_EMPTY = ErrorCode(
    "ORC-INPUT-001",
    "Input is empty",
    "The request asks nothing: its input has no text.",
    "Submit a request with a prompt.",
)
INPUT_NOT_TEXT = ErrorCode(
    "ORC-INPUT-002",
    "Input is not UTF-8 text",
    "The bytes of the input are not valid UTF-8.",
    "Encode the prompt as UTF-8; for other data submit a description or base64.",
)
INPUT_CONTROL_CHARACTERS = ErrorCode(
    "ORC-INPUT-003",
    "Input holds control characters",
    "A control character other than tab, newline and carriage return can hide instructions from a reader.",
    "Remove the control characters from the prompt.",
)
INPUT_NOT_CHAT = ErrorCode(
    "ORC-INPUT-004",
    "Input is not a list of chat messages",
    "The CHAT flag is set, but the input is not a JSON array of objects with `role` and `content`.",
    'Send `[{"role":"user","content":"…"}]`, or clear the flag to send plain text.',
)
INPUT_HASH_MISMATCH = ErrorCode(
    "ORC-INPUT-005",
    "Input does not match its hash",
    "What the URI serves has another SHA-256 than the request states, so it is not what was asked.",
    "Serve the very bytes that were hashed at the URI, and submit again.",
)


def messages_of(content: bytes, flags: Flags) -> tuple[Message, ...]:
    """Messages for the model: one user message, or the JSON array where `Flags.CHAT` is set.

    Raises ORC-INPUT-001 … 004. Details never repeat the text: prompts do not belong in logs.
    """
    text = _text(content)
    if Flags.CHAT not in flags:
        return (Message("user", text),)
    try:
        items = json.loads(text, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError):
        raise INPUT_NOT_CHAT("not JSON, or a name twice in one object") from None
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_MESSAGES:
        raise INPUT_NOT_CHAT(f"not an array of 1 to {MAX_MESSAGES} messages")
    messages = tuple(_message(item, at) for at, item in enumerate(items))
    if not any(message.content.strip() for message in messages):
        raise INPUT_EMPTY()
    return messages


def check_hash(content: bytes, expected: bytes) -> None:
    """Raise ORC-INPUT-005 unless `content` has this SHA-256."""
    if hashlib.sha256(content).digest() != expected:
        raise INPUT_HASH_MISMATCH(f"{len(content)} bytes, expected {expected.hex()}")


def _text(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise INPUT_NOT_TEXT(f"at byte {error.start}") from None
    _refuse_controls(text)
    if not text.strip():
        raise INPUT_EMPTY()
    return text


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name that stands twice, a reader believes the first and a parser takes the last."""
    if len(decoded := dict(pairs)) < len(pairs):
        raise ValueError("a name twice")
    return decoded


def _message(item: Any, at: int) -> Message:
    if not isinstance(item, dict) or set(item) != {"role", "content"}:
        raise INPUT_NOT_CHAT(f"message {at} must have role and content, and nothing else")
    role, content = item["role"], item["content"]
    if role not in _ROLES or not isinstance(content, str):
        raise INPUT_NOT_CHAT(f"message {at} needs a role of {', '.join(_ROLES)} and a text")
    # Controls may also arrive as JSON escapes, which the check of the raw text does not see.
    _refuse_controls(content)
    try:
        content.encode()
    except UnicodeEncodeError:
        raise INPUT_NOT_TEXT(f"message {at} holds a lone surrogate") from None
    return Message(role, content)


def _refuse_controls(text: str) -> None:
    for at, character in enumerate(text):
        if ord(character) in _CONTROLS:
            raise INPUT_CONTROL_CHARACTERS(f"U+{ord(character):04X} at character {at}")
