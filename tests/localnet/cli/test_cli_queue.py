"""`oracle queue`: an authority sets up where requests are made, and who may answer them."""

from __future__ import annotations

import pytest
from command import oracle, wallet_file
from pipeline_world import World
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.client import requests

pytestmark = pytest.mark.localnet

URI = "https://oracle.example"


async def shown(world: World, queue: str) -> dict[str, object]:
    ran = await oracle("queue", "show", queue, "-u", world.node.rpc_url, "--json")
    assert ran.status == 0, ran.err
    return dict(ran.document)


async def test_a_queue_is_created_shown_and_served_by_several(world: World, at: tuple[str, ...]) -> None:
    made = await oracle("queue", "create", "main", *at, "--uri", URI, "--claims", "--fee-floor", 12_345, "--json")
    assert made.status == 0, made.err
    queue = made.document["queue"]
    assert made.document["operator"] == str(world.requester.pubkey())
    terms = await shown(world, queue)
    assert (terms["name"], terms["operators"], terms["paused"]) == ("main", 1, False)
    assert (terms["fee_floor_lamports"], terms["claim_required"]) == (12_345, True)
    assert terms["authority"] == str(world.requester.pubkey())
    # Seconds became slots at the slot time of this chain.
    assert terms["max_deadline_slots"] > 86_400
    second = str(Keypair().pubkey())
    added = await oracle("queue", "add-operator", queue, second, *at, "--uri", URI)
    assert (added.status, "Operator added" in added.out) == (0, True)
    assert (await shown(world, queue))["operators"] == 2
    removed = await oracle("queue", "remove-operator", queue, second, *at)
    assert (removed.status, "Operator removed" in removed.out) == (0, True)
    assert (await shown(world, queue))["operators"] == 1


async def test_a_queue_without_claims_has_one_operator(world: World, at: tuple[str, ...]) -> None:
    made = await oracle("queue", "create", "alone", *at, "--json")
    added = await oracle("queue", "add-operator", made.document["queue"], Keypair().pubkey(), *at, "--uri", URI)
    assert (added.status, added.refusal) == (1, "ORC-CLIENT-002")
    assert "laim" in added.err


async def test_a_paused_queue_takes_nothing_until_it_is_resumed(world: World) -> None:
    at = ("-u", world.node.rpc_url, "-k", world.directory / "operator.json")
    assert (await oracle("queue", "pause", world.queue, *at)).status == 0
    with pytest.raises(requests.OracleError, match=r"ORC-CLIENT-002.*aused"):
        await world.submit()
    assert (await shown(world, str(world.queue)))["paused"] is True
    assert (await oracle("queue", "resume", world.queue, *at)).status == 0
    await world.submit()


async def test_only_its_authority_changes_a_queue(world: World, at: tuple[str, ...]) -> None:
    before = await shown(world, str(world.queue))
    for command in (
        ("pause", world.queue),
        ("add-operator", world.queue, Keypair().pubkey(), "--uri", URI),
        ("remove-operator", world.queue, world.authority.pubkey()),
    ):
        ran = await oracle("queue", command[0], *command[1:], *at)
        assert (ran.status, ran.refusal) == (1, "ORC-CLIENT-002"), ran.err
    assert await shown(world, str(world.queue)) == before


async def test_a_queue_is_not_created_twice_nor_by_the_poor(world: World, at: tuple[str, ...]) -> None:
    assert (await oracle("queue", "create", "once", *at)).status == 0
    again = await oracle("queue", "create", "once", *at)
    assert (again.status, again.refusal) == (1, "ORC-CLIENT-002")
    poor = wallet_file(world.directory / "poor.json", Keypair())
    broke = await oracle("queue", "create", "main", "-u", world.node.rpc_url, "-k", poor)
    assert (broke.status, broke.refusal) == (1, "ORC-CLIENT-002")


async def test_what_fits_no_account_is_refused(world: World, at: tuple[str, ...]) -> None:
    for name in ("", "a" * 33, "naïve", "line\nbreak"):
        ran = await oracle("queue", "create", name, *at)
        assert (ran.status, ran.refusal is not None) == (1, True), name
    ran = await oracle("queue", "create", "main", *at, "--uri", "https://oracle.example/" + "a" * 200)
    assert (ran.status, ran.refusal is not None) == (1, True)


async def test_what_is_no_queue_is_told(world: World, at: tuple[str, ...]) -> None:
    for address in (Keypair().pubkey(), world.requester.pubkey()):
        ran = await oracle("queue", "show", address, "-u", world.node.rpc_url)
        assert (ran.status, ran.refusal) == (1, "ORC-CLIENT-004")
    assert (await oracle("queue", "show", "nonsense", "-u", world.node.rpc_url)).status == 2
    assert (await oracle("queue", "add-operator", world.queue, "nonsense", *at, "--uri", URI)).status == 2
    assert (await oracle("queue", "create", "main", *at, "--lease", "0")).status == 2
    assert (await oracle("queue")).status == 2


async def test_a_queue_is_shown_to_people_too(world: World) -> None:
    ran = await oracle("queue", "show", world.queue, "-u", world.node.rpc_url)
    assert ran.status == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["name", "localnet"] in lines
    assert ["fee_floor_lamports", "5000"] in lines
    assert Pubkey.from_string(next(line[1] for line in lines if line[0] == "authority")) == world.authority.pubkey()
