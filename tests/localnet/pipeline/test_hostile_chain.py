"""What a hostile or broken chain shows the daemon: each gets a code, and every other request goes on."""

import pytest
from pipeline_world import DrivenClock, World, confirming_late, dropped_with_a_fork, until
from solders.account import Account
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.system_program import ID as SYSTEM_PROGRAM

from oracle.chain.program import instructions
from oracle.chain.program.addresses import operator_address
from oracle.chain.program.layout import REQUEST_DISCRIMINATOR
from oracle.chain.rpc.errors import REFUSED
from oracle.client.transact import transact
from oracle.core.lifecycle import State
from oracle.core.request import Status
from oracle.localnet import network
from oracle.pipeline import rehearsal
from oracle.pipeline.daemon import Daemon
from oracle.store import journal
from oracle.store.rows import JournalRow
from oracle.testing.fault_proxy import fault_proxy

pytestmark = pytest.mark.localnet


async def noted(daemon: Daemon, event: str) -> JournalRow:
    async def look() -> JournalRow | None:
        lines = await daemon.context.store.read(lambda c: journal.of(c, None))
        return next((line for line in lines if line.event == event), None)

    return await until(look, f"a note of {event}")


@pytest.mark.parametrize("what", ["an unknown version", "a cut header", "a body that does not parse"])
async def test_a_malformed_account_is_noted_and_delays_nobody(world: World, what: str) -> None:
    data = bytearray(REQUEST_DISCRIMINATOR + bytes(400))
    data[8] = 1
    data[16:48] = bytes(world.queue)
    data[12:16] = (40).to_bytes(4, "little")
    if what == "an unknown version":
        data[8] = 99
    elif what == "a cut header":
        del data[200:]
    else:
        data[352:392] = b"\xff" * 40
    odd = Keypair().pubkey()
    await world.node.call(
        lambda chain: chain.set_account(odd, Account(10**9, bytes(data), world.program_id, executable=False))
    )
    async with world.daemon() as daemon:
        line = await noted(daemon, "ORC-PIPE-003")
        good = await world.submit()
        assert (await world.ended(good)).header.status is Status.FULFILLED
    assert line.detail["address"] == str(odd)


async def test_a_queue_that_names_our_key_without_our_configuration_is_noted_and_not_served(world: World) -> None:
    stranger = Keypair()
    await network.fund(world.node, stranger.pubkey())
    queue = await network.create_queue(
        world.rpc, world.program_id, stranger, operator=world.authority.pubkey(), uri="http://127.0.0.1:1"
    )
    async with world.daemon() as daemon:
        line = await noted(daemon, "ORC-PIPE-004")
        good = await world.submit()
        assert (await world.ended(good)).header.status is Status.FULFILLED
    assert line.detail == {"queue": str(queue)}


async def test_an_endpoint_that_refuses_us_for_a_while_ends_no_request(world: World) -> None:
    async with fault_proxy(world.node) as proxy:
        cluster = {**world.settings["cluster"], "rpc": [proxy.url]}
        async with world.daemon(cluster=cluster, policy={"max_retries": 0}) as daemon:
            proxy.calls.add("html", on="simulateTransaction", count=None, status=403)
            submitted = await world.submit()
            row = await world.waits(daemon, submitted, REFUSED)
            proxy.calls.clear()
            assert (await world.ended(submitted)).header.status is Status.FULFILLED
    assert (row.state, row.retries) == (State.SEEN, 0)


def removal_of_us(world: World) -> Instruction:
    return instructions.remove_operator(
        world.program_id,
        operator=operator_address(world.program_id, world.queue, world.authority.pubkey()),
        queue=world.queue,
        authority=world.authority.pubkey(),
    )


async def test_a_removed_operator_buys_nothing(world: World) -> None:
    submitted = await world.submit()
    await transact(world.rpc, [removal_of_us(world)], [world.authority])
    async with world.daemon() as daemon:
        row = await world.reaches(daemon, submitted, State.DECLINED)
    assert row.error_code == "ORC-POLICY-012"
    assert len(world.model_url.calls) == 0


async def test_a_request_that_has_waited_is_rehearsed_again_before_it_is_bought(world: World) -> None:
    """Whatever it waited for: what was simulated at admission is no longer so."""
    held = (await world.rpc.get_balance(world.authority.pubkey())).value
    clock, often = DrivenClock(), {"balance_interval_seconds": 0.05}
    async with world.daemon(clock=clock, daemon=often, policy={"min_wallet_lamports": held + 1}) as daemon:

        async def is_paused() -> bool:
            return not daemon.context.may_buy

        await until(is_paused, "the pause")
        submitted = await world.submit()
        await world.reaches(daemon, submitted, State.ADMITTED)
        clock.ahead_seconds += 11
        # What its account held fills the wallet, too.
        await transact(world.rpc, [removal_of_us(world)], [world.authority])
        row = await world.reaches(daemon, submitted, State.DECLINED, State.SETTLED)
    assert (row.state, row.error_code, row.attempts_made) == (State.DECLINED, "ORC-POLICY-012", 0)
    assert len(world.model_url.calls) == 0


@pytest.mark.parametrize("lamports", [None, 500_000], ids=["no account", "less than keeps it alive"])
async def test_an_operator_without_lamports_buys_nothing_and_gives_nothing_up_until_it_is_funded(
    world: World, lamports: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "BROKE_SECONDS", 0.05)
    submitted = await world.submit()
    left = None if lamports is None else Account(lamports, b"", SYSTEM_PROGRAM)
    await world.node.call(lambda chain: chain.set_account(world.authority.pubkey(), left))
    async with world.daemon(policy={"max_retries": 0}) as daemon:
        row = await world.reaches(daemon, submitted, State.SEEN)

        async def postponed() -> bool:
            found = await world.row(daemon, submitted)
            return found is not None and found.error_code == "ORC-PIPE-012"

        await until(postponed, "the refusal")
        assert len(world.model_url.calls) == 0
        await network.fund(world.node, world.authority.pubkey())
        assert (await world.ended(submitted)).header.status is Status.FULFILLED
    assert row.attempts_made == 0


async def test_a_settlement_on_a_fork_that_is_dropped_lands_again(world: World) -> None:
    async with world.daemon() as daemon:
        async with confirming_late(world.node):
            submitted = await world.submit()
            await dropped_with_a_fork(world.node, instructions.RECORD_INFERENCE_RESULT)
        ended = await world.ended(submitted)
        await world.reaches(daemon, submitted, State.SETTLED)
    assert ended.header.status is Status.FULFILLED
