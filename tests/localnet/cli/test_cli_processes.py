"""The script itself, as a process of its own: localnet, daemon, signals, pipes, completion."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import settings_file
from command import oracle
from pipeline_world import World, until

from oracle.chain.rpc.pool import connect
from oracle.client.requests import Pubkey, read_queue
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.server import serve
from oracle.localnet.ports import free_port
from oracle.testing.daemon import running_daemon

pytestmark = pytest.mark.localnet

COMMANDS = (
    "demo",
    "localnet",
    "emulate",
    "run",
    "gateway",
    "submit",
    "list",
    "inspect",
    "verify",
    "close",
    "doctor",
    "queue",
)
ORACLE = (sys.executable, "-m", "oracle")


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ORACLE, *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    # As in a plain shell: a pipe is buffered there, unless the command takes care.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = await asyncio.create_subprocess_exec(*ORACLE, *arguments, stdout=pipe, stderr=pipe, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def document(process: asyncio.subprocess.Process) -> dict[str, str]:
    """The first JSON document that a process prints."""
    assert process.stdout is not None
    text = ""
    while line := (await asyncio.wait_for(process.stdout.readline(), 40)).decode():
        text += line
        if line == "}\n":
            return dict(json.loads(text))
    assert process.stderr is not None
    raise AssertionError((await process.stderr.read()).decode())


def test_the_script_shows_its_version_and_what_it_can_do() -> None:
    version = script("--version")
    assert (version.returncode, version.stdout) == (0, "oracle 0.1.0\n")
    helped = script("--help", COLUMNS="120")
    assert helped.returncode == 0
    for command in [
        "demo",
        "localnet",
        "run",
        "submit",
        "list",
        "inspect",
        "verify",
        "close",
        "doctor",
        "queue",
        "config",
        "db",
    ]:
        assert f" {command} " in helped.stdout


def test_wrong_usage_and_coded_errors_have_their_own_exit_status(tmp_path: Path) -> None:
    assert script("nonsense").returncode == 2
    wrong = script("config", "check", "-c", str(tmp_path / "none.toml"))
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("ORC-CONFIG-001  No configuration file\n")
    assert "\x1b" not in wrong.stderr
    as_json = script("config", "check", "-c", str(tmp_path / "none.toml"), "--json")
    assert json.loads(as_json.stderr)["code"] == "ORC-CONFIG-001"


def test_completion_is_shown_and_installed(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    installed = script("--install-completion", "bash", **environment)
    assert installed.returncode == 0, installed.stderr
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_ORACLE_COMPLETE=complete_bash" in text for text in written)
    for shell in ("zsh", "fish"):
        shown = script("--show-completion", shell, **environment)
        assert shown.returncode == 0, shown.stderr
        assert f"_ORACLE_COMPLETE=complete_{shell}" in shown.stdout


def test_the_shell_is_given_commands_and_options() -> None:
    asked = {"_ORACLE_COMPLETE": "complete_bash"}
    commands = script(COMP_WORDS="oracle co", COMP_CWORD="1", **asked)
    assert "config" in commands.stdout.split()
    options = script(COMP_WORDS="oracle submit --pri", COMP_CWORD="2", **asked)
    assert {"--private", "--priority"} <= set(options.stdout.split())
    states = script(COMP_WORDS="oracle list --state set", COMP_CWORD="3", **asked)
    assert {"settling", "settled"} <= set(states.stdout.split())


def test_a_reader_that_goes_away_is_no_error() -> None:
    piped = subprocess.run(
        f"{' '.join(ORACLE)} --help | head -1 >/dev/null; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in piped.stderr
    assert piped.stdout.strip() in ("0", "1")


async def test_a_localnet_has_a_queue_and_a_wallet_with_money_and_stops_when_told(tmp_path: Path) -> None:
    port = free_port()
    async with started("localnet", "--json", "--port", str(port), "--slot-ms", "50") as process:
        shown = await document(process)
        assert shown["rpc"] == f"http://127.0.0.1:{port}"
        assert stat.S_IMODE(os.stat(shown["wallet"]).st_mode) == 0o600
        rpc = connect(shown["rpc"])
        try:
            queue = await read_queue(rpc, Pubkey.from_string(shown["program"]), Pubkey.from_string(shown["queue"]))
            assert (queue.name, str(queue.authority)) == ("localnet", shown["address"])
            assert (await rpc.get_balance(Pubkey.from_string(shown["address"]))).value > 1_000_000_000
        finally:
            await rpc.close()
        taken = await asyncio.to_thread(script, "localnet", "--port", str(port))
        assert taken.returncode == 1
        assert taken.stderr.startswith("ORC-"), taken.stderr
        process.send_signal(signal.SIGTERM)
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err) == (0, b"")
    assert await asyncio.to_thread(Path(shown["wallet"]).exists) is False


async def test_a_localnet_that_is_kept_goes_on_where_it_stopped(tmp_path: Path) -> None:
    kept, slots = [], [5]
    for number in (signal.SIGINT, signal.SIGTERM):
        arguments = ("localnet", "--json", "--port", str(free_port()), "--slot-ms", "20", "--state", str(tmp_path))
        async with started(*arguments) as process:
            kept.append(await document(process))
            slots.append(await slot_from(kept[-1]["rpc"], slots[-1] + 1))
            process.send_signal(number)
            _, err = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, err) == (0, b"")
    assert kept[0]["queue"] == kept[1]["queue"]
    assert kept[0]["address"] == kept[1]["address"]
    assert slots == sorted(slots)


async def slot_from(url: str, least: int) -> int:
    """The first slot that is seen of a chain from `least` on; at once, where it goes on from there."""
    rpc = connect(url)

    async def look() -> int | None:
        slot = await rpc.get_slot()
        return slot if slot >= least else None

    try:
        return await until(look, f"slot {least}")
    finally:
        await rpc.close()


async def test_what_localnet_prints_can_be_pasted(tmp_path: Path) -> None:
    """From nothing to a verified answer, by the lines that are shown. Only the model is a scripted one."""
    base_uri, path = f"http://127.0.0.1:{free_port()}", tmp_path / "oracle.toml"
    shown = (
        "localnet",
        "--port",
        str(free_port()),
        "--slot-ms",
        "50",
        "--base-uri",
        base_uri,
        "--state",
        str(tmp_path),
    )
    async with started(*shown) as process, serve(ScriptedOpenAI(words=4)) as model:
        assert process.stdout is not None
        lines = [""]
        while "Ctrl-C" not in lines[-1]:
            lines.append((await asyncio.wait_for(process.stdout.readline(), 40)).decode())
        init, _, serve_it = next(line for line in lines if "config init" in line).strip().partition(" && ")
        ask = shlex.split(next(line for line in lines if "oracle submit" in line))
        assert serve_it == "oracle run"
        written = await oracle(*shlex.split(init)[1:3], path, *shlex.split(init)[3:])
        assert written.status == 0, written.err
        scripted = f'kind = "openai"\nbase_url = "{model.url}/v1"\nfree = true'
        text = path.read_text().replace('kind = "local"', scripted).replace("http://127.0.0.1:8787", base_uri)
        path.write_text(f"{text}\n[api]\nport = {base_uri.rsplit(':', 1)[1]}\n[policy]\ndeadline_margin_seconds = 1\n")
        async with running_daemon(path, base_uri, tmp_path / "daemon.log", {"XDG_RUNTIME_DIR": str(tmp_path)}):
            asked = await oracle(*ask[1:])
    assert asked.status == 0, asked.err
    assert asked.out.startswith("answer ")


async def test_a_second_daemon_with_the_same_database_or_key_is_refused(world: World, config: str) -> None:
    environment = {"XDG_RUNTIME_DIR": str(world.directory)}
    base_uri = world.settings["operator"]["base_uri"]
    async with running_daemon(Path(config), base_uri, world.directory / "daemon.log", environment) as daemon:
        again = await asyncio.to_thread(script, "run", "-c", config, **environment)
        assert again.returncode == 1
        assert again.stderr.startswith("ORC-STORE-021")
        assert f"process {daemon.pid}" in again.stderr
        other = {**world.settings, "database": {"url": "sqlite:///other.sqlite"}}
        elsewhere = settings_file.write(world.directory / "other.toml", other)
        same_key = await asyncio.to_thread(script, "run", "-c", str(elsewhere), **environment)
        assert same_key.returncode == 1
        assert same_key.stderr.startswith("ORC-STORE-021")
        assert daemon.alive


async def test_a_daemon_that_cannot_start_says_why(world: World) -> None:
    environment = {"XDG_RUNTIME_DIR": str(world.directory)}
    cases = [
        ({"operator": {**world.settings["operator"], "keypair": "none.json"}}, "ORC-SIGNER-001"),
        ({"api": {"port": world.node.port}}, "ORC-API-001"),
    ]
    for change, code in cases:
        path = settings_file.write(world.directory / "broken.toml", {**world.settings, **change})
        ran = await asyncio.to_thread(script, "run", "-c", str(path), **environment)
        assert ran.returncode == 1
        assert code in ran.stderr, ran.stderr
        assert "Traceback" not in ran.stderr


async def test_somebody_who_is_tired_of_waiting_leaves_and_the_request_goes_on(
    world: World, at: tuple[str, ...]
) -> None:
    async with started("submit", *at, "-q", str(world.queue), "-m", "tiny", "Are you there?") as process:
        assert process.stderr is not None
        address = (await asyncio.wait_for(process.stderr.readline(), 40)).split()[1].rstrip(b",").decode()

        async def on_chain() -> bool:
            return (await world.rpc.get_account(Pubkey.from_string(address))).value is not None

        await until(on_chain, "the request on chain")
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
