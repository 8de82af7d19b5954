"""The HTTP layer: what is sent, what bounds it, and which verdict a broken connection gets."""

from __future__ import annotations

import asyncio
import gzip

import httpx
import pytest
from provider_wire import QUICK, Pieces, Stalled, Wire, answer, http

from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.http import Http
from oracle.providers.pace import Pace


async def call(wire: Wire, *, repeatable: bool = False, **options: object) -> httpx.Response:
    client = http(wire, **options)
    try:
        return await client.call("POST", "jobs", json={"a": 1}, repeatable=repeatable)  # type: ignore[return-value]
    finally:
        await client.close()


async def failure(wire: Wire, *, repeatable: bool = False, **options: object) -> OracleError:
    with pytest.raises(OracleError) as caught:
        await call(wire, repeatable=repeatable, **options)
    return caught.value


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("https://api.example/api/v1", "chat/completions", "https://api.example/api/v1/chat/completions"),
        ("https://api.example/v1/", "/models", "https://api.example/v1/models"),
        ("http://127.0.0.1:8080", "models", "http://127.0.0.1:8080/models"),
    ],
)
async def test_a_path_is_joined_to_the_base_by_exactly_one_slash(base: str, path: str, url: str) -> None:
    wire = Wire(answer({}))
    await http(wire, base).call("GET", path, repeatable=True)
    assert str(wire.requests[0].url) == url


async def test_a_body_is_sent_as_json_with_the_headers_of_the_provider() -> None:
    wire = Wire(answer({}))
    await call(wire, headers={"Authorization": "Bearer k"})
    request = wire.requests[0]
    assert request.content == b'{"a":1}'
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer k"
    assert request.headers["accept"] == "application/json"


@pytest.mark.parametrize("base", ["ftp://x", "api.example/v1", "https://", "//api.example", ""])
async def test_an_address_that_is_none_is_refused_at_once(base: str) -> None:
    with pytest.raises(OracleError) as caught:
        Http("example", base, pace=Pace())
    assert caught.value.error is errors.WRONG_ADDRESS


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError])
async def test_what_was_never_sent_may_be_tried_again(error: type[Exception]) -> None:
    found = await failure(Wire(error("no")))
    assert (found.error, found.verdict) == (errors.UNREACHABLE, Verdict.RETRY)


BROKEN = [httpx.ReadTimeout, httpx.ReadError, httpx.WriteTimeout, httpx.WriteError, httpx.RemoteProtocolError]


@pytest.mark.parametrize("error", BROKEN)
async def test_a_connection_that_broke_after_a_purchase_was_sent_is_unknown(error: type[Exception]) -> None:
    assert (await failure(Wire(error("no")))).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("error", BROKEN)
async def test_a_connection_that_broke_under_a_read_may_be_tried_again(error: type[Exception]) -> None:
    assert (await failure(Wire(error("no")), repeatable=True)).verdict is Verdict.RETRY


async def test_an_answer_cut_in_the_middle_of_a_purchase_is_unknown() -> None:
    cut = Pieces(b'{"id":"chat', then=httpx.RemoteProtocolError("incomplete"))
    assert (await failure(Wire(lambda r: httpx.Response(200, stream=cut)))).verdict is Verdict.UNKNOWN


async def test_a_body_that_never_ends_is_given_up_when_the_time_is_over() -> None:
    stalled = Stalled(b"{")
    found = await failure(Wire(lambda r: httpx.Response(200, stream=stalled)), timeouts=QUICK)
    assert (found.error, found.verdict) == (errors.NO_ANSWER, Verdict.UNKNOWN)
    assert stalled.closed.is_set()


async def test_a_refusal_whose_body_never_ends_is_judged_by_its_status() -> None:
    found = await failure(Wire(lambda r: httpx.Response(503, stream=Stalled(b"<html>"))), timeouts=QUICK)
    assert found.error is errors.UNAVAILABLE


async def test_a_huge_answer_is_not_read_to_its_end() -> None:
    body = Pieces(*[b"x" * 1000] * 1000)
    found = await failure(Wire(lambda r: httpx.Response(200, stream=body)), max_answer_bytes=10_000)
    assert found.error is errors.ANSWER_TOO_LARGE
    assert body.taken == 11


