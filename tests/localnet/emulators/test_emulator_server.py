"""The layer that every emulator shares: faults on the wire, the admin routes, the log of calls."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from nosana_user import loopback

from oracle.localnet.emulators import server
from oracle.localnet.emulators.faults import Fault, Faults, Wire, wire_kinds
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.server import Running, serve

pytestmark = pytest.mark.localnet

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
FAULTS = "/_emulator/faults"


class Scripted:
    def __init__(self, server: ScriptedOpenAI, running: Running, http: httpx.AsyncClient) -> None:
        self.server, self.running, self.http = server, running, http

    async def ask(self, **headers: str) -> httpx.Response:
        return await self.http.post("/v1/chat/completions", json=CHAT, headers=headers)

    @property
    def inferences(self) -> int:
        return len(self.server.requests)


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    openai = ScriptedOpenAI()
    async with serve(openai) as running, loopback(running) as http:
        yield Scripted(openai, running, http)


@pytest.mark.parametrize(("kind", "inferences"), [(Wire.DROP, 0), (Wire.LOSE_ANSWER, 1)])
async def test_a_connection_is_cut_before_or_after_the_work(scripted: Scripted, kind: Wire, inferences: int) -> None:
    scripted.server.faults.add(kind)
    with pytest.raises(httpx.RemoteProtocolError):
        await scripted.ask()
    assert scripted.inferences == inferences
    assert [(call.status, call.fault) for call in scripted.running.calls] == [(None, kind)]
    assert (await scripted.ask()).status_code == 200


async def test_a_hanging_call_does_no_work_and_ends_with_its_caller(scripted: Scripted) -> None:
    scripted.server.faults.add(Wire.HANG)
    with pytest.raises(httpx.ReadTimeout):
        await scripted.http.post("/v1/chat/completions", json=CHAT, timeout=httpx.Timeout(30.0, read=0.05))
    async with asyncio.timeout(30):
        while not scripted.running.calls:  # noqa: ASYNC110  the call is logged once the server saw the hang-up
            await asyncio.sleep(0.005)
    assert scripted.inferences == 0


async def test_a_server_that_ends_does_not_wait_for_a_call_that_hangs() -> None:
    openai = ScriptedOpenAI()
    openai.faults.add(Wire.HANG)
    async with httpx.AsyncClient(verify=False, timeout=60) as http:
        async with serve(openai) as running:
            call = asyncio.create_task(http.post(f"{running.url}/v1/chat/completions", json=CHAT))
            async with asyncio.timeout(30):
                while not openai.faults.report()[0]["hits"]:  # noqa: ASYNC110  waits for the server, not for a task
                    await asyncio.sleep(0.005)
        with pytest.raises(httpx.RemoteProtocolError):
            await call


async def test_a_truncated_body_ends_before_its_content_length(scripted: Scripted) -> None:
    scripted.server.faults.add(Wire.TRUNCATE)
    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        await scripted.ask()
    assert scripted.inferences == 1


async def test_a_malformed_body_is_whole_on_the_wire_and_not_json(scripted: Scripted) -> None:
    scripted.server.faults.add(Wire.MALFORMED)
    answer = await scripted.ask()
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    with pytest.raises(ValueError, match=r"."):
        answer.json()


async def test_a_request_that_arrives_twice_is_worked_on_twice(scripted: Scripted) -> None:
    scripted.server.faults.add(Wire.TWICE)
    assert (await scripted.ask()).json()["id"] == "chatcmpl-2"
    assert scripted.inferences == 2


async def test_a_slow_call_is_answered_after_its_seconds(scripted: Scripted) -> None:
    scripted.server.faults.add(Wire.SLOW, seconds=0.2)
    with pytest.raises(httpx.ReadTimeout):
        await scripted.http.post("/v1/chat/completions", json=CHAT, timeout=httpx.Timeout(30.0, read=0.05))
    scripted.server.faults.add(Wire.SLOW, seconds=0.05)
    assert (await scripted.ask()).status_code == 200


async def test_a_gateway_answers_html(scripted: Scripted) -> None:
    scripted.server.faults.add(Wire.HTML, status=503)
    answer = await scripted.ask()
    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert answer.text.startswith("<html>")
    assert scripted.inferences == 0


async def test_a_call_asks_for_its_own_fault_by_header(scripted: Scripted) -> None:
    """ionet.md §7, point 5."""
    assert (await scripted.ask(**{"x-standin-fault": "html"})).status_code == 502
    assert (await scripted.ask(**{"x-standin-fault": "nonsense"})).status_code == 200


async def test_faults_are_set_listed_and_cleared_over_http(scripted: Scripted) -> None:
    faults = [{"kind": "error", "status": 503, "skip": 1, "count": 2}, {"kind": "drop", "on": "GET *", "count": None}]
    assert (await scripted.http.post(FAULTS, json=faults)).status_code == 200
    assert [(await scripted.ask()).status_code for _ in range(4)] == [200, 503, 503, 200]
    report = (await scripted.http.get(FAULTS)).json()
    assert [(fault["kind"], fault["hits"]) for fault in report] == [("error", 2), ("drop", 0)]
    assert (await scripted.http.delete(FAULTS)).json() == []
    assert (await scripted.http.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"kind": "meltdown"}, "unknown kind 'meltdown'"),
        ({"on": "*"}, "a fault is an object with a kind"),
        ([{"kind": "drop"}, 3], "a fault is an object with a kind"),
        ({"kind": "drop", "often": True}, "unknown field often"),
        ({"kind": "drop", "count": "3"}, "count has the wrong type"),
        ({"kind": "drop", "count": 0}, "count is at least 1"),
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused_and_none_is_set(
    scripted: Scripted, body: object, complaint: str
) -> None:
    answer = await scripted.http.post(FAULTS, json=body)
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]
    assert scripted.server.faults.report() == []


async def test_faults_cannot_be_set_by_a_page_in_a_browser(scripted: Scripted) -> None:
    answer = await scripted.http.post(FAULTS, content='{"kind":"drop"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert scripted.server.faults.report() == []


async def test_every_call_is_on_the_log(scripted: Scripted) -> None:
    scripted.server.faults.add(Wire.ERROR)
    await scripted.ask()
    await scripted.http.get("/v1/models")
    assert (await scripted.http.get("/_emulator/calls")).json() == [
        {"method": "POST", "path": "/chat/completions", "status": 500, "fault": "error"},
        {"method": "GET", "path": "/models", "status": 200, "fault": None},
    ]
    assert (await scripted.http.get("/_emulator/nonsense")).status_code == 404


def test_the_first_fault_that_applies_hits_and_the_rest_wait() -> None:
    faults = Faults(wire_kinds(("job", ("breaks",))))
    faults.add("slow", on="POST /a*")
    faults.add(Fault("drop", count=2))
    faults.add("breaks")
    hits = [faults.take("http", subject) for subject in ("GET /b", "POST /ab", "POST /ab", "POST /ab")]
    assert [hit and hit.kind for hit in hits] == ["drop", "slow", "drop", None]
    assert faults.take("job", "anything") == Fault("breaks")


def test_emulators_know_nothing_of_the_adapters_they_test() -> None:
    """Otherwise emulator and adapter could share a mistake."""
    for path in Path(server.__file__).parent.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) oracle\.providers", path.read_text(), re.MULTILINE), path
