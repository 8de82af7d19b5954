"""Sets the demo's stage, lets its requests run, and judges every one by the chain."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.live import Live
from rich.text import Text
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain.program import idl
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import connect
from oracle.cli.demo_scenes import SCENES, Scene, Take
from oracle.cli.demo_table import as_json, progress, results
from oracle.cli.output import console, print_json
from oracle.cli.weights import fetch_weights
from oracle.client import requests, verify
from oracle.core import dataquery
from oracle.core.lifecycle import ENDED
from oracle.core.request import Body, Data, Inline, Input, Params, Status
from oracle.localnet import network
from oracle.localnet.emulators.beemaps import Beemaps, MapKey
from oracle.localnet.emulators.ionet import ApiKey, Ionet
from oracle.localnet.emulators.nosana import Account, Nosana, Timings
from oracle.localnet.emulators.nosana.emulator import PIN_TOKEN
from oracle.localnet.emulators.server import serve as serve_emulator
from oracle.localnet.network import LOCAL_TERMS
from oracle.localnet.ports import free_port
from oracle.model.server import LocalModel
from oracle.store import attempts, migrate
from oracle.store import requests as rows
from oracle.store.engine import Store
from oracle.testing.daemon import running_daemon

SLOT_SECONDS = 0.2
FUNDS_LAMPORTS = 10_000_000_000
PATIENCE_SECONDS = 100.0
REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"


def perform(keep: Path | None, json: bool) -> bool:
    """The whole demo; whether every request ended as it should."""
    weights = fetch_weights()
    with tempfile.TemporaryDirectory(prefix="oracle-demo-") as scratch:
        directory = keep or Path(scratch)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        takes = asyncio.run(play(directory.absolute(), weights, json))
    ok = not any(take.problems for take in takes)
    if json:
        print_json([as_json(take) for take in takes])
        return ok
    console.print()
    console.print(results(takes))
    for take in takes:
        if take.input_origin is not None:
            console.print(
                f"{take.scene.title}: input {take.input_hash[:8]}…, from {take.input_origin}, says its receipt."
            )
    for take in takes:
        for problem in take.problems:
            console.print(Text(f"{take.scene.title}: {problem}", style="bold red"))
    if ok:
        console.print(f"\nAll {len(takes)} requests ended as they should.", style="bold green")
    return ok


async def play(directory: Path, weights: Path, json: bool) -> list[Take]:
    async with staged(directory, weights, json) as stage:
        takes = [await submit(stage, scene) for scene in SCENES]
        store = await Store.open(stage.database)
        try:
            await follow(store, takes, json)
        finally:
            await store.close()
        for take in takes:
            await judge(stage, take)
    return takes


@dataclass(frozen=True, slots=True)
class Stage:
    rpc: Client
    program_id: Pubkey
    queue: Pubkey
    requester: Keypair
    database: str
    base_uri: str


@asynccontextmanager
async def staged(directory: Path, weights: Path, json: bool) -> AsyncIterator[Stage]:
    """Chain, model, emulators and daemon, all up; torn down in reverse."""

    def say(what: str, where: str) -> None:
        if not json:
            console.print(Text.assemble((f"  {what:<10} ", "bold"), where))

    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(
            network.running(slot_seconds=SLOT_SECONDS, directory=directory / "chain")
        )
        say("chain", f"{node.rpc_url}, program {idl.program_id()}")
        model = await stack.enter_async_context(LocalModel(weights))
        say("model", f"{model.model_id} on {model.base_url}")
        timings = Timings(queue_seconds=1.0, start_seconds=0.5)
        nosana = await stack.enter_async_context(serve_emulator(Nosana(model.base_url, timings=timings)))
        broken = Nosana(model.base_url, timings=timings)
        broken.faults.add("image_missing", count=None)
        flaky = await stack.enter_async_context(serve_emulator(broken))
        ionet = await stack.enter_async_context(serve_emulator(Ionet(model.base_url)))
        beemaps = await stack.enter_async_context(serve_emulator(Beemaps()))
        say("emulators", f"Nosana {nosana.url}, a failing Nosana {flaky.url},")
        say("", f"io.net {ionet.url}, Bee Maps {beemaps.url}")

        rpc = connect(node.rpc_url)
        stack.push_async_callback(rpc.close)
        operator, requester = network.wallet(directory / "operator.json"), network.wallet(directory / "requester.json")
        for key in (operator, requester):
            await network.fund(node, key.pubkey(), FUNDS_LAMPORTS)
        base_uri = f"http://127.0.0.1:{free_port()}"
        queue = await network.create_queue(
            rpc, idl.program_id(), operator, operator=operator.pubkey(), uri=base_uri, terms=LOCAL_TERMS
        )
        say("queue", str(queue))
        config = directory / "oracle.toml"
        config.write_text(
            CONFIG.format(
                rpc=node.rpc_url,
                queue=queue,
                base_uri=base_uri,
                port=base_uri.rsplit(":", 1)[1],
                nosana=nosana.url,
                flaky=flaky.url,
                ionet=ionet.url,
                beemaps=beemaps.url,
                beemaps_key=MapKey().value,
                nosana_key=Account().api_key,
                pinata_jwt=PIN_TOKEN,
                ionet_key=ApiKey().value,
                repository=REPOSITORY,
            )
        )
        database = f"sqlite:///{directory / 'oracle.sqlite'}"
        await asyncio.to_thread(migrate.upgrade, database)
        daemon = await stack.enter_async_context(
            running_daemon(config, base_uri, directory / "daemon.log", {"XDG_RUNTIME_DIR": str(directory)})
        )
        say("daemon", f"process {daemon.pid}, outputs at {base_uri}")
        yield Stage(rpc, idl.program_id(), queue, requester, database, base_uri)


async def submit(stage: Stage, scene: Scene) -> Take:
    submitted = await requests.submit(
        stage.rpc,
        stage.program_id,
        queue=stage.queue,
        requester=stage.requester,
        body=Body(scene.model, Params(48, seed=1), input_of(scene.prompt)),
        fee_lamports=scene.fee_lamports,
        ttl_slots=scene.ttl_slots,
    )
    return Take(scene, submitted, time.monotonic())


def input_of(prompt: str) -> Input:
    content = prompt.encode()
    if prompt.startswith(dataquery.SCHEME):
        return Data(prompt, hashlib.sha256(content).digest())
    return Inline(content)


async def follow(store: Store, takes: list[Take], json: bool) -> None:
    """Until every request has ended: what the daemon's own database says, shown as it changes.

    A terminal gets a table that moves, a pipe a line a change.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    with ExitStack() as stack:
        live = None
        if console.is_terminal and not json:
            live = stack.enter_context(Live(progress(takes), console=console, refresh_per_second=8, transient=True))
        while time.monotonic() < until and any(take.seconds is None for take in takes):
            for take in takes:
                if await look(store, take) and live is None and not json:
                    console.print(f"  {time.monotonic() - take.began:5.1f} s  {take.scene.title:<13} {take.state}")
            if live is not None:
                live.update(progress(takes))
            await asyncio.sleep(0.1)


