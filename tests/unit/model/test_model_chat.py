"""What is said to llama.cpp and how its answers are read, byte by byte where it matters."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.model import errors
from oracle.model.chat import Completion, EventStream, completion_of, refusal, request_body
from oracle.model.prompts import KNOWN_ANSWERS
from oracle.model.server import LocalModel


def chunk(content: str | None, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}


def body_of(content: str, **options: Any) -> dict[str, Any]:
    defaults = {"max_tokens": 8, "temperature": 0.0, "seed": 1, "context_tokens": 100}
    return request_body([{"role": "user", "content": content}], **{**defaults, **options})


def error_of(content: str, **options: Any) -> ErrorCode:
    with pytest.raises(OracleError) as caught:
        body_of(content, **options)
    return caught.value.error


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers(1, 7))
def test_an_answer_is_the_same_however_its_bytes_were_cut(text: str, size: int) -> None:
    events = [chunk(None), *(chunk(character) for character in text), chunk(None, "stop"), USAGE]
    wire = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n: ping\n\n" for event in events).encode()
    wire += b"data: [DONE]\n\n"
    stream = EventStream()

    read = [event for at in range(0, len(wire), size) for event in stream.feed(wire[at : at + size])]

    assert completion_of(read) == Completion(text, "stop", prompt_tokens=7, completion_tokens=2)


def test_a_line_separator_inside_an_answer_does_not_end_the_line() -> None:
    text = "one\u2028two\u2029three\x85four"
    wire = f"data: {json.dumps(chunk(text), ensure_ascii=False)}\r\n\r\n".encode()

    assert list(EventStream().feed(wire)) == [chunk(text)]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="nothing"),
        pytest.param([chunk("4"), USAGE], id="no-reason-to-finish"),
        pytest.param([chunk("4", "stop")], id="no-usage"),
        pytest.param([chunk("4"), {"error": {"code": 500, "message": "lost"}}], id="an-error-in-the-stream"),
        pytest.param([chunk("4"), {"error": "lost"}, USAGE], id="an-error-that-is-a-string"),
    ],
)
def test_a_stream_that_does_not_say_why_it_ended_is_no_answer(events: list[dict[str, Any]]) -> None:
    with pytest.raises(OracleError) as caught:
        completion_of(events)

    assert caught.value.error is errors.ANSWER_BROKEN


@pytest.mark.parametrize("line", [b"data: {\n", b"data: 4\n", b"data: \xff\n"])
def test_an_event_that_is_not_an_object_is_no_answer(line: bytes) -> None:
    with pytest.raises(OracleError) as caught:
        list(EventStream().feed(line))

    assert caught.value.error is errors.ANSWER_BROKEN


def test_a_prompt_that_cannot_fit_is_refused_before_it_is_sent() -> None:
    assert body_of("x" * 8_100)["messages"][0]["content"] == "x" * 8_100
    assert error_of("x" * 8_101) is errors.PROMPT_TOO_LONG


def test_what_json_or_llama_cpp_cannot_take_is_refused_before_it_is_sent() -> None:
    assert error_of("half a smile: \ud83d") is errors.REQUEST_REFUSED
    assert error_of("no limit, please", max_tokens=-1) is errors.REQUEST_REFUSED
    assert error_of("as cold as can be", temperature=-1.0) is errors.REQUEST_REFUSED
    assert error_of("as hot as can be", temperature=float("nan")) is errors.REQUEST_REFUSED


@pytest.mark.parametrize("seed", [-1, 2**32 - 1, 2**32 + 5])
def test_a_seed_that_llama_cpp_would_not_keep_is_refused(seed: int) -> None:
    assert error_of("surprise me", seed=seed) is errors.REQUEST_REFUSED


def test_more_tokens_than_there_is_room_for_means_as_many_as_there_is_room_for() -> None:
    assert body_of("all you have", max_tokens=2**32 + 3)["max_tokens"] == 100


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            400,
            b'{"error":{"code":400,"message":"request (13 tokens) exceeds","type":"exceed_context_size_error"}}',
            errors.PROMPT_TOO_LONG,
        ),
        (400, b'{"error":{"code":400,"message":"bad","type":"invalid_request_error"}}', errors.REQUEST_REFUSED),
        (503, b'{"error":{"code":503,"message":"Loading","type":"unavailable_error"}}', errors.NOT_RUNNING),
        (500, b"<html>", errors.NOT_RUNNING),
        (404, b'["not what is documented"]', errors.REQUEST_REFUSED),
    ],
)
def test_a_refusal_keeps_its_meaning(status: int, body: bytes, expected: ErrorCode) -> None:
    assert refusal(status, body).error is expected


def test_only_what_another_try_may_mend_is_tried_again() -> None:
    assert refusal(503, b"").verdict is Verdict.RETRY
    assert refusal(400, b"").verdict is Verdict.GIVE_UP


def test_every_known_answer_holds_its_fact() -> None:
    assert all(known.fact in known.answer for known in KNOWN_ANSWERS)
    assert len({known.name for known in KNOWN_ANSWERS}) == len(KNOWN_ANSWERS) >= 8


def test_a_model_that_was_not_started_has_no_address(tmp_path: Path) -> None:
    with pytest.raises(OracleError) as caught:
        _ = LocalModel(tmp_path / "weights").base_url

    assert caught.value.error is errors.NOT_RUNNING


def test_an_installation_without_llama_cpp_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OracleError) as caught:
        LocalModel(tmp_path / "weights").start()

    assert caught.value.error is errors.EXTRA_MISSING


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"context_tokens": 0}, {"context_tokens": 8193}, {"start_timeout_seconds": 0}]
)
def test_settings_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        LocalModel(tmp_path / "weights", **options)