async def test_a_huge_refusal_is_not_read_to_its_end() -> None:
    body = Pieces(*[b"x" * 10_000] * 1000)
    found = await failure(Wire(lambda r: httpx.Response(400, stream=body)))
    assert found.error is errors.REQUEST_REFUSED
    assert body.taken < 10


async def test_a_compressed_answer_is_measured_as_it_unfolds() -> None:
    packed = gzip.compress(b"x" * 100_000)
    wire = Wire(lambda r: httpx.Response(200, content=packed, headers={"content-encoding": "gzip"}))
    assert (await failure(wire, max_answer_bytes=10_000)).error is errors.ANSWER_TOO_LARGE
    assert wire.requests[0].headers["accept-encoding"] == "identity"


async def test_an_answer_that_cannot_be_unpacked_is_unreadable() -> None:
    wire = Wire(lambda r: httpx.Response(200, stream=Pieces(b"plain"), headers={"content-encoding": "gzip"}))
    assert (await failure(wire)).verdict is Verdict.UNKNOWN
    assert (await failure(wire, repeatable=True)).error is errors.UNREADABLE_ANSWER


@pytest.mark.parametrize("body", [b"<html><h1>Welcome</h1></html>", b'{"id":"x","choices":[{"mess', b"", b"\xff"])
async def test_a_success_that_is_not_json_is_unknown_after_a_purchase_and_unreadable_after_a_read(body: bytes) -> None:
    client = http(Wire(answer(body, content_type="text/html; charset=utf-8")))
    found = await client.call("GET", "x", repeatable=True)
    with pytest.raises(OracleError) as read:
        client.json(found, repeatable=True)
    with pytest.raises(OracleError) as purchase:
        client.json(found, repeatable=False)
    assert read.value.error is errors.UNREADABLE_ANSWER
    assert purchase.value.error is errors.NO_ANSWER
    assert "text/html" in read.value.detail


async def test_an_expected_status_is_an_answer_and_not_an_error() -> None:
    found = await http(Wire(answer({"code": "X"}, 409))).call("POST", "jobs", json={}, repeatable=True, expect={409})
    assert (found.status, found.content) == (409, b'{"code":"X"}')


async def test_a_secret_that_the_provider_repeats_is_kept_out_of_the_error() -> None:
    body = {"error": {"message": "bad key hunter2-hunter2 given", "type": "t", "param": None, "code": "c"}}
    found = await failure(Wire(answer(body, 400)), secrets=("hunter2-hunter2",))
    assert "hunter2" not in str(found)


async def test_a_header_that_an_exception_quotes_is_kept_out_of_the_error() -> None:
    found = await failure(Wire(httpx.RemoteProtocolError("illegal header Authorization: Bearer hunter2")))
    assert "hunter2" not in str(found)
    assert found.__cause__ is None


async def test_a_rate_limit_silences_the_next_call_for_as_long_as_it_says() -> None:
    naps: list[float] = []
    clock = [0.0]

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        clock[0] += seconds

    pace = Pace(clock=lambda: clock[0], sleep=nap)
    wire = Wire(answer({"detail": "Too many requests"}, 429, Retry_After="7"), answer({}))
    client = http(wire, pace=pace)
    with pytest.raises(OracleError):
        await client.call("GET", "x", repeatable=True)
    await client.call("GET", "x", repeatable=True)
    assert naps == [7.0]


async def test_time_that_runs_out_before_the_turn_comes_was_never_sent() -> None:
    pace = Pace(at_once=1)
    await pace.enter()
    wire = Wire(answer({}))
    found = await failure(wire, pace=pace, timeouts=QUICK)
    assert (found.error, found.verdict) == (errors.NOT_SENT, Verdict.RETRY)
    assert wire.requests == []


async def test_a_cancelled_call_gives_its_turn_back() -> None:
    pace = Pace(at_once=1)
    stalled = Stalled()
    client = http(Wire(lambda r: httpx.Response(200, stream=stalled), answer({})), pace=pace)
    task = asyncio.create_task(client.call("GET", "x", repeatable=True))
    await stalled.opened.wait()
    task.cancel()
    await asyncio.wait([task])
    assert (await client.call("GET", "x", repeatable=True)).status == 200
    assert stalled.closed.is_set()