async def look(store: Store, take: Take) -> bool:
    """Whether the daemon's database says something new."""
    address = str(take.submitted.address)
    row = await store.read(lambda c: rows.latest(c, address))
    if row is None or take.seconds is not None:
        return False
    before = take.state
    jobs = await store.read(lambda c: attempts.of(c, row.id))
    take.state = row.state
    take.route = " → ".join(f"{job.provider} {'✗' if job.state == 'failed' else ''}".strip() for job in jobs)
    if row.state in ENDED:
        take.seconds = time.monotonic() - take.began
    return take.state != before


async def judge(stage: Stage, take: Take) -> None:
    """What the chain says, against what the scene promised; then the requester takes back what is left."""
    scene = take.scene
    take.ended = await requests.read(stage.rpc, take.submitted.address)
    header = take.ended.header
    take.fee_paid_lamports = header.fee_lamports if header.status is Status.FULFILLED else 0
    if take.seconds is None:
        take.problems.append(f"still {take.state} after {PATIENCE_SECONDS:.0f} s")
        return
    if header.status is not scene.end:
        take.problems.append(f"ended {header.status.name.lower()}, expected {scene.end.name.lower()}")
    if header.status is Status.FULFILLED:
        result = await verify.verify(stage.rpc, stage.program_id, take.submitted.address)
        take.verified = result.ok
        take.answer = (result.output or b"").decode(errors="replace")
        take.hash_recomputed = hashlib.sha256(result.output or b"").hexdigest()
        take.input_hash = str(result.receipt.get("input_hash"))
        take.input_origin = result.receipt.get("input_origin")
        take.problems += [f"{check.name}: {check.detail}" for check in result.checks if not check.ok]
        if scene.fact not in take.answer:
            take.problems.append(f"the answer {take.answer!r} lacks {scene.fact!r}")
        if scene.provider != result.receipt.get("provider"):
            take.problems.append(f"answered by {result.receipt.get('provider')}, expected {scene.provider}")
        if (take.input_origin is None) == scene.prompt.startswith(dataquery.SCHEME):
            take.problems.append(f"the receipt says that the input came from {take.input_origin}")
        if take.hash_recomputed != header.output_hash.hex():
            take.problems.append("the hash on chain is not that of the answer")
    await refunded(stage, take)


