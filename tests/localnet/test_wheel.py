"""The built wheel, installed where the clone cannot help it: localnet, database, daemon and a question answered."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import settings_file

from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.server import serve
from oracle.localnet.ports import free_port

pytestmark = pytest.mark.localnet

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with the wheel in it. Its dependencies are those of the environment of the tests: a
    line in a .pth file adds a directory, and runs nothing in there that would lead to the clone."""
    directory = tmp_path_factory.mktemp("installed") / "env"
    venv.create(directory, with_pip=False)
    packages = sysconfig.get_path("purelib", vars={"base": str(directory)})
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(directory / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True, timeout=60)
    return directory


def environment(home: Path) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "ORACLE"))
    }
    return {**kept, "XDG_RUNTIME_DIR": str(home), "HOME": str(home)}


def oracle(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(home / "bin" / "oracle"), *arguments],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=60,
    )


@asynccontextmanager
async def started(home: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        str(home / "bin" / "oracle"),
        *arguments,
        cwd=home,
        env=environment(home),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def read_until(process: asyncio.subprocess.Process, end: str) -> str:
    """What a process prints, up to the line that holds `end`."""
    assert process.stdout is not None
    lines = []
    while line := (await asyncio.wait_for(process.stdout.readline(), 60)).decode():
        lines.append(line)
        if end in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def test_the_wheel_holds_what_an_oracle_needs_and_nothing_of_the_workshop(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"oracle", "solana_inference_oracle-0.1.0.dist-info"}
    assert {
        "oracle/_data/idl/inference_oracle.so",
        "oracle/_data/idl/inference_oracle.json",
        "oracle/_data/migrations/env.py",
        "oracle/_data/oracle.example.toml",
    } <= names
    migrations = {path.name for path in (ROOT / "migrations" / "versions").glob("*.py")}
    assert {name.rsplit("/", 1)[1] for name in names if "/migrations/versions/" in name} == migrations
    assert not [name for name in names if "__pycache__" in name or name.endswith((".sqlite", "-keypair.json", ".env"))]


def test_the_installed_package_is_not_the_clone(home: Path) -> None:
    say = "import oracle, oracle.cli.app, oracle.pipeline.daemon, sys; print(oracle.__file__)"
    say += "; print([m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'oracle'])"
    found = subprocess.run(
        [str(home / "bin" / "python"), "-c", say],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout.startswith(str(home / "lib"))
    assert f"'{ROOT / 'oracle'}" not in found.stdout


async def test_a_question_is_answered_by_what_was_installed(home: Path) -> None:
    version = await asyncio.to_thread(oracle, home, "--version")
    assert version.stdout == "oracle 0.1.0\n", version.stderr
    port, base_uri = free_port(), f"http://127.0.0.1:{free_port()}"
    localnet = ("localnet", "--json", "--port", str(port), "--slot-ms", "50", "--base-uri", base_uri)
    async with started(home, *localnet) as chain, serve(ScriptedOpenAI(words=4)) as model:
        shown = json.loads(await read_until(chain, "}"))
        config = settings_file.write(home / "oracle.toml", settings(shown, base_uri, model.url))
        upgraded = await asyncio.to_thread(oracle, home, "db", "upgrade", "-c", str(config))
        assert upgraded.returncode == 0, upgraded.stderr
        async with started(home, "run", "-c", str(config)) as daemon:
            await read_until(daemon, "daemon started")
            at = ("-u", shown["rpc"], "-k", shown["wallet"], "-q", shown["queue"])
            asked = await asyncio.to_thread(oracle, home, "submit", *at, "-m", "tiny", "--json", "Are you there?")
    assert asked.returncode == 0, asked.stderr
    answered = json.loads(asked.stdout)
    assert answered["verified"] is True
    assert answered["answer"].startswith("answer ")


def settings(shown: dict[str, str], base_uri: str, model_url: str) -> dict[str, Any]:
    return {
        "cluster": {"rpc": [shown["rpc"]]},
        "operator": {"keypair": shown["wallet"], "queues": [shown["queue"]], "base_uri": base_uri},
        "database": {"url": "sqlite:///oracle.sqlite"},
        "api": {"port": int(base_uri.rsplit(":", 1)[1])},
        "policy": {"deadline_margin_seconds": 1.0},
        "providers": {"scripted": {"kind": "openai", "base_url": f"{model_url}/v1", "free": True}},
        "models": {"tiny": {"routes": [{"provider": "scripted", "model": "tiny"}]}},
    }
