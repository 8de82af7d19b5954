"""The HTTP server as the public, a prober and a scraper meet it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pipeline_world import World, until
from prometheus_client.parser import text_string_to_metric_families
from solders.system_program import TransferParams, transfer
from sqlalchemy import insert, update
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from oracle.api.server import serving
from oracle.client.transact import transact
from oracle.core import receipts
from oracle.core.endpoints import Health
from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.localnet.ports import free_port
from oracle.store import results
from oracle.store.schema import outputs

pytestmark = pytest.mark.localnet

NEVER = {"settlement": {"flush_window_seconds": 3_600.0}, "daemon": {"drain_seconds": 0.1}}


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=world.settings["operator"]["base_uri"], trust_env=False, timeout=60
    ) as client:
        yield client


async def test_an_output_and_its_receipt_are_served_once_the_settlement_is_confirmed_and_not_before(
    world: World, http: httpx.AsyncClient
) -> None:
    async with world.daemon(**NEVER) as daemon:
        submitted = await world.submit()
        row = await world.reaches(daemon, submitted, State.COMPUTED, State.SETTLING)
        paths = (f"/v1/outputs/{row.output_sha256}", f"/v1/receipts/{row.job_hash}")
        assert await daemon.context.store.read(lambda c: results.get_output(c, row.output_sha256 or ""))
        hidden = [await http.get(path) for path in paths]
        never = [await http.get(f"/v1/{kind}/{'0' * 64}") for kind in ("outputs", "receipts")]
    assert [answer.status_code for answer in hidden] == [404, 404]
    # Who asks must not learn what is in flight.
    assert [(a.content, a.headers["content-type"]) for a in hidden] == [
        (a.content, a.headers["content-type"]) for a in never
    ]
    async with world.daemon() as daemon:
        await world.reaches(daemon, submitted, State.SETTLED)
        output, receipt = [await http.get(path) for path in paths]
        header = (await world.ended(submitted)).header
    assert (output.status_code, receipt.status_code) == (200, 200)
    assert hashlib.sha256(output.content).digest() == header.output_hash
    assert hashlib.sha256(receipt.content).digest() == header.job_hash
    assert receipts.decode(receipt.content)["output_hash"] == header.output_hash.hex()


async def test_what_a_model_wrote_cannot_act_as_a_page_of_this_host(world: World, http: httpx.AsyncClient) -> None:
    page = b"<script>alert(document.cookie)</script>"
    name = hashlib.sha256(page).hexdigest()
    async with world.daemon() as daemon:
        submitted = await world.submit()
        row = await world.reaches(daemon, submitted, State.SETTLED)
        text = await http.get(f"/v1/outputs/{row.output_sha256}")
        receipt = await http.get(f"/v1/receipts/{row.job_hash}")
        await plant(daemon.context, row, name, page, "text/html")
        html = await http.get(f"/v1/outputs/{name}")
        head = await http.head(f"/v1/outputs/{name}")
        posted = await http.post(f"/v1/outputs/{name}")
    assert (html.status_code, html.content) == (200, page)
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert receipt.headers["content-type"] == "application/json"
    for answer in (text, receipt, html, head):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "immutable" in answer.headers["cache-control"]
        assert "server" not in answer.headers
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(page)))
    assert posted.status_code == 405


async def plant(context: Any, row: Any, name: str, content: bytes, media_type: str) -> None:
    """An output of another kind, for a request like a settled one of which the chain has no more to tell."""
    from oracle.store.schema import requests

    def write(c: Any) -> None:
        results.put_output(c, name, content, media_type=media_type, now_ms=0)
        values = row._asdict() | {"address": "another", "output_sha256": name, "closed": True}
        del values["id"]
        c.execute(insert(requests).values(**values))

    await context.store.write(write)


async def test_an_output_that_lies_in_a_file_is_served_and_one_whose_file_is_gone_is_not(
    world: World, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    async with world.daemon() as daemon:
        submitted = await world.submit()
        row = await world.reaches(daemon, submitted, State.SETTLED)
        path = f"/v1/outputs/{row.output_sha256}"
        inline = (await http.get(path)).content
        large = tmp_path / "output"
        large.write_bytes(inline)
        move = update(outputs).where(outputs.c.sha256 == row.output_sha256)
        await daemon.context.store.write(lambda c: c.execute(move.values(content=None, path=str(large))))
        assert (await http.get(path)).content == inline
        large.unlink()
        assert (await http.get(path)).status_code == 404


HOSTILE = [
    "/v1/outputs/",
    "/v1/outputs",
    "/v1/outputs/" + "0" * 63,
    "/v1/outputs/" + "0" * 65,
    "/v1/outputs/" + "A" * 64,
    "/v1/outputs/" + "0" * 64 + "/",
    "/v1/outputs/" + "0" * 64 + "%0a",
    "/v1/outputs/" + "%EF%BC%90" * 64,
    "/v1/outputs/" + "%F0%9F%92%A9",
    "/v1/outputs/" + "%ff%fe",
    "/v1/outputs/%00",
    "/v1/outputs/..%2f..%2fetc%2fpasswd",
    "/v1/outputs/../../../../etc/passwd",
    "/v1/outputs/%2e%2e/%2e%2e/oracle.sqlite",
    "/v1/outputs/' OR 1=1 --".replace(" ", "%20"),
    "/v1/receipts/" + "a" * 20_000,
    "/v1/receipts/{hash}",
    "/" + "a/" * 10_000,
    "//etc/passwd",
    "/metrics/../livez",
    "/docs",
    "/",
]


NO_REQUESTS = [
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n" + b"X-Header: " + b"a" * 200_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH\r\n\r\n",
    b"GET /v1/outputs/\x00\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://127.0.0.1/livez HTTP/9.9\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n",
]


async def test_a_hostile_request_is_refused_and_the_next_one_is_answered(world: World) -> None:
    port = world.settings["api"]["port"]
    async with world.daemon():
        for path in HOSTILE:
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            assert await raw(port, request.encode()) == 404, path
        for no_request in NO_REQUESTS:
            assert await raw(port, no_request) in (400, 404, 405, 431, None), no_request[:40]
        assert await raw(port, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == 200


async def raw(port: int, request: bytes) -> int | None:
    """The status of the answer to these very bytes; None where the connection was just closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        writer.write_eof()
        line = await asyncio.wait_for(reader.readline(), 60)
    except ConnectionError:
        return None
    finally:
        writer.close()
    return int(line.split()[1]) if line else None


