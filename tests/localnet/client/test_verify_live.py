"""`verify` on a real chain against operators that serve something else."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from pipeline_world import World
from solders.keypair import Keypair

from oracle.chain.program import instructions
from oracle.chain.program.addresses import operator_address
from oracle.client import requests
from oracle.client import verify as verifying
from oracle.client.transact import transact
from oracle.client.verify import Verification
from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.core.request import Request, Status

pytestmark = pytest.mark.localnet

Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Operator:
    """Serves under the paths of outputs and receipts what a test puts there: bytes of an answer, or a conversation."""

    port: int = 0
    answers: dict[str, bytes | Speak] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
            self.asked.append(path)
            answer = next((a for prefix, a in self.answers.items() if path.startswith(prefix)), whole(b"", 404))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


def whole(content: bytes, status: int = 200, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
    return head.encode() + content


@asynccontextmanager
async def serving(answers: Mapping[str, bytes | Speak]) -> AsyncIterator[Operator]:
    operator = Operator(answers=dict(answers))
    server = await asyncio.start_server(operator.speak, "127.0.0.1", 0)
    operator.port = server.sockets[0].getsockname()[1]
    try:
        yield operator
    finally:
        server.close()


@dataclass(frozen=True)
class Answered:
    request: Request
    output: bytes
    receipt: bytes
    result: Verification


async def answer(world: World, prompt: str = "What is the capital of Japan?", nonce: int = 1) -> Answered:
    """A request that the running daemon answers, with what it honestly serves for it."""
    async with world.daemon() as daemon:
        submitted = await world.submit(prompt, nonce=nonce)
        row = await world.reaches(daemon, submitted, State.SETTLED)
        result = await verifying.verify(world.rpc, world.program_id, submitted.address)
        request = await requests.read(world.rpc, submitted.address)
        async with verifying.httpx.AsyncClient(trust_env=False, timeout=60) as http:
            base = world.settings["operator"]["base_uri"]
            receipt = (await http.get(f"{base}/v1/receipts/{row.job_hash}")).content
    assert result.ok
    assert result.output is not None
    return Answered(request, result.output, receipt, result)


def failed(result: Verification) -> set[str]:
    return {check.name for check in result.checks if not check.ok}


async def verified_at(world: World, request: Request, operator: Operator) -> Verification:
    return await verifying.verify(world.rpc, world.program_id, request.address, base_uri=operator.uri)


async def test_an_operator_that_serves_anything_else_is_found_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many cases on one chain: each is one answer that an operator may give instead of the right one."""
    monkeypatch.setattr(verifying, "MAX_OUTPUT_BYTES", 100_000)
    mine, other = await answer(world), await answer(world, "What is the capital of France?", nonce=2)
    right = {"/v1/outputs/": whole(mine.output), "/v1/receipts/": whole(mine.receipt)}
    async with serving(right) as honest:
        assert (await verified_at(world, mine.request, honest)).ok
        names = [f"/v1/receipts/{mine.request.header.job_hash.hex()}"]
        names += [f"/v1/outputs/{mine.request.header.output_hash.hex()}"]
        assert honest.asked == names

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b"a" * 50_000)
            await writer.drain()

    async def slow(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.05)

    bomb = whole(zlib.compress(b"a" * 10_000_000), headers="Content-Encoding: deflate\r\n")
    elsewhere = f"Location: {world.settings['operator']['base_uri']}/v1/outputs/{'0' * 64}\r\n"
    wrong: dict[str, tuple[str, bytes | Speak, str]] = {
        "another output": ("/v1/outputs/", whole(other.output), "output has the hash on chain"),
        "no output": ("/v1/outputs/", whole(b""), "output has the hash on chain"),
        "an output with one bit more": ("/v1/outputs/", whole(mine.output + b" "), "output has the hash on chain"),
        "the receipt of another request": ("/v1/receipts/", whole(other.receipt), "receipt has the hash on chain"),
        "a receipt that is not canonical": (
            "/v1/receipts/",
            whole(mine.receipt.replace(b'":', b'": ')),
            "receipt is valid",
        ),
        "a page": ("/v1/receipts/", whole(b"<html>welcome</html>"), "receipt is valid"),
        "garbage": ("/v1/receipts/", whole(bytes(range(256))), "receipt is valid"),
        "nothing": ("/v1/outputs/", whole(b"", 404), "output and receipt are served"),
        "an error": ("/v1/receipts/", whole(b"", 500), "output and receipt are served"),
        "a redirect": ("/v1/outputs/", whole(b"", 302, elsewhere), "output and receipt are served"),
        "a huge output": ("/v1/outputs/", endless, "output and receipt are served"),
        "a slow output": ("/v1/outputs/", slow, "output and receipt are served"),
        "a bomb": (
            "/v1/outputs/",
            whole(bomb, headers="Content-Encoding: deflate\r\n"),
            "output and receipt are served",
        ),
        "no HTTP": ("/v1/outputs/", b"SSH-2.0-OpenSSH\r\n\r\n", "output and receipt are served"),
        "half an answer": ("/v1/outputs/", whole(mine.output)[:-3], "output and receipt are served"),
    }
    for what, (path, served, check) in wrong.items():
        async with serving({**right, path: served}) as liar:
            with monkeypatch.context() as impatient:
                if served is slow:
                    impatient.setattr(verifying, "TOTAL_SECONDS", 0.5)
                result = await verified_at(world, mine.request, liar)
        assert not result.ok, what
        assert check in failed(result), (what, failed(result))


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9",
        "http://127.0.0.1:99999999",
        "http://" + "a" * 300,
        "http://bücher.invalid",
        "http://[::1",
        "http://a b",
        "http://\x00",
        "http://",
        "ftp://127.0.0.1",
        "file:///etc",
        "nonsense",
        "",
    ],
)
async def test_an_operator_nowhere_is_no_verification(uri: str) -> None:
    async with verifying.httpx.AsyncClient(trust_env=False, timeout=60) as http:
        with pytest.raises(OracleError, match="ORC-CLIENT-005"):
            await verifying.fetch(http, f"{uri}/v1/outputs/{'0' * 64}")


