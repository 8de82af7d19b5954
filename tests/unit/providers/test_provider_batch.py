"""The batch API's wire format, as its specification has it (openai_compatible.md §4)."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import orjson
import pytest
from provider_wire import COMPLETION, TASK, Wire, answer, http

from oracle.core.compute import Completion, IdempotencyKey
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.providers import errors
from oracle.providers.openai.batch_api import BatchApi
from oracle.providers.openai.batch_list import BatchList
from oracle.providers.openai.batch_wire import (
    MOST_REQUESTS,
    custom_ids,
    input_lines,
    metadata,
    read_batch,
    results,
    upload,
)
from oracle.providers.openai.wire import Dictation
from oracle.providers.registry import build

KEYS = [IdempotencyKey(f"{n:08d}-2a41-4f7e-9a9f-0d3c1b2a4e5f") for n in range(MOST_REQUESTS)]
NOW = 1_789_430_000.0
BATCH: dict[str, Any] = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": None,
    "input_file_id": "file-1",
    "completion_window": "24h",
    "status": "validating",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": 1789430000,
    "request_counts": {"total": 0, "completed": 0, "failed": 0},
    "metadata": metadata(KEYS[:2]),
}


def test_a_line_is_a_request_under_its_key() -> None:
    content = input_lines({KEYS[0]: TASK, KEYS[1]: TASK}, Dictation("max_completion_tokens"))
    first, second, rest = content.split(b"\n")
    assert orjson.loads(first) == {
        "custom_id": KEYS[0],
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "gpt-x",
            "messages": [{"role": "user", "content": "What is six times seven?"}],
            "max_completion_tokens": 32,
            "temperature": 0.0,
            "top_p": 1,
            "seed": 7,
        },
    }
    assert (orjson.loads(second)["custom_id"], rest) == (KEYS[1], b"")
    assert custom_ids(content) == (KEYS[0], KEYS[1])


def test_the_file_travels_in_a_form() -> None:
    content = b'{"a":"\\u2028 --oracle-batch"}\n'
    body, kind = upload(content)
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    purpose, file = message.iter_parts()  # type: ignore[attr-defined]
    assert purpose.get_payload(decode=True) == b"batch"
    assert (file.get_filename(), file.get_payload(decode=True)) == ("oracle.jsonl", content)


@pytest.mark.parametrize("count", [1, 13, 14, 100, MOST_REQUESTS])
def test_the_metadata_holds_every_key_within_its_limits(count: int) -> None:
    pairs = metadata(KEYS[:count])
    assert len(pairs) <= 16
    assert max(len(value) for value in pairs.values()) <= 512
    shuffled = dict(sorted(pairs.items(), key=lambda item: item[0][::-1]))
    batch = read_batch({**BATCH, "metadata": shuffled})
    assert batch is not None
    assert batch.keys == tuple(KEYS[:count])


@pytest.mark.parametrize("value", [None, {}, {"oracle": "2", "keys_0": "x"}, {"keys_0": "x"}, 7, "x"])
def test_the_metadata_of_others_says_nothing(value: Any) -> None:
    batch = read_batch({**BATCH, "metadata": value})
    assert batch is not None
    assert batch.keys is None


def test_the_failed_batch_of_the_specification_is_read() -> None:
    fault = {
        "code": "invalid_json_line",
        "message": "This line is not parseable as valid JSON.",
        "param": None,
        "line": 2,
    }
    batch = read_batch({**BATCH, "status": "failed", "errors": {"object": "list", "data": [fault, None]}})
    assert batch is not None
    assert batch.faults == (("invalid_json_line", 2),)


@pytest.mark.parametrize("body", [None, [], {}, {"id": 7, "status": "x"}, {"id": "batch_1"}])
def test_what_is_no_batch_is_none(body: Any) -> None:
    assert read_batch(body) is None


def line(custom_id: str = "job-1", response: Any = None, error: Any = None) -> bytes:
    return orjson.dumps({"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": error}) + b"\n"


GOOD = {"status_code": 200, "request_id": "req_1", "body": COMPLETION}
BAD = {"status_code": 400, "request_id": "req_2", "body": {"error": {"message": "x", "code": "invalid_value"}}}


def test_an_answer_is_read_from_its_line() -> None:
    found = results(line("a", GOOD) + b"\n" + line("b", BAD) + b"not json\n[]\n" + line("c", GOOD)[:40])
    assert isinstance(found["a"], Completion)
    assert found["a"].text == "42"
    assert isinstance(found["b"], OracleError)
    assert set(found) == {"a", "b"}


@pytest.mark.parametrize("content", [line("a", GOOD) + line("a", BAD), line("a", BAD) + line("a", GOOD)])
def test_of_two_lines_the_answer_counts(content: bytes) -> None:
    assert isinstance(results(content)["a"], Completion)


@pytest.mark.parametrize(
    ("response", "error", "expected"),
    [
        (BAD, None, errors.REQUEST_REFUSED),
        ({**BAD, "status_code": 429}, None, errors.RATE_LIMITED),
        ({**BAD, "status_code": 504}, None, errors.UNAVAILABLE),
        ({**BAD, "status_code": "x"}, None, errors.UNAVAILABLE),
        ({**GOOD, "body": {}}, None, errors.ANSWER_INCOMPLETE),
        ({**GOOD, "body": {"error": {"message": "x", "code": "server_error"}}}, None, errors.UNAVAILABLE),
        (None, {"code": "batch_expired", "message": "…"}, errors.BATCH_EXPIRED),
        (None, {"code": "batch_cancelled", "message": "…"}, errors.JOB_STOPPED),
        (None, {"code": "request_timeout", "message": "…"}, errors.BATCH_FAILED),
        (None, {"code": "a prompt, repeated"}, errors.BATCH_FAILED),
        (None, None, errors.BATCH_FAILED),
    ],
)
def test_a_request_without_an_answer_says_why(response: Any, error: Any, expected: ErrorCode) -> None:
    found = results(line("a", response, error))["a"]
    assert isinstance(found, OracleError)
    assert found.error is expected
    assert "prompt" not in str(found)
    # A batch that has ended leaves nothing that may still be going on.
    assert found.verdict is not Verdict.UNKNOWN


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_creation_that_the_server_fails_at_may_have_made_the_batch(status: int) -> None:
    with pytest.raises(OracleError) as caught:
        await BatchApi(http(Wire(answer({}, status)))).create("file-1", KEYS[:1])
    assert caught.value.verdict is Verdict.UNKNOWN


async def test_an_upload_that_fails_has_bought_nothing() -> None:
    with pytest.raises(OracleError) as caught:
        await BatchApi(http(Wire(answer(b"<html>")))).upload(b"{}\n", ())
    assert caught.value.verdict is Verdict.RETRY


async def test_a_page_with_a_batch_that_cannot_be_read_proves_nothing() -> None:
    with pytest.raises(OracleError) as caught:
        await BatchApi(http(Wire(answer({"data": [BATCH, {}]})))).batches(None)
    assert caught.value.error is errors.UNREADABLE_ANSWER


async def test_a_look_up_reads_on_until_all_is_older_than_its_horizon() -> None:
    old = {**BATCH, "id": "batch_0", "created_at": 1, "metadata": metadata(KEYS[2:3])}
    mixed = {"object": "list", "data": [old, BATCH], "has_more": True}
    only_old = {"object": "list", "data": [old], "has_more": True}
    wire = Wire(answer(mixed), answer(only_old))
    found = BatchList(BatchApi(http(wire)), horizon_seconds=3600, clock=lambda: 0.0, now=lambda: NOW)
    snapshot = await found.snapshot()
    assert set(snapshot.by_key) == set(KEYS[:2])
    assert [request.url.params.get("after") for request in wire.requests] == [None, "batch_1"]


async def test_a_route_that_gives_up_before_the_window_is_over_is_not_quoted() -> None:
    compute = build("batch", {"kind": "openai_batch", "model_prices": {}}, environ={})
    with pytest.raises(OracleError) as caught:
        await compute.quote(TASK)
    assert caught.value.error is errors.SETTINGS_INVALID
    assert "86400" in str(caught.value)
    await compute.close()
