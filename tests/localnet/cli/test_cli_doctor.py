"""`oracle doctor` finds what is broken, says what to do about it, and goes on to the next thing."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import settings_file
from command import oracle, wallet_file
from pipeline_world import World
from price_server import KEY, price_server
from solders.keypair import Keypair

from oracle.chain.program import instructions
from oracle.chain.program.addresses import operator_address
from oracle.client.transact import transact
from oracle.localnet import network
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.server import serve
from oracle.localnet.ports import free_port

pytestmark = pytest.mark.localnet

OTHER = str(Keypair().pubkey())


Found = dict[str, list[dict[str, str]]]


async def examined(world: World, changes: Mapping[str, Any] | None = None) -> tuple[int, Found]:
    """Exit status and checks, by the first word of their names, of a configuration with some sections changed."""
    document: dict[str, Any] = {**world.settings}
    for section, values in (changes or {}).items():
        document[section] = {**document[section], **values} if section in document else values
    config = settings_file.write(world.directory / "oracle.toml", document)
    ran = await oracle("doctor", "-c", config, "--json")
    found: Found = {}
    for check in ran.document["checks"]:
        found.setdefault(check["name"].split()[0], []).append(check)
    broken = [check for checks in found.values() for check in checks if check["health"] == "failed"]
    assert ran.document["ok"] is (not broken)
    assert (ran.status == 0) is (not broken)
    for check in found["operator"] + [c for checks in found.values() for c in checks if c["health"] != "ok"]:
        assert check["health"] == "ok" or check["remedy"].endswith((".", "?")), check
    return ran.status, found


def only(found: Found, health: str) -> list[str]:
    return [check["name"] for checks in found.values() for check in checks if check["health"] == health]


def said(found: Found, word: str) -> str:
    return " ".join(check["detail"] + " " + check["remedy"] for check in found[word])


@pytest.fixture(autouse=True)
def _listed(world: World) -> None:
    """The scripted server lists one model: let the configuration route to that."""
    world.settings["models"]["tiny"]["routes"][0]["model"] = "scripted"


async def test_where_all_is_well_everything_is_ok(world: World, config: str) -> None:
    status, found = await examined(world)
    assert (status, only(found, "failed"), only(found, "warning")) == (0, [], [])
    text = await oracle("doctor", "-c", settings_file.write(world.directory / "oracle.toml", world.settings))
    assert text.status == 0
    assert {line.split()[0] for line in text.out.splitlines()} == {"ok"}
    async with world.daemon():
        _, found = await examined(world)
    assert "a daemon answers" in said(found, "outputs")


async def test_a_key_that_cannot_be_used_is_found(world: World) -> None:
    missing = {"operator": {"keypair": "none.json"}}
    assert "ORC-SIGNER-001" in said((await examined(world, missing))[1], "operator")
    exposed = wallet_file(world.directory / "exposed.json", Keypair())
    exposed.chmod(0o644)
    status, found = await examined(world, {"operator": {"keypair": str(exposed)}})
    assert (status, only(found, "failed")) == (1, ["operator key"])
    assert "chmod 600" in said(found, "operator")


async def test_a_stranger_of_a_key_without_money_is_found(world: World) -> None:
    wallet_file(world.directory / "stranger.json", Keypair())
    status, found = await examined(world, {"operator": {"keypair": "stranger.json"}})
    assert (status, only(found, "failed"), only(found, "warning")) == (1, ["queue"], ["operator balance"])
    assert "is not an operator of it" in said(found, "queue")
    assert str(world.authority.pubkey()) in said(found, "queue")


async def test_a_database_that_is_missing_or_old_or_no_database_is_found(world: World) -> None:
    for path, content in (
        ("missing.sqlite", None),
        ("empty.sqlite", b""),
        ("text.sqlite", b"hello, this is text" * 99),
    ):
        if content is not None:
            (world.directory / path).write_bytes(content)
        status, found = await examined(world, {"database": {"url": f"sqlite:///{path}"}})
        assert (status, only(found, "failed")) == (1, ["database"])
        assert "ORC-STORE-" in said(found, "database")
    assert not (world.directory / "missing.sqlite").exists()


async def test_a_cluster_that_does_not_answer_or_is_another_one_is_found(world: World) -> None:
    status, found = await examined(world, {"cluster": {"rpc": [f"http://127.0.0.1:{free_port()}/secret-api-key"]}})
    assert (status, only(found, "failed")) == (1, ["cluster"])
    assert "secret-api-key" not in str(found)
    status, found = await examined(world, {"cluster": {"genesis_hash": OTHER}})
    assert (status, only(found, "failed")) == (1, ["cluster"])
    status, found = await examined(world, {"cluster": {"program_id": OTHER}})
    assert (status, only(found, "failed")) == (1, ["program"])
    assert "not on this cluster" in said(found, "program")


async def test_an_endpoint_that_is_dead_beside_one_that_lives_is_a_warning(world: World) -> None:
    rpc = [f"http://127.0.0.1:{free_port()}", world.node.rpc_url]
    status, found = await examined(world, {"cluster": {"rpc": rpc}})
    assert (status, only(found, "warning")) == (0, ["cluster"])
    assert f"{rpc[0].removeprefix('http://')} does not answer" in said(found, "cluster")
    assert "operator balance" in only(found, "ok")


async def test_prices_are_read_and_shown_with_their_age_and_one_that_is_not_believed_is_a_warning(world: World) -> None:
    async with price_server() as server:
        server.says({"solana": {"usd": "150.25"}, "nosana": {"usd": 0.9}})
        read = {"sol_usd_url": server.url, "nos_usd_url": server.url, "nos_usd": 0.3}
        status, found = await examined(world, {"rates": read})
        assert (status, only(found, "warning")) == (0, ["price of NOS"])
        assert re.search(r"150\.25 USD, read \d+ s ago from 127\.0\.0\.1", said(found, "price"))
        assert "0.3 USD as configured holds for now" in said(found, "price")
        server.says(b"<html>", "429 Too Many Requests")
        status, found = await examined(world, {"rates": read})
        assert (status, only(found, "failed")) == (1, ["price of SOL"])
        assert "ORC-PROVIDER-080" in said(found, "price")
        assert KEY not in str(found)
    _, found = await examined(world, {"rates": {"sol_usd": 150}})
    assert said(found, "price").startswith("150 USD, as configured")


async def test_a_queue_that_cannot_be_served_is_found(world: World) -> None:
    queue = str(world.queue)
    status, found = await examined(world, {"operator": {"queues": []}})
    assert (status, only(found, "failed")) == (1, ["queues"])
    assert "names our key" in said(found, "queue")
    status, found = await examined(world, {"operator": {"queues": [OTHER, queue]}})
    assert (status, only(found, "failed")) == (1, ["queue"])
    assert f"{OTHER} is no queue" in said(found, "queue")
    status, found = await examined(world, {"operator": {"base_uri": "http://127.0.0.1:1"}})
    assert (status, only(found, "warning")) == (0, ["queue"])
    assert "the chain says outputs are at" in said(found, "queue")


async def test_a_queue_that_takes_nothing_and_one_that_dropped_us_are_found(world: World) -> None:
    key = world.authority.pubkey()
    at = ("-u", world.node.rpc_url, "-k", world.directory / "operator.json")
    assert (await oracle("queue", "pause", *at, world.queue)).status == 0
    status, found = await examined(world)
    assert (status, only(found, "warning")) == (0, ["queue"])
    assert "oracle queue resume" in said(found, "queue")
    operator = operator_address(world.program_id, world.queue, key)
    leave = instructions.remove_operator(world.program_id, operator=operator, queue=world.queue, authority=key)
    await transact(world.rpc, [leave], [world.authority])
    status, found = await examined(world)
    assert (status, only(found, "failed")) == (1, ["queue"])


async def test_a_queue_that_names_our_key_unasked_is_told(world: World) -> None:
    stranger = Keypair()
    await network.fund(world.node, stranger.pubkey())
    unasked = await network.create_queue(
        world.rpc, world.program_id, stranger, operator=world.authority.pubkey(), uri="http://elsewhere.example"
    )
    status, found = await examined(world)
    assert (status, only(found, "warning")) == (0, ["queue"])
    assert str(unasked) in said(found, "queue")


async def test_a_provider_that_cannot_be_used_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORACLE_TEST_UNSET", raising=False)
    mine = world.settings["providers"]["scripted"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({**mine, "base_url": f"http://127.0.0.1:{free_port()}/v1"}, "ORC-PROVIDER-"),
        ({**mine, "base_url": f"{world.node.rpc_url}/v1"}, "ORC-PROVIDER-"),
        ({**mine, "api_key_env": "ORACLE_TEST_UNSET"}, "ORC-PROVIDER-021"),
        ({**mine, "api_key_file": "none"}, "ORC-PROVIDER-021"),
    ]
    for provider, code in cases:
        status, found = await examined(world, {"providers": {"scripted": provider}})
        assert (status, only(found, "failed")) == (1, ["provider scripted", "model tiny"])
        assert code in said(found, "provider")


async def test_a_key_that_a_provider_refuses_is_found_and_never_shown(world: World) -> None:
    async with serve(ScriptedOpenAI(api_key="sk-right-key-0123456789")) as guarded:
        provider = {**world.settings["providers"]["scripted"], "base_url": f"{guarded.url}/v1"}
        wrong = {"providers": {"scripted": {**provider, "api_key": "sk-wrong-key-9876543210"}}}
        status, found = await examined(world, wrong)
    assert (status, only(found, "failed")) == (1, ["provider scripted", "model tiny"])
    assert "sk-" not in str(found)


async def test_a_route_that_nobody_can_price_or_nobody_lists_is_found(world: World) -> None:
    provider = {**world.settings["providers"]["scripted"], "free": False}
    status, found = await examined(world, {"providers": {"scripted": provider}})
    assert (status, only(found, "failed")) == (1, ["model tiny"])
    assert "model_prices" in said(found, "model")
    world.settings["models"]["tiny"]["routes"][0]["model"] = "unlisted"
    status, found = await examined(world)
    assert (status, only(found, "warning")) == (0, ["provider scripted"])
    assert "does not list unlisted" in said(found, "provider")


async def test_a_route_that_cannot_be_taken_beside_one_that_can_is_a_warning(world: World) -> None:
    providers = {"scripted": world.settings["providers"]["scripted"]}
    providers["dead"] = {**providers["scripted"], "base_url": f"http://127.0.0.1:{free_port()}/v1"}
    routes = [{"provider": "dead", "model": "scripted"}, *world.settings["models"]["tiny"]["routes"]]
    status, found = await examined(world, {"providers": providers, "models": {"tiny": {"routes": routes}}})
    assert (status, only(found, "failed"), only(found, "warning")) == (1, ["provider dead"], ["model tiny"])
    assert "then scripted for 0 lamports" in said(found, "model")


async def test_a_configuration_without_models_is_found(world: World) -> None:
    world.settings["models"] = {}
    status, found = await examined(world)
    assert (status, only(found, "failed")) == (1, ["models"])


async def test_a_port_that_somebody_else_has_is_found(world: World) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        status, found = await examined(world, {"api": {"port": other.getsockname()[1]}})
        assert (status, only(found, "failed")) == (1, ["outputs"])
    status, found = await examined(world, {"api": {"host": "192.0.2.1"}})
    assert (status, only(found, "failed")) == (1, ["outputs"])


async def test_everything_broken_at_once_is_told_in_one_go(world: World, tmp_path: Path) -> None:
    _, found = await examined(
        world,
        {
            "operator": {"keypair": "none.json"},
            "database": {"url": "sqlite:///none.sqlite"},
            "cluster": {"rpc": [f"http://127.0.0.1:{free_port()}"]},
            "api": {"host": "192.0.2.1"},
        },
    )
    assert only(found, "failed") == ["operator key", "database", "cluster", "outputs"]


async def test_config_check_with_rpc_says_the_same(world: World, config: str) -> None:
    doctor, check = await oracle("doctor", "-c", config), await oracle("config", "check", "--rpc", "-c", config)
    assert (doctor.status, check.status) == (0, 0)
    names = [[line[:24] for line in ran.out.splitlines()] for ran in (doctor, check)]
    assert names[0] == names[1]
