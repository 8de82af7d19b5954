"""Reasoning inside the text of an answer, whatever pieces it comes in."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_wire import COMPLETION, TASK, Wire, answer, http

from oracle.core.compute import Completion, Piece
from oracle.core.errors import ErrorCode, OracleError
from oracle.providers import errors
from oracle.providers.openai.client import OpenAIChat
from oracle.providers.openai.thoughts import Thoughts
from oracle.providers.openai.wire import Dictation

CASES = [
    ("<think>Six times seven.</think>42", "42"),
    ("<think>\nSix\n</think>\n\n42\n", "42\n"),
    ("\n <think></think>42 <think>no</think>", "42 <think>no</think>"),
    ("42", "42"),
    ("\n\n42", "\n\n42"),
    ("<thin", "<thin"),
    ("<thinking>42", "<thinking>42"),
    ("42 <think>a</think>", "42 <think>a</think>"),
    ("<think>a</thin></think>42", "42"),
    # Thoughts that were never ended are no answer.
    ("<think>Six times", ""),
    ("<think>Six times</think>", ""),
    ("", ""),
    ("  ", "  "),
]


def answered(text: str, sizes: int) -> str:
    thoughts = Thoughts("think")
    pieces = [text[at : at + sizes] for at in range(0, len(text), sizes)]
    return "".join(map(thoughts.feed, pieces)) + thoughts.rest()


@pytest.mark.parametrize(("text", "expected"), CASES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_thoughts_are_left_out_wherever_the_text_is_cut(text: str, expected: str, size: int) -> None:
    assert answered(text, size) == expected


@given(st.text(alphabet="<think/> a\n", max_size=40), st.integers(1, 5))
def test_cutting_never_changes_what_is_left(text: str, size: int) -> None:
    assert answered(text, size) == answered(text, len(text) + 1)


@given(st.text(max_size=40), st.integers(1, 5))
def test_without_a_tag_every_text_is_the_answer(text: str, size: int) -> None:
    thoughts = Thoughts(None)
    assert "".join(map(thoughts.feed, text)) + thoughts.rest() == text


def completion(text: str, finish_reason: str = "stop") -> dict[str, object]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return {**COMPLETION, "choices": [choice]}


THINKING = Dictation(reasoning_tag="think")


async def test_an_answer_is_read_without_its_thoughts() -> None:
    wire = Wire(answer(completion("<think>Six times seven.</think>\n\n42")))
    assert (await OpenAIChat(http(wire), THINKING).complete(TASK)).text == "42"
    wire = Wire(answer(completion("<think>Six times seven.</think>\n\n42")))
    assert (await OpenAIChat(http(wire)).complete(TASK)).text == "<think>Six times seven.</think>\n\n42"


@pytest.mark.parametrize(("reason", "expected"), [("length", errors.ANSWER_CUT), ("stop", errors.ANSWER_EMPTY)])
async def test_thoughts_alone_are_no_answer(reason: str, expected: ErrorCode) -> None:
    with pytest.raises(OracleError) as caught:
        await OpenAIChat(http(Wire(answer(completion("<think>Six times", reason)))), THINKING).complete(TASK)
    assert caught.value.error is expected


async def test_a_stream_shows_nothing_of_its_thoughts() -> None:
    chunks = [*("<th", "ink>Six", " times</thi", "nk>\n", "\n4", "2")]
    events = [{"model": "m", "choices": [{"index": 0, "delta": {"content": chunk}}]} for chunk in chunks]
    events.append({"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    body = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)
    *pieces, whole = [piece async for piece in OpenAIChat(http(Wire(answer(body))), THINKING).stream(TASK)]
    assert [piece.text for piece in pieces if isinstance(piece, Piece)] == ["4", "2"]
    assert isinstance(whole, Completion)
    assert whole.text == "42"
