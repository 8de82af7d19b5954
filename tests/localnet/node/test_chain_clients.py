"""Clients written by others work against the embedded chain as they are: solana-py, anchorpy, @coral-xyz/anchor."""

import asyncio
import json
import shutil
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from anchorpy import Context, Idl, Program, Provider, Wallet
from anchorpy.error import ProgramError
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed, Finalized, Processed
from solana.rpc.core import RPCException
from solana.rpc.types import DataSliceOpts, MemcmpOpts, TxOpts
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from oracle import resources
from oracle.chain.program import idl
from oracle.chain.program.addresses import queue_address
from oracle.localnet.chain import Chain, Config
from oracle.localnet.server import Node, serve

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # solana-py imports websockets.legacy
    from solana.rpc.websocket_api import connect

pytestmark = [
    pytest.mark.localnet,
    pytest.mark.filterwarnings("ignore:The `repr_ns` argument:DeprecationWarning"),  # anchorpy's sumtypes
]

SOL = 10**9
NPM_PACKAGE = "@coral-xyz/anchor@0.32.1"


@pytest.fixture
def slot_seconds() -> float:
    return 0.02


@pytest.fixture
async def node(slot_seconds: float) -> AsyncIterator[Node]:
    """A node with the program on it."""
    chain = Chain(seed=bytes(32), now=time.time, config=Config(confirmed_lag_slots=1, finalized_lag_slots=4))
    chain.load_program(idl.program_id(), resources.bytecode().read_bytes())
    async with serve(chain, slot_seconds=slot_seconds) as node:
        yield node
    chain.close()


@pytest.fixture
async def client(node: Node) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(node.rpc_url, Confirmed) as client:
        yield client


async def funded(client: AsyncClient) -> Keypair:
    payer = Keypair()
    signature = (await client.request_airdrop(payer.pubkey(), 10 * SOL)).value
    await client.confirm_transaction(signature, Confirmed, sleep_seconds=0.01)
    return payer


async def pay(client: AsyncClient, payer: Keypair, to: Pubkey, lamports: int) -> VersionedTransaction:
    blockhash = (await client.get_latest_blockhash()).value.blockhash
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports))
    return VersionedTransaction(MessageV0.try_compile(payer.pubkey(), [instruction], [], blockhash), [payer])


async def test_solana_py_sends_reads_and_finds(client: AsyncClient) -> None:
    payer, to = await funded(client), Pubkey.new_unique()
    tx = await pay(client, payer, to, SOL)
    simulated = (await client.simulate_transaction(tx, sig_verify=True)).value
    assert simulated.err is None
    assert simulated.units_consumed == 150
    signature = (await client.send_transaction(tx, TxOpts(preflight_commitment=Confirmed))).value
    status = (await client.confirm_transaction(signature, Confirmed, sleep_seconds=0.01)).value[0]
    assert status is not None
    assert status.err is None
    assert (await client.get_balance(to)).value == SOL
    account = (await client.get_account_info(to)).value
    assert account is not None
    assert account.owner == SYSTEM_PROGRAM
    found = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
    assert found is not None
    assert found.transaction.meta is not None
    assert found.transaction.meta.fee == 5_000
    history = (await client.get_signatures_for_address(to)).value
    assert [one.signature for one in history] == [signature]
    accounts = (
        await client.get_program_accounts(
            SYSTEM_PROGRAM, encoding="base64", filters=[0, MemcmpOpts(0, "")], data_slice=DataSliceOpts(0, 0)
        )
    ).value
    assert to in {one.pubkey for one in accounts}


async def test_solana_py_understands_a_preflight_failure(client: AsyncClient) -> None:
    payer = await funded(client)
    tx = await pay(client, payer, Pubkey.new_unique(), 11 * SOL)
    with pytest.raises(RPCException) as refused:
        await client.send_raw_transaction(bytes(tx), TxOpts(preflight_commitment=Confirmed))
    failure = refused.value.args[0].data
    assert failure.err.index == 0
    assert failure.err.err.code == 1
    assert failure.logs[-1].endswith("failed: custom program error: 0x1")


async def test_solana_py_reads_what_it_knows_of_the_cluster(client: AsyncClient) -> None:
    assert await client.is_connected()
    assert (await client.get_version()).value.solana_core == "2.2.0"
    assert (await client.get_epoch_info()).value.slots_in_epoch == 432_000
    assert (await client.get_epoch_schedule()).value.slots_per_epoch == 432_000
    assert (await client.get_minimum_balance_for_rent_exemption(0)).value == 890_880
    assert (await client.get_slot(Processed)).value >= (await client.get_slot()).value
    assert (await client.get_block_height()).value > 0
    genesis, identity = await client.get_genesis_hash(), await client.get_identity()
    assert genesis.value
    assert identity.value.identity
    slot = (await client.get_slot(Finalized)).value
    block = (await client.get_block(slot, max_supported_transaction_version=0)).value
    assert block is not None
    assert block.block_height == slot
    assert (await client.get_block_time(slot)).value == block.block_time
    assert (await client.get_recent_performance_samples(1)).value == []