async def test_a_request_that_is_not_answered_is_not_verified(world: World) -> None:
    pending = await world.submit()
    result = await verifying.verify(world.rpc, world.program_id, pending.address)
    assert not result.ok
    assert result.checks[0].detail == "the request is pending"


async def test_what_is_no_request_of_this_program_is_not_verified(world: World) -> None:
    done = await answer(world)
    for program, address in (
        (world.program_id, Keypair().pubkey()),
        (world.program_id, world.requester.pubkey()),
        (Keypair().pubkey(), done.request.address),
    ):
        with pytest.raises(OracleError, match="ORC-CLIENT-001"):
            await verifying.verify(world.rpc, program, address)
    with pytest.raises(OracleError, match="ORC-CHAIN-101"):
        await verifying.verify(world.rpc, world.program_id, world.queue)


async def test_a_closed_request_is_verified_from_what_the_program_logged(world: World) -> None:
    done = await answer(world)
    await requests.close(world.rpc, world.program_id, done.request, world.requester)
    right = {"/v1/outputs/": whole(done.output), "/v1/receipts/": whole(done.receipt)}
    async with serving(right) as honest:
        result = await verified_at(world, done.request, honest)
        assert result.ok, failed(result)
        assert result.checks[0].detail == "event"
    async with serving({**right, "/v1/outputs/": whole(b"Kyoto")}) as liar:
        assert failed(await verified_at(world, done.request, liar)) >= {"output has the hash on chain"}


async def test_of_an_address_that_lived_twice_the_newest_life_counts(world: World) -> None:
    first = await answer(world)
    await requests.close(world.rpc, world.program_id, first.request, world.requester)
    again = await world.submit(nonce=1, ttl_slots=40)
    assert again.address == first.request.address
    right = {"/v1/outputs/": whole(first.output), "/v1/receipts/": whole(first.receipt)}
    async with serving(right) as server:
        pending = await verified_at(world, first.request, server)
        assert pending.checks[0].detail == "the request is pending"
        created = (await requests.read(world.rpc, again.address)).header.created_slot
        await world.node.advance(80)
        overdue = await requests.wait(world.rpc, again.address, timeout_seconds=20, overdue_slots=5)
        assert overdue.header.status is Status.PENDING
        await requests.expire(world.rpc, world.program_id, again.address, world.requester)
        expired = await requests.wait(world.rpc, again.address, timeout_seconds=20)
        await requests.close(world.rpc, world.program_id, expired, world.requester)
        closed = await verified_at(world, first.request, server)
    assert not closed.ok
    assert closed.checks[0].detail == f"the request of slot {created} was closed without one"


async def test_the_second_answer_of_an_address_is_not_the_first(world: World) -> None:
    first = await answer(world)
    await requests.close(world.rpc, world.program_id, first.request, world.requester)
    second = await answer(world)
    assert second.request.address == first.request.address
    assert second.receipt != first.receipt
    stale = {"/v1/outputs/": whole(first.output), "/v1/receipts/": whole(first.receipt)}
    fresh = {"/v1/outputs/": whole(second.output), "/v1/receipts/": whole(second.receipt)}
    for _ in range(2):
        async with serving(stale) as liar, serving(fresh) as honest:
            assert failed(await verified_at(world, second.request, liar)) >= {"receipt has the hash on chain"}
            assert (await verified_at(world, second.request, honest)).ok
        if (await world.rpc.get_account(second.request.address)).value is not None:
            await requests.close(world.rpc, world.program_id, second.request, world.requester)


async def test_an_operator_that_left_is_told_so_and_may_be_named(world: World) -> None:
    done = await answer(world)
    key = world.authority.pubkey()
    leave = instructions.remove_operator(
        world.program_id,
        operator=operator_address(world.program_id, world.queue, key),
        queue=world.queue,
        authority=key,
    )
    await transact(world.rpc, [leave], [world.authority])
    gone = await verifying.verify(world.rpc, world.program_id, done.request.address)
    assert not gone.ok
    assert "no longer registered" in gone.checks[-1].detail
    async with serving({"/v1/outputs/": whole(done.output), "/v1/receipts/": whole(done.receipt)}) as archive:
        assert (await verified_at(world, done.request, archive)).ok
