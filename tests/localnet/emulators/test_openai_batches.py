"""OpenAI's files and batches as their specification has them (openai_compatible.md §4)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from nosana_user import Clock, loopback

from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.openai_batches import BatchTimings, OpenAIBatches
from oracle.localnet.emulators.server import serve

pytestmark = pytest.mark.localnet

KEY = {"authorization": "Bearer sk-localnet"}


def line(custom_id: str = "job-1", **changes: Any) -> dict[str, Any]:
    body = {"model": "gpt-x", "messages": [{"role": "user", "content": f"hello {custom_id}"}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **changes}


class Customer:
    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def upload(self, content: bytes, purpose: str = "batch") -> httpx.Response:
        form = {"file": ("x.jsonl", content)}
        return await self.http.post("/v1/files", data={"purpose": purpose}, files=form, headers=KEY)

    async def create(self, *lines: Any, **changes: Any) -> dict[str, Any]:
        content = b"".join(orjson.dumps(item) + b"\n" for item in lines)
        file = (await self.upload(content)).json()["id"]
        body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h", **changes}
        answer = await self.http.post("/v1/batches", json=body, headers=KEY)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(f"/v1{path}", params=query, headers=KEY)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def lines(self, file: str) -> list[dict[str, Any]]:
        answer = await self.http.get(f"/v1/files/{file}/content", headers=KEY)
        return [orjson.loads(raw) for raw in answer.content.splitlines()]


@asynccontextmanager
async def openai(**options: Any) -> AsyncIterator[Customer]:
    async with (
        serve(ScriptedOpenAI()) as model,
        serve(OpenAIBatches(f"{model.url}/v1", **options)) as running,
        loopback(running) as http,
    ):
        yield Customer(http)


async def test_a_batch_goes_from_its_file_to_the_answers() -> None:
    clock = Clock()
    async with openai(now=clock, timings=BatchTimings(10, 10, 10)) as customer:
        made = await customer.create(line("a"), line("b"), metadata={"mine": "1"})
        assert (made["status"], made["metadata"], made["output_file_id"]) == ("validating", {"mine": "1"}, None)
        assert made["expires_at"] - made["created_at"] == 86_400
        seen = []
        for _ in range(3):
            clock.seconds += 10
            seen.append((await customer.get(f"/batches/{made['id']}"))["status"])
        assert seen == ["in_progress", "finalizing", "completed"]
        batch = await customer.get(f"/batches/{made['id']}")
        assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
        assert batch["error_file_id"] is None
        answers = await customer.lines(batch["output_file_id"])
        # The order of the requests is not kept.
        assert [answer["custom_id"] for answer in answers] == ["b", "a"]
        assert {answer["response"]["status_code"] for answer in answers} == {200}


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([line(), "no object"], "invalid_json_line", 2),
        ([line(), line()], "duplicate_custom_id", 2),
        ([line(custom_id=None)], "duplicate_custom_id", 1),  # type: ignore[arg-type]
        ([line(url="/v1/embeddings")], "mismatched_url", 1),
        ([line(body={"model": "gpt-x", "stream": True})], "invalid_body", 1),
        ([line(), line("b", body={"model": "gpt-y"})], "mismatched_model", None),
        ([], "invalid_request_count", None),
    ],
)
async def test_a_file_with_a_wrong_line_fails_as_a_whole(lines: list[Any], code: str, number: int | None) -> None:
    async with openai() as customer:
        made = await customer.create(*lines)
        batch = await customer.get(f"/batches/{made['id']}")
        assert batch["status"] == "failed"
        assert [(error["code"], error["line"]) for error in batch["errors"]["data"]] == [(code, number)]
        assert batch["output_file_id"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"input_file_id": "file-99"},
        {"input_file_id": None},
        {"endpoint": "/v1/nothing"},
        {"completion_window": "1h"},
        {"metadata": {f"k{n}": "v" for n in range(17)}},
        {"metadata": {"k" * 65: "v"}},
        {"metadata": {"k": "v" * 513}},
        {"metadata": {"k": 1}},
        {"metadata": [1]},
    ],
    ids=str,
)
async def test_a_creation_that_breaks_a_rule_is_refused(changes: dict[str, Any]) -> None:
    async with openai() as customer:
        file = (await customer.upload(orjson.dumps(line()))).json()["id"]
        body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h", **changes}
        assert (await customer.http.post("/v1/batches", json=body, headers=KEY)).status_code == 400
        assert (await customer.get("/batches"))["data"] == []


async def test_only_the_key_opens_anything() -> None:
    async with openai() as customer:
        for method, path in (
            ("POST", "/files"),
            ("GET", "/files/file-1/content"),
            ("POST", "/batches"),
            ("GET", "/batches"),
            ("GET", "/batches/batch_1"),
            ("POST", "/batches/batch_1/cancel"),
        ):
            answer = await customer.http.request(method, f"/v1{path}", headers={"authorization": "Bearer wrong"})
            assert answer.status_code == 401, path


async def test_the_list_comes_in_pages_the_newest_first() -> None:
    async with openai() as customer:
        made = [(await customer.create(line()))["id"] for _ in range(5)]
        first = await customer.get("/batches", limit=3)
        assert ([batch["id"] for batch in first["data"]], first["has_more"]) == (made[:1:-1], True)
        rest = await customer.get("/batches", limit=3, after=made[2])
        assert ([batch["id"] for batch in rest["data"]], rest["has_more"]) == (made[1::-1], False)


async def test_batches_outlive_the_emulator(tmp_path: Path) -> None:
    async with openai(state_directory=tmp_path) as customer:
        made = await customer.create(line())
    async with openai(state_directory=tmp_path) as customer:
        batch = await customer.get(f"/batches/{made['id']}")
        assert len(await customer.lines(batch["output_file_id"])) == 1


async def test_a_cancellation_keeps_what_has_run_and_happens_once() -> None:
    clock = Clock()
    async with openai(now=clock, timings=BatchTimings(run_seconds=100, cancel_seconds=10)) as customer:
        made = await customer.create(line("a"), line("b"))
        for _ in range(2):
            answer = await customer.http.post(f"/v1/batches/{made['id']}/cancel", headers=KEY)
            assert answer.json()["status"] == "cancelling"
        clock.seconds += 10
        batch = await customer.get(f"/batches/{made['id']}")
        assert batch["status"] == "cancelled"
        assert [one["custom_id"] for one in await customer.lines(batch["output_file_id"])] == ["a"]
        (never,) = await customer.lines(batch["error_file_id"])
        assert (never["custom_id"], never["response"], never["error"]["code"]) == ("b", None, "batch_cancelled")
        again = await customer.http.post(f"/v1/batches/{made['id']}/cancel", headers=KEY)
        assert again.status_code == 409


VALUES: list[Any] = [None, True, -1, 1.5, "", "x", "\u2028\x00", [], [None], {}, {"a": {"b": []}}, [[[]]]]


async def test_whatever_comes_in_is_refused_in_its_own_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with openai() as customer:
        for value in VALUES:
            assert (await customer.http.post("/v1/batches", json=value, headers=KEY)).status_code == 400
            for name in ("custom_id", "method", "url", "body"):
                made = await customer.create({**line(), name: value})
                status = (await customer.get(f"/batches/{made['id']}"))["status"]
                assert status in ("failed", "completed"), (name, value)
        for body, kind in ((b"", "text/plain"), (b"--x\r\n", "multipart/form-data; boundary=x"), (b"x", "multipart/")):
            answer = await customer.http.post("/v1/files", content=body, headers={**KEY, "content-type": kind})
            assert answer.status_code == 400
        assert (await customer.upload(b"{}", purpose="fine-tune")).status_code == 400
        for path in ("/files/file-99", "/files/x/content", "/batches/x"):
            assert (await customer.http.get(f"/v1{path}", headers=KEY)).status_code == 404
    assert not caplog.records