async def test_solana_py_hears_of_accounts_programs_logs_signatures_slots_and_roots(
    node: Node, client: AsyncClient
) -> None:
    payer, to = await funded(client), Pubkey.new_unique()
    tx = await pay(client, payer, to, SOL)
    expected = {
        "AccountNotification",
        "ProgramNotification",
        "LogsNotification",
        "SignatureNotification",
        "SlotNotification",
        "RootNotification",
    }
    async with connect(node.ws_url) as ws:
        await ws.account_subscribe(to, Confirmed, "base64")
        await ws.program_subscribe(SYSTEM_PROGRAM, Confirmed, "base64", filters=[0])
        await ws.logs_subscribe(commitment=Confirmed)
        await ws.signature_subscribe(tx.signatures[0], Confirmed)
        await ws.slot_subscribe()
        await ws.root_subscribe()
        heard: list[str] = []
        async with asyncio.timeout(60):
            while heard.count("SubscriptionResult") < len(expected):
                heard += [type(message).__name__ for message in await ws.recv()]
            await client.send_raw_transaction(bytes(tx), TxOpts(preflight_commitment=Confirmed))
            while not set(heard) >= expected:
                heard += [type(message).__name__ for message in await ws.recv()]


def program_at(client: AsyncClient, payer: Keypair) -> Program:
    legacy = Idl.from_json(json.dumps(idl.to_legacy(idl.built_in())))
    provider = Provider(client, Wallet(payer), TxOpts(skip_confirmation=False, preflight_commitment=Confirmed))
    return Program(legacy, idl.program_id(), provider)


def terms(program: Program, **changes: int) -> Any:
    values = {
        "fee_floor_lamports": 5_000,
        "min_deadline_slots": 5,
        "max_deadline_slots": 1_000,
        "lease_slots": 10,
        "retention_slots": 10,
        "max_body_len": 4_096,
        "max_output_cap": 256,
        "claim_required": False,
    }
    return program.type["QueueTerms"](**{**values, **changes})


async def test_anchorpy_calls_a_program_and_reads_its_accounts(client: AsyncClient) -> None:
    payer = await funded(client)
    program = program_at(client, payer)
    name = b"anchorpy".ljust(32, b"\0")
    queue = queue_address(program.program_id, payer.pubkey(), "anchorpy")
    accounts = {"queue": queue, "authority": payer.pubkey(), "system_program": SYSTEM_PROGRAM}
    signature = await program.rpc["create_queue"](list(name), terms(program), ctx=Context(accounts=accounts))
    assert (await client.get_signature_statuses([signature])).value[0] is not None
    fetched = await program.account["Queue"].fetch(queue, Confirmed)
    assert fetched.authority == payer.pubkey()
    assert fetched.terms.fee_floor_lamports == 5_000
    everything = await program.account["Queue"].all(filters=[MemcmpOpts(10, str(payer.pubkey()))])
    assert [one.public_key for one in everything] == [queue]


async def test_anchorpy_names_the_error_of_a_program(client: AsyncClient) -> None:
    payer = await funded(client)
    program = program_at(client, payer)
    queue = queue_address(program.program_id, payer.pubkey(), "refused")
    accounts = {"queue": queue, "authority": payer.pubkey(), "system_program": SYSTEM_PROGRAM}
    name = list(b"refused".ljust(32, b"\0"))
    with pytest.raises(ProgramError) as refused:
        await program.rpc["create_queue"](
            name, terms(program, min_deadline_slots=2_000), ctx=Context(accounts=accounts)
        )
    assert refused.value.code >= 6_000


@pytest.fixture(scope="session")
def node_modules(pytestconfig: pytest.Config) -> Callable[[], Any]:
    """Installs anchor from npm once, into pytest's cache; returns its folder, or skips."""

    async def install() -> Path:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            pytest.skip("node or npm is not on PATH")
        assert pytestconfig.cache is not None
        folder = pytestconfig.cache.mkdir("anchor-js")
        if not (folder / "node_modules" / "@coral-xyz" / "anchor").exists():
            command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
            process = await asyncio.create_subprocess_exec(
                *command, NPM_PACKAGE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            said, _ = await process.communicate()
            if process.returncode != 0:
                pytest.skip(f"npm cannot install {NPM_PACKAGE}: {said.decode(errors='replace')[-300:]}")
        return folder

    return install


# The slots do not wait for another process, and its blockhashes live for 150 of them.
@pytest.mark.parametrize("slot_seconds", [0.1])
async def test_anchor_for_javascript_calls_a_program_and_hears_of_it(
    node: Node, node_modules: Callable[[], Any]
) -> None:
    folder = await node_modules()
    script = Path(__file__).with_name("anchor_client.mjs")
    process = await asyncio.create_subprocess_exec(
        "node", str(script), node.rpc_url, str(resources.idl()), cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(100):
        said, _ = await process.communicate()
    assert process.returncode == 0
    seen = json.loads(said.decode().splitlines()[-1])
    assert seen["balance"] == 10 * SOL
    assert seen["event"]["queue"] == seen["changed"]["account"] == seen["queue"]
    assert seen["event"]["signature"] == seen["signature"]
    assert seen["fetched"] == {"authority": True, "floor": 5_000}
    assert seen["found"] == [seen["queue"]]
    assert seen["fee"] == 5_000
    assert seen["signers"] == 1
    assert seen["refused"] == {"name": "SendTransactionError", "logs": True}
