"""`oracle demo`: the whole oracle on this machine, six requests through it, and every result checked.

Real: the program's bytecode, the language model, the daemon (a process of its own), the database, every socket.
Emulated, because nobody can reach them from here: Nosana and io.net, which run the jobs on the same model.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain.program import idl
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import connect
from oracle.cli.output import JsonOption, console, lamports, print_json, short
from oracle.client import requests, verify
from oracle.client.requests import Submitted
from oracle.core.errors import ErrorCode
from oracle.core.lifecycle import ENDED, State
from oracle.core.request import Body, Inline, Params, Reason, Request, Status
from oracle.localnet import network
from oracle.localnet.emulators.ionet import IoNet
from oracle.localnet.emulators.nosana import JobFault, Nosana, Timings
from oracle.localnet.emulators.server import serve as serve_emulator
from oracle.localnet.network import LOCAL_TERMS
from oracle.model.server import LocalModel
from oracle.model.weights import default_directory, ensure_weights
from oracle.store import attempts, migrate
from oracle.store import requests as rows
from oracle.store.engine import Store

SLOT_SECONDS = 0.2
FUNDS_LAMPORTS = 10_000_000_000
FEE_LAMPORTS = 100_000
PATIENCE_SECONDS = 100.0

DEMO_FAILED = ErrorCode(
    "ORC-CLI-003",
    "The demo's daemon did not start",
    "The daemon ended, or did not become ready in time.",
    "See its log, which is shown; `oracle demo --keep DIR` keeps all files.",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One request, and how it must end."""

    title: str
    model: str
    prompt: str
    fact: str
    end: Status
    provider: str | None = None
    fee_lamports: int = FEE_LAMPORTS
    ttl_slots: int = 1_500


SCENES = (
    Scene("on Nosana", "smollm2", "What is the capital city of Japan?", "Tokyo", Status.FULFILLED, "nosana"),
    Scene("on io.net", "smollm2-ionet", "What is 2 times 3?", "6", Status.FULFILLED, "ionet"),
    Scene("on this machine", "smollm2-local", "What is the opposite of big?", "small", Status.FULFILLED, "local"),
    Scene("by the fallback", "smollm2-fallback", "What is the plural of mouse?", "mice", Status.FULFILLED, "ionet"),
    Scene("by nobody", "smollm2-nobody", "What is the chemical symbol for water?", "", Status.REJECTED),
    Scene("left to expire", "smollm2", "Calculate 10 + 10.", "", Status.EXPIRED, None, 5_000, 60),
)


@dataclass(slots=True)
class Take:
    """A scene that runs: what was submitted, what has come of it."""

    scene: Scene
    submitted: Submitted
    began: float
    state: str = "submitted"
    route: str = ""
    seconds: float | None = None
    ended: Request | None = None
    answer: str = ""
    verified: bool = False
    hash_recomputed: str = ""
    fee_paid_lamports: int | None = None
    problems: list[str] = field(default_factory=list)


def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep chain, database and log in this directory.")] = None,
    json: JsonOption = False,
) -> None:
    """Run six requests through a complete oracle on this machine, and check every result."""
    weights = fetch_weights()
    with tempfile.TemporaryDirectory(prefix="oracle-demo-") as scratch:
        directory = keep or Path(scratch)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        takes = asyncio.run(_demo(directory.absolute(), weights, json))
    if json:
        print_json([as_json(take) for take in takes])
    else:
        console.print()
        console.print(results(takes))
        for take in takes:
            for problem in take.problems:
                console.print(Text(f"{take.scene.title}: {problem}", style="bold red"))
    if any(take.problems for take in takes):
        raise typer.Exit(1)
    if not json:
        console.print(f"\nAll {len(takes)} requests ended as they should.", style="bold green")


def fetch_weights() -> Path:
    """The model's weights, with a bar while they are downloaded for the first time."""
    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), transient=True) as progress:
        task = progress.add_task("model weights", total=None)
        return ensure_weights(
            default_directory(), on_progress=lambda done, total: progress.update(task, completed=done, total=total)
        )


async def _demo(directory: Path, weights: Path, json: bool) -> list[Take]:
    async with staged(directory, weights, json) as stage:
        takes = [await submit(stage, scene) for scene in SCENES]
        store = await Store.open(stage.database)
        try:
            await follow(stage, store, takes, json)
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
        timings = Timings(queue_seconds=0.5) if "queue_seconds" in Timings.__dataclass_fields__ else Timings()
        nosana = await stack.enter_async_context(serve_emulator(Nosana(model.base_url, timings=timings)))
        broken = Nosana(model.base_url, timings=timings)
        broken.faults.add(JobFault.FAIL, count=None)
        flaky = await stack.enter_async_context(serve_emulator(broken))
        ionet = await stack.enter_async_context(serve_emulator(IoNet(model.base_url)))
        say("emulators", f"Nosana {nosana.url}, a failing Nosana {flaky.url}, io.net {ionet.url}")

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
                local=model.base_url,
            )
        )
        database = f"sqlite:///{directory / 'oracle.sqlite'}"
        await asyncio.to_thread(migrate.upgrade, database)
        process = await stack.enter_async_context(daemon(config, directory / "daemon.log", base_uri))
        say("daemon", f"process {process.pid}, outputs at {base_uri}")
        yield Stage(rpc, idl.program_id(), queue, requester, database, base_uri)