async def test_a_loop_that_does_not_turn_is_not_alive(world: World, http: httpx.AsyncClient) -> None:
    async with world.daemon() as daemon:
        alive = await http.get("/livez")
        daemon.context.pulses["stuck"] = daemon.context.clock.monotonic() - 100
        stuck = await http.get("/livez")
    assert (alive.status_code, alive.json()) == (200, {"ok": True, "problems": {}})
    assert stuck.status_code == 503
    assert stuck.json()["problems"].keys() == {"loop stuck"}
    assert re.fullmatch(r"has not turned for 1\d\d s", stuck.json()["problems"]["loop stuck"])


async def probed(http: httpx.AsyncClient, problem: str) -> dict[str, Any]:
    """What `/readyz` says once it names a problem."""

    async def look() -> dict[str, Any] | None:
        answer = await http.get("/readyz")
        body = answer.json()
        assert (answer.status_code == 200) is body["ok"]
        return body if problem in body["problems"] else None

    return await until(look, f"the problem {problem}")


async def test_a_daemon_that_can_work_is_ready_and_one_that_cannot_says_why(
    world: World, http: httpx.AsyncClient
) -> None:
    async with world.daemon() as daemon:
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ok": True, "problems": {}, "notices": {}})
        key = world.authority.pubkey()
        spare = (await world.rpc.get_balance(key)).value - 905_000
        payment = transfer(TransferParams(from_pubkey=key, to_pubkey=world.requester.pubkey(), lamports=spare))
        await transact(world.rpc, [payment], [world.authority])
        poor = (await probed(http, "operator"))["problems"]
        assert poor["operator"].startswith("ORC-POLICY-025")
        assert "holds 900000 lamports, below 1000000" in poor["operator"]
        assert str(world.authority.pubkey()) in poor["operator"]

        async def unreachable(*_: Any) -> None:
            raise OracleError(receipts.RECEIPT_INVALID, "any error")

        daemon.context.store.read = unreachable  # type: ignore[method-assign, assignment]
        assert set((await probed(http, "database"))["problems"]) == {"database", "operator"}


async def test_a_daemon_that_cannot_see_the_cluster_is_not_ready(world: World, http: httpx.AsyncClient) -> None:
    async with world.daemon() as daemon:

        async def away(*_: Any) -> None:
            raise OracleError(receipts.RECEIPT_INVALID, "any error")

        daemon.context.rpc.get_balance = away  # type: ignore[method-assign, assignment]
        assert set((await probed(http, "cluster"))["problems"]) == {"cluster"}


async def test_a_daemon_that_is_stopping_is_not_ready(world: World, http: httpx.AsyncClient) -> None:
    world.model.flowing.clear()
    async with world.daemon(daemon={"drain_seconds": 60.0}) as daemon:
        await world.reaches(daemon, await world.submit(), State.RUNNING)
        daemon.stop()
        assert "is stopping" in (await probed(http, "daemon"))["problems"]["daemon"]
        world.model.flowing.set()