async def refunded(stage: Stage, take: Take) -> None:
    """Closing returns rent, and the fee where no result came: to the lamport, less the transaction's own fee."""
    assert take.ended is not None
    account = (await stage.rpc.get_account(take.submitted.address)).value
    before = (await stage.rpc.get_balance(stage.requester.pubkey())).value
    await requests.close(stage.rpc, stage.program_id, take.ended, stage.requester)
    after = (await stage.rpc.get_balance(stage.requester.pubkey())).value
    held = account.lamports if account else 0
    if after - before != held - 5_000:
        take.problems.append(f"got {after - before} lamports back, expected {held - 5_000}")
    if take.ended.header.status is not Status.FULFILLED and held < take.scene.fee_lamports:
        take.problems.append("the fee was not there to be refunded")


CONFIG = """\
[cluster]
rpc = ["{rpc}"]
scan_interval_seconds = 5.0

[operator]
keypair = "operator.json"
queues = ["{queue}"]
base_uri = "{base_uri}"

[api]
port = {port}

[rates]
sol_usd = 150
nos_usd = 0.5

[policy]
min_fee_lamports = 10_000
deadline_margin_seconds = 2.0

[providers.nosana]
kind = "nosana"
base_url = "{nosana}"
pinning_url = "{nosana}"
gateway_url = "{nosana}"
api_key = "{nosana_key}"
pinata_jwt = "{pinata_jwt}"

[providers.flaky]
kind = "nosana"
base_url = "{flaky}"
pinning_url = "{flaky}"
gateway_url = "{flaky}"
api_key = "{nosana_key}"
pinata_jwt = "{pinata_jwt}"

[providers.ionet]
kind = "ionet"
base_url = "{ionet}/api/v1"
api_key = "{ionet_key}"

[providers.local]
kind = "local"

[sources.beemaps]
kind = "beemaps"
base_url = "{beemaps}/api/developer"
api_key = "{beemaps_key}"

[models.smollm2]
routes = [{{ provider = "nosana", model = "{repository}" }}]

[models.smollm2-ionet]
routes = [{{ provider = "ionet", model = "{repository}" }}]

[models.smollm2-local]
routes = [{{ provider = "local", model = "SmolLM2-135M-Instruct" }}]

[models.smollm2-fallback]
routes = [
  {{ provider = "flaky", model = "{repository}", max_attempts = 1 }},
  {{ provider = "ionet", model = "{repository}" }},
]

[models.smollm2-nobody]
routes = [{{ provider = "flaky", model = "{repository}", max_attempts = 1 }}]
"""