@asynccontextmanager
async def daemon(config: Path, log: Path, base_uri: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """`oracle run` as a process of its own, until the block ends; then SIGTERM, as systemd would."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "oracle", "run", "--config", str(config)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "XDG_RUNTIME_DIR": str(config.parent)},
        )
    try:
        await ready(process, base_uri, log)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, 30)
        except subprocess.TimeoutExpired:
            process.kill()


async def ready(process: subprocess.Popen[bytes], base_uri: str, log: Path) -> None:
    until = time.monotonic() + 30
    async with httpx.AsyncClient() as http:
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get(f"{base_uri}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise DEMO_FAILED("\n" + log.read_text()[-3_000:])


async def submit(stage: Stage, scene: Scene) -> Take:
    submitted = await requests.submit(
        stage.rpc,
        stage.program_id,
        queue=stage.queue,
        requester=stage.requester,
        body=Body(scene.model, Params(48, seed=1), Inline(scene.prompt.encode())),
        fee_lamports=scene.fee_lamports,
        ttl_slots=scene.ttl_slots,
    )
    return Take(scene, submitted, time.monotonic())


async def follow(stage: Stage, store: Store, takes: list[Take], json: bool) -> None:
    """Until every request has ended: what the daemon's own database says, shown as it changes."""
    until = time.monotonic() + PATIENCE_SECONDS
    with Live(progress(takes), console=console, refresh_per_second=8, transient=True, screen=False) as live:
        if json:
            live.stop()
        while time.monotonic() < until and any(take.seconds is None for take in takes):
            for take in takes:
                await look(store, take)
            live.update(progress(takes))
            await asyncio.sleep(0.1)


async def look(store: Store, take: Take) -> None:
    address = str(take.submitted.address)
    row = await store.read(lambda c: rows.latest(c, address))
    if row is None or take.seconds is not None:
        return
    jobs = await store.read(lambda c: attempts.of(c, row.id))
    take.state = row.state
    take.route = " → ".join(f"{job.provider} {'✗' if job.state == 'failed' else ''}".strip() for job in jobs)
    if row.state in ENDED:
        take.seconds = time.monotonic() - take.began


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
        take.hash_recomputed = verify.hash_of(result.output or b"").hex()
        take.problems += [f"{check.name}: {check.detail}" for check in result.checks if not check.ok]
        if scene.fact not in take.answer:
            take.problems.append(f"the answer {take.answer!r} lacks {scene.fact!r}")
        if scene.provider != result.receipt.get("provider"):
            take.problems.append(f"answered by {result.receipt.get('provider')}, expected {scene.provider}")
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


def progress(takes: list[Take]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("request", "scene", "state", "route"):
        table.add_column(column)
    for take in takes:
        style = "green" if take.state in (State.SETTLED,) else "yellow" if take.state in ENDED else "cyan"
        table.add_row(
            short(str(take.submitted.address)), take.scene.title, Text(take.state, style=style), take.route or "-"
        )
    return table


def results(takes: list[Take]) -> Table:
    """The table at the end: one row a request."""
    table = Table(title="What became of the requests", title_justify="left", show_lines=True, header_style="bold")
    for column in (
        "request",
        "route",
        "answer",
        "on chain",
        "output hash, on chain = recomputed",
        "fee paid",
        "seconds",
    ):
        table.add_column(column, overflow="fold", justify="right" if column in ("fee paid", "seconds") else "left")
    for take in takes:
        assert take.ended is not None
        header = take.ended.header
        status = header.status.name.lower()
        if header.status is Status.REJECTED and header.reason in set(Reason):
            status += f"\n{Reason(header.reason).name.lower()}"
        if header.status is not Status.FULFILLED:
            status += "\nrefunded" if not take.problems else ""
        on_chain = header.output_hash.hex()
        equal = "=" if on_chain == take.hash_recomputed else "≠"
        table.add_row(
            f"{short(str(take.ended.address))}\n{take.scene.title}",
            take.route or "-",
            take.answer or "-",
            Text(status, style="green" if not take.problems else "bold red"),
            f"{on_chain[:16]}… {equal} {take.hash_recomputed[:16]}…" if take.hash_recomputed else "-",
            lamports(take.fee_paid_lamports),
            f"{take.seconds:.1f}" if take.seconds is not None else "-",
        )
    return table


def as_json(take: Take) -> dict[str, object]:
    assert take.ended is not None
    header = take.ended.header
    return {
        "request": str(take.ended.address),
        "scene": take.scene.title,
        "route": take.route,
        "answer": take.answer or None,
        "status": header.status.name.lower(),
        "reason": header.reason,
        "output_hash_on_chain": header.output_hash.hex(),
        "output_hash_recomputed": take.hash_recomputed or None,
        "verified": take.verified,
        "fee_paid_lamports": take.fee_paid_lamports,
        "seconds": take.seconds,
        "problems": take.problems,
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


CONFIG = """\
[cluster]
rpc = ["{rpc}"]
scan_interval_seconds = 5.0

[operator]
keypair = "operator.json"
queues = ["{queue}"]
base_uri = "{base_uri}"

[database]
url = "sqlite:///oracle.sqlite"

[api]
port = {port}

[rates]
sol_usd = 150
nos_usd = 0.5

[policy]
min_fee_lamports = 10_000
deadline_margin_seconds = 2.0
check_fee = false

[providers.nosana]
kind = "nosana"
base_url = "{nosana}"

[providers.flaky]
kind = "nosana"
base_url = "{flaky}"

[providers.ionet]
kind = "ionet"
base_url = "{ionet}"

[providers.local]
kind = "openai"
base_url = "{local}"
free = true

[models.smollm2]
routes = [{{ provider = "nosana", model = "SmolLM2" }}]
"""
