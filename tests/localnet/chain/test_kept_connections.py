"""Connections to an endpoint are kept between calls, and what becomes of a call where one was closed meanwhile."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from raw_endpoint import endpoint, saying
from solders.pubkey import Pubkey
from solders.signature import Signature
from throwaway_ca import ThrowawayCA

from oracle.chain.rpc import errors
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.http import Http
from oracle.chain.rpc.provider import Provider
from oracle.core.errors import OracleError, Verdict

pytestmark = pytest.mark.localnet

SIGNATURE = Signature.default()


class Server:
    """Answers `answers` calls on each connection, and then closes it: at once, or when the next call has come."""

    def __init__(self, answers: int = 10**6, *, waits: bool = True, goodbye: bool = False) -> None:
        self.answers, self.waits, self.goodbye = answers, waits, goodbye
        self.connections = self.open = self.most_open = 0
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.arrived = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for left in reversed(range(self.answers)):
            asked = await self._asked(reader)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            self.arrived.release()
            await self.gate.wait()
            self.open -= 1
            result = str(SIGNATURE) if asked["method"] in ("sendTransaction", "requestAirdrop") else 77
            body = orjson.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result})
            head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % len(body)
            writer.write(head + (b"connection: close\r\n" if self.goodbye else b"") + b"\r\n" + body)
            await writer.drain()
            if self.goodbye or not (left or self.waits):
                return
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        await self._asked(reader)

    async def _asked(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        body = await reader.readuntil(b"}")
        while body.count(b"{") > body.count(b"}"):
            body += await reader.readuntil(b"}")
        asked: dict[str, Any] = orjson.loads(body)
        self.asked.append(asked["method"])
        return asked


Ask = Callable[[Client], Awaitable[object]]


async def send(client: Client) -> object:
    return await client.send_transaction(b"tx")


async def airdrop(client: Client) -> object:
    return await client.request_airdrop(Pubkey.default(), 1)


async def test_calls_one_after_another_share_a_connection() -> None:
    server = Server()
    async with endpoint(server) as host:
        client = Client(Provider(f"http://{host}"))
        for _ in range(5):
            assert await client.get_slot() == 77
        await client.close()
    assert server.connections == 1


async def test_many_calls_at_once_share_sixteen_connections() -> None:
    server = Server()
    server.gate.clear()
    async with endpoint(server) as host:
        client = Client(Provider(f"http://{host}"))
        calls = [asyncio.create_task(client.get_slot()) for _ in range(50)]
        for _ in range(16):
            await server.arrived.acquire()
        server.gate.set()
        assert await asyncio.gather(*calls) == [77] * 50
        await client.close()
    assert (server.most_open, server.connections) == (16, 16)


async def test_a_call_that_is_called_off_while_it_connects_leaves_no_socket_open(
    recwarn: pytest.WarningsRecorder,
) -> None:
    async with endpoint(Server()) as host:
        client = Client(Provider(f"http://{host}"))
        for turns in range(100):
            call = asyncio.ensure_future(client.get_slot())
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await client.close()
    gc.collect()
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]


async def test_a_server_that_says_goodbye_is_asked_on_a_new_connection() -> None:
    server = Server(goodbye=True)
    async with endpoint(server) as host:
        client = Client(Provider(f"http://{host}"))
        assert [await client.get_slot() for _ in range(3)] == [77] * 3
        await client.close()
    assert server.connections == 3


async def test_a_connection_that_was_closed_between_two_calls_is_not_used_again() -> None:
    server = Server(answers=1, waits=False)
    async with endpoint(server) as host:
        wire = Http(f"http://{host}")
        client = Client(Provider(f"http://{host}", wire=wire))
        assert await client.get_slot() == 77
        ((_, kept),) = wire._kept
        async with asyncio.timeout(60.0):
            while kept.is_ready:  # noqa: ASYNC110 - a wire has no event
                await asyncio.sleep(0.001)
        assert await client.send_transaction(b"tx") == SIGNATURE
        await client.close()
    assert server.connections == 2


async def test_a_connection_that_has_rested_for_long_is_not_used_again() -> None:
    server, now = Server(), [0.0]
    async with endpoint(server) as host:
        client = Client(Provider(f"http://{host}", wire=Http(f"http://{host}", now=lambda: now[0])))
        for now[0] in (0.0, 29.0, 58.0, 89.0):
            assert await client.get_slot() == 77
        await client.close()
    assert server.connections == 2


@pytest.mark.parametrize("ask", [send, airdrop])
async def test_a_call_on_a_connection_that_closes_in_that_moment_may_have_been_read_and_is_made_once(ask: Ask) -> None:
    server = Server(answers=1)  # takes the second call, and closes without a word
    async with endpoint(server) as host:
        client = Client(Provider(f"http://{host}"))
        await client.get_slot()
        with pytest.raises(OracleError) as raised:
            await ask(client)
        assert await client.get_slot() == 77
        await client.close()
    assert raised.value.verdict is Verdict.UNKNOWN
    assert len(server.asked) == 3


async def test_a_second_answer_that_nobody_asked_for_is_never_taken_for_that_of_the_next_call() -> None:
    answers = [b'{"jsonrpc":"2.0","id":null,"result":%d}' % slot for slot in (77, 666)]
    twice = b"".join(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(each) + each for each in answers)
    async with endpoint(saying(twice, then_hang=True)) as host:
        client = Client(Provider(f"http://{host}"))
        assert [await client.get_slot() for _ in range(3)] == [77] * 3
        await client.close()


@pytest.mark.parametrize("shape", [b'{"jsonrpc":"2.0","id":%d,"result":%d}', b'{"result":%d,"id":%d}'])
async def test_a_second_answer_that_comes_after_the_next_call_is_out_is_refused_and_nothing_is_shifted(
    shape: bytes,
) -> None:
    async def doubling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        late = b""
        while True:
            body = await reader.readuntil(b"}]}")
            number = orjson.loads(body)["id"]
            said = shape % (number, number)
            answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said
            writer.write(late or answer)
            late = answer
            await reader.readuntil(b"\r\n\r\n")

    async with endpoint(doubling) as host:
        provider = Provider(f"http://{host}")
        client = Client(provider)
        assert await client.get_slot() == 1
        with pytest.raises(OracleError) as caught:
            await client.get_slot()
        assert caught.value.error is errors.GARBAGE
        assert await client.get_slot() == 3
        await client.close()


async def test_the_path_the_query_and_the_login_of_a_url_reach_the_node() -> None:
    server = Server()
    async with endpoint(server) as host:
        client = Client(Provider(f"http://user:secret-1@{host}/v2/secret-2?key=secret-3#part"))
        await client.get_slot()
        await client.get_slot()
        await client.close()
    head = server.heads[0].decode()
    assert head.startswith("POST /v2/secret-2?key=secret-3 HTTP/1.1\r\n")
    assert f"\r\nhost: {host}\r\n" in head
    assert "\r\nauthorization: Basic dXNlcjpzZWNyZXQtMQ==\r\n" in head


async def test_a_call_ends_when_its_client_is_closed() -> None:
    server = Server()
    server.gate.clear()
    async with endpoint(server) as host:
        client = Client(Provider(f"http://{host}"))
        call = asyncio.create_task(client.get_slot())
        await server.arrived.acquire()
        await client.close()
        with pytest.raises(OracleError) as raised:
            await call
    assert raised.value.error is errors.ANSWER_LOST


async def test_a_certificate_that_nobody_trusts_or_of_another_host_is_refused_before_a_byte_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = ThrowawayCA(tmp_path)
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(ca.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    stranger = ThrowawayCA(tmp_path, "another")
    for certificate, is_good in (
        (ca.server("127.0.0.1"), True),
        (ca.server("rpc.example"), False),
        (ca.server("127.0.0.1", days=-1), False),
        (stranger.server("127.0.0.1"), False),
    ):
        server = Server()
        async with endpoint(server, tls=certificate) as host:
            client = Client(Provider(f"https://{host}/secret-key"))
            if is_good:
                assert [await client.get_slot() for _ in range(2)] == [77] * 2
                assert server.connections == 1
            else:
                with pytest.raises(OracleError) as raised:
                    await client.send_transaction(b"tx")
                assert raised.value.error is errors.UNREACHABLE
                assert "secret-key" not in str(raised.value)
                assert server.asked == []
            await client.close()
