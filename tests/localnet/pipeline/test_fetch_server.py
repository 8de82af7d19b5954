"""What a hostile host can do to a fetch, on real TLS: nothing but waste a bounded time and a bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from throwaway_ca import ThrowawayCA

from oracle.config import InputFetch
from oracle.core.errors import OracleError
from oracle.pipeline import fetch as fetching

pytestmark = pytest.mark.localnet

LIMITS = InputFetch(max_bytes=10_000, timeout_seconds=60, max_redirects=3)
HASTY = InputFetch(max_bytes=10_000, timeout_seconds=0.4)
Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Host:
    """A server that answers each path with raw bytes, or does with the connection what it likes."""

    port: int = 0
    connections: int = 0
    paths: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    answers: dict[str, bytes | Speak] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                self.paths.append(path)
                self.heads.append(head)
                answer = self.answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                    if b"Connection: close" in answer:
                        break
                else:
                    await answer(writer)
                    break
        writer.close()

    @property
    def uri(self) -> str:
        return f"https://input.example:{self.port}"


def ok(content: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n{lines}\r\n".encode() + content


def status(code: int, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 {code} X\r\nContent-Length: 0\r\n{lines}\r\n".encode()


@asynccontextmanager
async def listening(context: ssl.SSLContext | None, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Host]:
    host = Host()
    server = await asyncio.start_server(host.serve, address, port, ssl=context)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        server.close_clients() if hasattr(server, "close_clients") else None


@pytest.fixture
def authority(tmp_path: Path) -> ThrowawayCA:
    return ThrowawayCA(tmp_path)


@pytest.fixture
async def host(authority: ThrowawayCA) -> AsyncIterator[Host]:
    async with listening(authority.server("input.example")) as host:
        yield host


@pytest.fixture
def fetch(authority: ThrowawayCA, host: Host) -> Callable[..., Awaitable[bytes]]:
    """`fetch` as the daemon calls it, but that loopback is the internet, and knows the names of these tests."""

    async def names(name: str, _: int) -> list[str]:
        return {"input.example": ["127.0.0.1"], "inside.example": ["127.0.0.1", "10.1.2.3"]}.get(name, [name])

    async def run(uri: str, limits: InputFetch = LIMITS, **given: object) -> bytes:
        options: dict[str, object] = {
            "resolve": names,
            "is_allowed": lambda address: address == "127.0.0.1" or fetching.is_public(address),
            "ports": (host.port,),
            "ssl_context": authority.trusting(),
            **given,
        }
        return await fetching.fetch(uri, limits, **options)  # type: ignore[arg-type]

    return run


Fetch = Callable[..., Awaitable[bytes]]


async def refused(fetch: Fetch, uri: str, code: str, limits: InputFetch = LIMITS, **given: object) -> OracleError:
    with pytest.raises(OracleError) as caught:
        await fetch(uri, limits, **given)
    assert caught.value.code == code, caught.value
    return caught.value


async def test_what_the_host_serves_is_fetched_byte_for_byte(host: Host, fetch: Fetch) -> None:
    content = bytes(range(256)) * 39
    host.answers["/input?version=2"] = ok(content)
    assert await fetch(f"{host.uri}/input?version=2#part") == content
    assert b"\r\nHost: input.example" in host.heads[0]
    assert b"Accept-Encoding: identity" in host.heads[0]


async def test_content_of_unknown_length_is_fetched_to_its_end(host: Host, fetch: Fetch) -> None:
    host.answers["/"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert await fetch(f"{host.uri}/") == b"abcde"


@pytest.mark.parametrize("size", [LIMITS.max_bytes, 0])
async def test_content_of_the_largest_allowed_size_is_fetched(host: Host, fetch: Fetch, size: int) -> None:
    host.answers["/"] = ok(b"a" * size)
    assert len(await fetch(f"{host.uri}/")) == size


async def test_one_byte_more_than_allowed_is_too_much(host: Host, fetch: Fetch) -> None:
    host.answers["/"] = ok(b"a" * (LIMITS.max_bytes + 1))
    await refused(fetch, f"{host.uri}/", "ORC-PIPE-010")


async def test_an_endless_stream_is_cut_at_the_limit(host: Host, fetch: Fetch) -> None:
    sent = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"a" * 0x1000 + b"\r\n")
            sent += 0x1000
            await writer.drain()

    host.answers["/"] = pour
    await refused(fetch, f"{host.uri}/", "ORC-PIPE-010")
    assert sent < 64 * 1024 * 1024


async def test_a_lie_about_the_length_does_not_get_past_the_limit(host: Host, fetch: Fetch) -> None:
    host.answers["/"] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + b"a" * 50_000
    assert await fetch(f"{host.uri}/") == b"aaaaa"


async def test_compressed_content_is_taken_as_it_is_and_never_unpacked(host: Host, fetch: Fetch) -> None:
    host.answers["/"] = ok(b"\x1f\x8b not really", "Content-Encoding: gzip")
    assert await fetch(f"{host.uri}/") == b"\x1f\x8b not really"


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    await drops(writer)


async def drip_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    await drops(writer)


async def drops(writer: asyncio.StreamWriter) -> None:
    for _ in range(1_000):
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(20)


@pytest.mark.parametrize("speak", [drip, drip_headers, silence])
async def test_a_slow_host_costs_no_more_than_the_time_allowed(host: Host, fetch: Fetch, speak: Speak) -> None:
    host.answers["/"] = speak
    began = asyncio.get_running_loop().time()
    await refused(fetch, f"{host.uri}/", "ORC-PIPE-008", HASTY)
    assert asyncio.get_running_loop().time() - began < 15  # each of them would go on for twenty seconds


async def test_redirects_that_are_slow_one_by_one_are_bounded_together(host: Host, fetch: Fetch) -> None:
    async def later(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.15)
        writer.write(status(302, "Location: /"))
        await writer.drain()

    host.answers["/"] = later
    limits = InputFetch(timeout_seconds=0.4, max_redirects=50)
    await refused(fetch, f"{host.uri}/", "ORC-PIPE-008", limits)
    assert len(host.paths) < 6


async def cut_in_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    await writer.drain()


async def cut_in_chunk(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
    await writer.drain()


async def hang_up(_: asyncio.StreamWriter) -> None:
    return


async def not_http(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n" * 3)
    await writer.drain()


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Header: " + b"a" * 1_000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize("speak", [cut_in_body, cut_in_chunk, hang_up, not_http, endless_headers])
async def test_an_answer_that_is_cut_or_garbage_is_none(host: Host, fetch: Fetch, speak: Speak) -> None:
    host.answers["/"] = speak
    await refused(fetch, f"{host.uri}/", "ORC-PIPE-008")


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429, 408, 425])
async def test_a_host_that_is_busy_is_asked_again_later(host: Host, fetch: Fetch, code: int) -> None:
    host.answers["/"] = status(code)
    await refused(fetch, f"{host.uri}/", "ORC-PIPE-008")


@pytest.mark.parametrize("code", [201, 204, 206, 304, 400, 401, 403, 404, 410, 451, 501])
async def test_any_other_status_is_the_final_word(host: Host, fetch: Fetch, code: int) -> None:
    host.answers["/"] = f"HTTP/1.1 {code} X\r\n\r\n".encode() if code in (204, 304) else status(code)
    await refused(fetch, f"{host.uri}/", "ORC-PIPE-013")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(host: Host, fetch: Fetch, code: int) -> None:
    host.answers["/"] = status(code, "Location: /there")
    host.answers["/there"] = ok(b"here")
    assert await fetch(f"{host.uri}/") == b"here"


async def test_redirects_are_followed_so_often_and_not_once_more(host: Host, fetch: Fetch) -> None:
    for step in range(LIMITS.max_redirects):
        host.answers[f"/{step}"] = status(302, f"Location: /{step + 1}")
    host.answers[f"/{LIMITS.max_redirects}"] = ok(b"at last")
    assert await fetch(f"{host.uri}/0") == b"at last"
    host.answers["/round"] = status(302, "Location: /round")
    host.paths.clear()
    await refused(fetch, f"{host.uri}/round", "ORC-PIPE-013")
    assert len(host.paths) == LIMITS.max_redirects + 1


async def test_a_redirect_without_a_target_is_the_end(host: Host, fetch: Fetch) -> None:
    host.answers["/"] = status(302)
    await refused(fetch, f"{host.uri}/", "ORC-PIPE-013")


@pytest.mark.parametrize(
    "target",
    [
        "http://input.example/",
        "ftp://input.example/",
        "file:///etc/passwd",
        "https://10.0.0.1:PORT/",
        "https://169.254.169.254:PORT/latest/meta-data/",
        "https://[::1]:PORT/",
        "https://[::ffff:10.0.0.1]:PORT/",
        "https://inside.example:PORT/",
        "//192.168.0.1:PORT/",
        "https://input.example/another-port",
        "https://input.example:22/",
        "https://user:pass@input.example:PORT/",
        "https://[::1",
        "https://bücher.example:PORT/",
        "https://input.example:PORT/" + "a" * 3_000,
    ],
)
async def test_a_redirect_leads_nowhere_that_a_uri_may_not_lead(host: Host, fetch: Fetch, target: str) -> None:
    host.answers["/"] = status(302, f"Location: {target.replace('PORT', str(host.port))}")
    await refused(fetch, f"{host.uri}/", "ORC-PIPE-009")
    assert host.connections == 1


async def test_the_connection_goes_to_the_address_that_was_checked(authority: ThrowawayCA) -> None:
    """DNS rebinding: the name is public when it is checked, and inside a moment later."""
    context = authority.server("input.example")
    async with listening(context) as outside, listening(context, "127.0.0.2", outside.port) as inside:
        outside.answers["/"] = ok(b"public", "Connection: close")
        inside.answers["/"] = ok(b"secret")
        answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]])

        async def rebinding(_: str, __: int) -> list[str]:
            return next(answers)

        found = await fetching.fetch(
            f"https://input.example:{outside.port}/",
            LIMITS,
            resolve=rebinding,
            is_allowed=lambda address: address == "127.0.0.1",
            ports=(outside.port,),
            ssl_context=authority.trusting(),
        )
        assert (found, inside.connections) == (b"public", 0)


async def test_a_name_that_turns_inward_between_two_redirects_is_refused(authority: ThrowawayCA) -> None:
    context = authority.server("input.example")
    async with listening(context) as outside, listening(context, "127.0.0.2", outside.port) as inside:
        outside.answers["/"] = status(302, "Location: /next", "Connection: close")
        answers = iter([["127.0.0.1"], ["127.0.0.2"]])

        async def rebinding(_: str, __: int) -> list[str]:
            return next(answers)

        with pytest.raises(OracleError, match="ORC-PIPE-009"):
            await fetching.fetch(
                f"https://input.example:{outside.port}/",
                LIMITS,
                resolve=rebinding,
                is_allowed=lambda address: address == "127.0.0.1",
                ports=(outside.port,),
                ssl_context=authority.trusting(),
            )
        assert inside.connections == 0


async def test_the_next_address_is_tried_where_one_does_not_answer(host: Host, fetch: Fetch) -> None:
    host.answers["/"] = ok(b"found")

    async def two(_: str, __: int) -> list[str]:
        return ["127.0.0.3", "127.0.0.1"]  # nobody listens at the first

    assert await fetch(f"{host.uri}/", resolve=two, is_allowed=lambda _: True) == b"found"


async def test_a_certificate_of_an_unknown_authority_is_refused(host: Host, fetch: Fetch, tmp_path: Path) -> None:
    host.answers["/"] = ok(b"who am I")
    stranger = ThrowawayCA(tmp_path, "another authority").trusting()
    error = await refused(fetch, f"{host.uri}/", "ORC-PIPE-008", ssl_context=stranger)
    assert "certificate" in error.detail
    assert host.paths == []


async def test_the_daemon_believes_public_authorities_only(host: Host, fetch: Fetch) -> None:
    error = await refused(fetch, f"{host.uri}/", "ORC-PIPE-008", ssl_context=None)
    assert "certificate" in error.detail


@pytest.mark.parametrize(("named", "days"), [("other.example", 1), ("127.0.0.1", 1), ("input.example", -1)])
async def test_a_certificate_of_another_name_or_time_is_refused(
    authority: ThrowawayCA, fetch: Fetch, named: str, days: int
) -> None:
    async with listening(authority.server(named, days=days)) as imposter:
        imposter.answers["/"] = ok(b"trust me")
        error = await refused(fetch, f"{imposter.uri}/", "ORC-PIPE-008", ports=(imposter.port,))
        assert "certificate" in error.detail
        assert imposter.paths == []


async def test_a_host_without_tls_is_refused(fetch: Fetch) -> None:
    async with listening(None) as plain:
        await refused(fetch, f"{plain.uri}/", "ORC-PIPE-008", HASTY, ports=(plain.port,))
        assert plain.paths == []


async def test_a_host_where_nobody_listens_may_come_back(host: Host, fetch: Fetch) -> None:
    async with listening(None) as gone:
        port = gone.port
    await refused(fetch, f"https://input.example:{port}/", "ORC-PIPE-008", ports=(port,))
