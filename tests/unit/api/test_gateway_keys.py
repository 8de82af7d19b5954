"""Who is let in: known by a hash, as often as it may."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from asyncio_throttle import throttler

from oracle.api.gateway.errors import KEY_UNKNOWN, KEY_UNUSABLE, NO_KEYS, TOO_FAST, TOO_MANY_AT_ONCE
from oracle.api.gateway.keys import Client, Clients
from oracle.config import GatewayKey
from oracle.core.errors import ErrorCode, OracleError

KEY = "a-key-of-some-length"
OTHER = "another-key-of-length"


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def refused(**keys: GatewayKey) -> OracleError:
    with pytest.raises(OracleError) as caught:
        Clients(keys, {"SHORT": "short", "EMPTY": ""})
    assert KEY not in str(caught.value)
    return caught.value


def test_a_key_may_be_given_by_its_hash_in_a_file_or_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(OTHER + "\n")
    keys = {
        "hashed": GatewayKey(sha256=hashed(KEY)),
        "filed": GatewayKey(key_file=file),
        "environment": GatewayKey(key_env="THE_KEY"),
    }
    clients = Clients(keys, {"THE_KEY": "a third key of length"})
    named = [clients.of(f"Bearer {key}").name for key in (KEY, OTHER, "a third key of length")]
    assert named == ["hashed", "filed", "environment"]


def test_a_gateway_without_clients_is_open_to_nobody() -> None:
    assert refused().error is NO_KEYS


@pytest.mark.parametrize(
    "settings",
    [
        GatewayKey(),
        GatewayKey(key_file=Path("nowhere")),
        GatewayKey(key_env="UNSET"),
        GatewayKey(key_env="EMPTY"),
        GatewayKey(key_env="SHORT"),
    ],
)
def test_a_key_that_is_missing_or_easily_guessed_stops_the_gateway(settings: GatewayKey) -> None:
    error = refused(alice=settings)
    assert error.error is KEY_UNUSABLE
    assert "alice" in error.detail


def test_two_clients_with_one_key_are_refused() -> None:
    error = refused(alice=GatewayKey(sha256=hashed(KEY)), bob=GatewayKey(sha256=hashed(KEY)))
    assert error.error is KEY_UNUSABLE


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        KEY,
        f"Basic {KEY}",
        "Bearer",
        "Bearer ",
        f"Bearer {KEY[:-1]}",
        f"Bearer {hashed(KEY)}",
        "Bearer \udcff",
    ],
)
def test_whoever_does_not_know_the_key_itself_is_not_let_in(header: str | None) -> None:
    clients = Clients({"alice": GatewayKey(sha256=hashed(KEY))}, {})
    with pytest.raises(OracleError) as caught:
        clients.of(header)
    assert caught.value.error is KEY_UNKNOWN


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_not_case_sensitive(scheme: str) -> None:
    assert Clients({"alice": GatewayKey(sha256=hashed(KEY))}, {}).of(f"{scheme} {KEY}").name == "alice"


async def turned_away(client: Client) -> tuple[ErrorCode, float | None]:
    with pytest.raises(OracleError) as caught:
        async with client.turn():
            pass
    return caught.value.error, caught.value.retry_after_seconds


async def test_a_minute_lets_so_many_in_and_says_when_the_next_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(throttler, "time", SimpleNamespace(monotonic=lambda: now))
    client = Client("alice", GatewayKey(requests_per_minute=2), clock=lambda: now)
    for at in (1_000.0, 1_020.0):
        now = at
        async with client.turn():
            pass
    now = 1_030.0
    assert await turned_away(client) == (TOO_FAST, 30.0)
    now = 1_060.1
    async with client.turn():
        pass
    code, wait = await turned_away(client)
    assert code is TOO_FAST
    assert wait == pytest.approx(19.9)


async def test_who_is_turned_away_has_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("alice", GatewayKey(requests_per_minute=1))
    async with client.turn():
        pass
    began = time.monotonic()
    await turned_away(client)
    assert time.monotonic() - began < 30  # it would have been a minute


async def test_a_turn_that_has_ended_makes_room_however_it_ended() -> None:
    client = Client("alice", GatewayKey(concurrent=1))

    async def fail() -> None:
        async with client.turn():
            assert await turned_away(client) == (TOO_MANY_AT_ONCE, 1.0)
            raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            await fail()
    assert client.under_way == 0
