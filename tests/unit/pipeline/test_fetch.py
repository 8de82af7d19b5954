"""What may be fetched at all: nothing here ever gets as far as a connection."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from oracle.config import InputFetch
from oracle.core.errors import OracleError
from oracle.pipeline.fetch import fetch, is_public, resolve

LIMITS = InputFetch(timeout_seconds=5)

PRIVATE_V4 = {
    "this host": "0.0.0.0",
    "this network": "0.1.2.3",
    "private 10": "10.0.0.1",
    "private 172": "172.16.0.1",
    "private 172, last": "172.31.255.255",
    "private 192": "192.168.1.1",
    "loopback": "127.0.0.1",
    "loopback, not .1": "127.8.9.10",
    "link-local, where clouds keep credentials": "169.254.169.254",
    "carrier-grade NAT": "100.64.0.1",
    "carrier-grade NAT, where one cloud keeps credentials": "100.100.100.200",
    "IETF protocol assignments": "192.0.0.1",
    "dummy address": "192.0.0.8",
    "port control protocol": "192.0.0.9",
    "NAT64 discovery": "192.0.0.170",
    "documentation 1": "192.0.2.1",
    "documentation 2": "198.51.100.1",
    "documentation 3": "203.0.113.1",
    "6to4 relay": "192.88.99.1",
    "benchmarks": "198.18.0.1",
    "multicast": "224.0.0.1",
    "multicast, global scope": "232.1.1.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
}
PRIVATE_V6 = {
    "unspecified": "::",
    "loopback": "::1",
    "IPv4-compatible": "::127.0.0.1",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped private": "::ffff:10.0.0.1",
    "mapped link-local": "::ffff:169.254.169.254",
    "mapped CGNAT": "::ffff:100.64.0.1",
    "SIIT": "::ffff:0:127.0.0.1",
    "NAT64 of loopback": "64:ff9b::127.0.0.1",
    "NAT64 of private": "64:ff9b::10.0.0.1",
    "NAT64 of link-local": "64:ff9b::a9fe:a9fe",
    "NAT64, local use": "64:ff9b:1::1",
    "6to4 of private": "2002:a00:1::1",
    "6to4 of loopback": "2002:7f00:1::1",
    "6to4 of a public address": "2002:808:808::1",
    "Teredo of a public address": "2001:0:4136:e378:8000:63bf:f7f7:f7f7",
    "Teredo of private": "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "discard only": "100::1",
    "benchmarks": "2001:2::1",
    "AS112": "2001:4:112::1",
    "ORCHIDv2": "2001:20::1",
    "drone identities": "2001:30::1",
    "documentation": "2001:db8::1",
    "documentation, new": "3fff::1",
    "segment routing": "5f00::1",
    "unique local": "fd00:ec2::254",
    "link-local": "fe80::1",
    "link-local with a zone": "fe80::1%eth0",
    "site-local": "fec0::1",
    "multicast": "ff02::1",
    "multicast, global scope": "ff0e::1",
    "unassigned": "4000::1",
}
PUBLIC = ["8.8.8.8", "93.184.215.14", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1"]
PUBLIC += ["2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2001:200::1"]


@pytest.mark.parametrize("address", [*PRIVATE_V4.values(), *PRIVATE_V6.values()], ids=[*PRIVATE_V4, *PRIVATE_V6])
def test_an_address_off_the_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_on_the_internet_is_public(address: str) -> None:
    assert is_public(address)


async def refusal(uri: str, *addresses: str) -> OracleError:
    """Why `uri` is refused. Without addresses nobody may even be asked for one."""

    async def answer(_: str, __: int) -> list[str]:
        assert addresses, "the name was looked up"
        return list(addresses)

    with pytest.raises(OracleError) as caught:
        await fetch(uri, LIMITS, resolve=answer)
    return caught.value


@pytest.mark.parametrize("address", [*PRIVATE_V4.values(), *PRIVATE_V6.values()], ids=[*PRIVATE_V4, *PRIVATE_V6])
async def test_a_name_that_leads_off_the_internet_is_refused_before_a_connection(address: str) -> None:
    assert (await refusal("https://input.example/", address)).code == "ORC-PIPE-009"


@pytest.mark.parametrize("answers", [("8.8.8.8", "10.0.0.1"), ("2606:4700::1", "::1", "8.8.8.8"), ("127.0.0.1",) * 3])
async def test_one_private_address_among_public_ones_refuses_the_whole_host(answers: tuple[str, ...]) -> None:
    assert (await refusal("https://input.example/", *answers)).code == "ORC-PIPE-009"


@pytest.mark.parametrize(
    "uri",
    [
        "http://input.example/",
        "HTTP://input.example/",
        "ftp://input.example/",
        "file:///etc/passwd",
        "data:text/plain,hello",
        "gopher://input.example/",
        "//input.example/",
        "input.example/",
        "",
        "https://",
        "https:///path",
        "https:input.example",
        "https://user@input.example/",
        "https://user:secret-word@input.example/",
        "https://@input.example/",
        "https://input.example\\@127.0.0.1/",
        "https://127.0.0.1 @input.example/",
        "https://input.example:8443/",
        "https://input.example:80/",
        "https://input.example:0/",
        "https://input.example:22/",
        "https://input.example:99999/",
        "https://input.example:-1/",
        "https://input.example:https/",
        "https://bücher.example/",
        "https://inp\u0443t.example/",
        "https://input.example/ä",
        "https://input.example/\r\nHost: 127.0.0.1",
        "https://input.example/\ta",
        "https://input.example/\x00",
        "https://input.example/a b",
        " https://input.example/",
        "https://[::1",
        "https://[not-an-address]/",
        "https://input.example/" + "a" * 2_048,
    ],
)
async def test_what_is_no_plain_https_uri_is_refused_before_a_lookup(uri: str) -> None:
    error = await refusal(uri)
    assert error.code == "ORC-PIPE-009"
    assert "secret-word" not in str(error)


async def test_a_host_without_an_address_is_refused() -> None:
    async def nothing(_: str, __: int) -> list[str]:
        return []

    with pytest.raises(OracleError, match="ORC-PIPE-009"):
        await fetch("https://input.example/", LIMITS, resolve=nothing)


async def test_a_name_that_does_not_resolve_now_may_resolve_later() -> None:
    async def unknown(_: str, __: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(OracleError, match="ORC-PIPE-008"):
        await fetch("https://input.example/", LIMITS, resolve=unknown)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "[::1]", "[::ffff:7f00:1]"],
)
async def test_a_loopback_address_is_refused_however_it_is_spelled(host: str) -> None:
    with pytest.raises(OracleError, match="ORC-PIPE-009"):
        await fetch(f"https://{host}/", LIMITS)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", ".example", "xn--a..example"])
async def test_what_cannot_be_the_name_of_a_host_is_refused_for_good(host: str) -> None:
    with pytest.raises(OracleError, match="ORC-PIPE-009"):
        await fetch(f"https://{host}/", LIMITS)


async def test_names_of_strangers_are_looked_up_apart_from_the_connections_of_the_daemon() -> None:
    """A resolver that does not answer for half a minute would else keep RPC and providers waiting."""
    loop, free = asyncio.get_running_loop(), threading.Event()
    with ThreadPoolExecutor(1) as shared:
        loop.set_default_executor(shared)
        blocked = loop.run_in_executor(None, free.wait)
        try:
            assert await asyncio.wait_for(resolve("127.0.0.1", 443), 60) == ["127.0.0.1"]
        finally:
            free.set()
        await blocked