async def test_whoever_hammers_the_health_of_the_daemon_costs_it_no_calls(
    world: World, http: httpx.AsyncClient
) -> None:
    async with world.daemon() as daemon:
        asked = 0
        get_balance = daemon.context.rpc.get_balance

        async def counted(*arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            return await get_balance(*arguments)

        daemon.context.rpc.get_balance = counted  # type: ignore[method-assign]
        began = asyncio.get_running_loop().time()
        for _ in range(10):
            answers = await asyncio.gather(*(http.get("/readyz") for _ in range(10)))
            assert {answer.status_code for answer in answers} == {200}
        assert asked <= 2 + asyncio.get_running_loop().time() - began


async def test_metrics_are_read_by_prometheus_and_count_what_happened(world: World, http: httpx.AsyncClient) -> None:
    async with world.daemon() as daemon:
        fulfilled = await world.submit()
        rejected = await world.submit(model="unheard-of")
        await world.reaches(daemon, fulfilled, State.SETTLED)
        await world.reaches(daemon, rejected, State.REJECTED)

        async def scraped() -> dict[tuple[str, str], float] | None:
            answer = await http.get("/metrics")
            assert answer.headers["content-type"].startswith("text/plain; version=")
            families = list(text_string_to_metric_families(answer.text))
            assert all(family.documentation for family in families)
            values = {
                (sample.name, ",".join(sample.labels.values())): sample.value for f in families for sample in f.samples
            }
            seen = values.get(("oracle_ledger_lamports", "fee_earned")) and ("oracle_wallet_lamports", "") in values
            return values if seen and values["oracle_push_live", ""] else None

        values = await until(scraped, "the settlement in the metrics")
        (endpoint,) = [state.name for state in daemon.pool.view()]
    assert values["oracle_requests", "settled"] == 1
    assert values["oracle_requests", "rejected"] == 1
    assert values["oracle_slot", ""] > 0
    assert values["oracle_slot_seconds", ""] > 0
    assert values["oracle_commits_total", ""] > 0
    assert values["oracle_wallet_lamports", ""] > 0
    assert values["oracle_rpc_endpoint", f"{endpoint},alive"] == 1
    assert values["oracle_rpc_endpoint", f"{endpoint},wrong_genesis"] == 0
    assert values["oracle_rpc_seconds_count", f"{endpoint},sendTransaction"] >= 1
    assert values["oracle_sightings_total", "push"] + values["oracle_sightings_total", "scan"] >= 2
    assert values["oracle_scans_total", ""] > 0
    assert 0 <= values["oracle_watch_lag_slots", "push"] < 150


async def test_a_daemon_says_which_endpoint_serves_another_cluster(world: World, http: httpx.AsyncClient) -> None:
    async with world.daemon() as daemon:
        wrong = replace(daemon.pool.view()[0], genesis_matches=False)
        daemon.pool.view = lambda: (wrong,)  # type: ignore[method-assign]
        daemon.pool.health = lambda: (Health.WRONG_GENESIS,)  # type: ignore[method-assign]
        problems = (await probed(http, "cluster"))["problems"]
    assert "is wrong_genesis" in problems["cluster"]
    assert "serves another cluster" in problems[f"endpoint {wrong.name}"]


async def test_a_port_that_is_taken_is_a_coded_error(world: World) -> None:
    application = Starlette(routes=[Route("/", lambda _: PlainTextResponse("here"))])
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OracleError, match=r"ORC-API-001.*Address already in use"):
            async with serving(application, "127.0.0.1", other.getsockname()[1]):
                raise AssertionError("two listen on one port")
    async with serving(application, "127.0.0.1", 0) as first:
        with pytest.raises(OracleError, match="ORC-API-001"):
            async with serving(application, "127.0.0.1", int(first.rsplit(":", 1)[1])):
                raise AssertionError("two listen on one port")


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a" * 64 + ".example", "2001:db8::1"])
async def test_an_address_that_is_not_ours_is_a_coded_error(host: str) -> None:
    with pytest.raises(OracleError, match="ORC-API-001"):
        async with serving(Starlette(), host, free_port()):
            raise AssertionError("listens where nobody is")


async def test_the_server_says_where_it_listens() -> None:
    application = Starlette(routes=[Route("/", lambda _: PlainTextResponse("here"))])
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        for host in ("127.0.0.1", "localhost", "::1"):
            try:
                async with serving(application, host, 0) as url:
                    assert (await http.get(url)).text == "here"
            except OracleError:
                assert host == "::1", "only IPv6 may be missing on a machine"


async def test_a_stop_waits_for_no_idle_reader(world: World) -> None:
    port = world.settings["api"]["port"]
    async with world.daemon():
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n")  # a request that is never finished
        await writer.drain()
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 60
    writer.close()
