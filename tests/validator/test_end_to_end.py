"""The main job on a real chain: Surfpool, which runs Agave's own runtime and the full RPC."""

import asyncio
from pathlib import Path

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle import resources
from oracle.api.app import app
from oracle.api.server import serving
from oracle.chain.program import idl
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import connect
from oracle.client import requests
from oracle.client.verify import Verification, verify
from oracle.config import parse
from oracle.core.request import Body, Inline, Params, Reason, Status
from oracle.localnet import network
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.server import serve as serve_emulator
from oracle.localnet.ports import free_port
from oracle.pipeline.daemon import assembled
from oracle.testing.surfpool import Surfpool

pytestmark = pytest.mark.validator


async def test_requests_are_answered_rejected_and_expired_on_a_real_chain(
    surfpool: Surfpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    program = idl.program_id()
    surfpool.load_program(program, resources.bytecode().read_bytes())
    rpc = connect(surfpool.rpc_url)
    operator, requester = network.wallet(tmp_path / "operator.json"), Keypair()
    for key in (operator, requester):
        await funded(rpc, key.pubkey())
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    queue = await network.create_queue(rpc, program, operator, operator=operator.pubkey(), uri=uri)
    async with serve_emulator(ScriptedOpenAI(words=6)) as model:
        config = parse(
            {
                "cluster": {"rpc": [surfpool.rpc_url], "websocket": surfpool.ws_url, "scan_interval_seconds": 2.0},
                "operator": {"keypair": "operator.json", "queues": [str(queue)], "base_uri": uri},
                "api": {"port": port},
                "policy": {"deadline_margin_seconds": 0.5, "min_fee_lamports": 10_000},
                "providers": {"scripted": {"kind": "openai", "base_url": f"{model.url}/v1", "free": True}},
                "models": {"tiny": {"routes": [{"provider": "scripted", "model": "tiny"}]}},
            },
            base=tmp_path,
        )
        async with assembled(config) as daemon, serving(app(daemon.context), "127.0.0.1", port):
            task = asyncio.create_task(daemon.run())

            async def ask(model_name: str, fee_lamports: int, ttl_slots: int) -> requests.Submitted:
                return await requests.submit(
                    rpc,
                    program,
                    queue=queue,
                    requester=requester,
                    body=Body(model_name, Params(64), Inline(b"What is the capital of Japan?")),
                    fee_lamports=fee_lamports,
                    ttl_slots=ttl_slots,
                )

            answered = [await ask("tiny", 50_000, 2_000) for _ in range(3)]
            rejected = await ask("unheard-of", 50_000, 2_000)
            expired = await ask("tiny", 5_000, 40)
            for submitted in answered:
                ended = await requests.wait(rpc, submitted.address, timeout_seconds=60)
                assert ended.header.status is Status.FULFILLED
                result = await verified(rpc, program, submitted.address)
                assert result.ok, [check for check in result.checks if not check.ok]
            ended = await requests.wait(rpc, rejected.address, timeout_seconds=60)
            assert (ended.header.status, ended.header.reason) == (Status.REJECTED, Reason.MODEL_UNAVAILABLE)
            held = (await rpc.get_account(rejected.address)).value
            assert held is not None
            before = (await rpc.get_balance(requester.pubkey())).value
            await requests.close(rpc, program, ended, requester)
            assert (await rpc.get_balance(requester.pubkey())).value == before + held.lamports - 5_000
            ended = await requests.wait(rpc, expired.address, timeout_seconds=60)
            assert ended.header.status is Status.EXPIRED
            daemon.stop()
            await task
    await rpc.close()


async def funded(rpc: Client, address: Pubkey) -> None:
    await rpc.request_airdrop(address, 10_000_000_000)
    async with asyncio.timeout(60):
        while (await rpc.get_balance(address)).value == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def verified(rpc: Client, program: Pubkey, address: Pubkey) -> Verification:
    async with asyncio.timeout(60):
        while not (result := await verify(rpc, program, address)).ok:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return result
