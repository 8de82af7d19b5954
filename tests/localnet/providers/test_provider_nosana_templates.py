"""Every shipped template of a Nosana job, run by the emulator's hosts, and its script by a real shell."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from provider_jobs import ended

from oracle.core.compute import Compute, IdempotencyKey, JobState, JobStatus, Message, Output, Task
from oracle.localnet.emulators.nosana import Nosana
from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.server import serve
from oracle.providers import errors
from oracle.providers.nosana.result import completion_of
from oracle.providers.nosana.templates import built_in
from oracle.providers.registry import build

pytestmark = pytest.mark.localnet

TASK = Task("model", (Message("user", "what is six times seven?"),), max_output_tokens=32, timeout_seconds=60)
KEY = IdempotencyKey("5f0c2f8e-2a41-4f7e-9a9f-0d3c1b2a4e5f")
DEBIAN = "docker.io/library/debian:12"


def notebook(*lines: str) -> bytes:
    cells = [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": "\n".join(lines)}]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


SHOUT = notebook(
    "import json",
    'request = json.load(open("/tmp/body.json"))',
    'prompt = request["messages"][-1]["content"]',
    'open("/tmp/text", "w").write(prompt.upper())',
)


@asynccontextmanager
async def nosana(**settings: Any) -> AsyncIterator[tuple[Compute, Nosana]]:
    """The provider as the configuration makes it, and the emulator behind it."""
    async with serve(ScriptedOpenAI(Personality.VLLM)) as scripted:
        emulator = Nosana(f"{scripted.url}/v1")
        async with serve(emulator) as running:
            addresses = dict.fromkeys(("base_url", "pinning_url", "gateway_url"), running.url)
            keys = {"api_key": "nos_localnet", "pinata_jwt": "localnet-pinata"}
            compute = build("nosana", {"kind": "nosana", **addresses, **keys, **settings}, environ={})
            try:
                yield compute, emulator
            finally:
                await compute.close()


async def run(compute: Compute, task: Task) -> tuple[JobStatus, Output | None]:
    handle = await compute.submit(task, KEY)
    status = await ended(compute, handle)
    return status, await compute.fetch(handle) if status.state is JobState.SUCCEEDED else None


@pytest.mark.parametrize(
    ("template", "model"),
    [
        ("vllm", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("llamacpp", "bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0"),
        ("ollama", "smollm2:135m"),
    ],
)
async def test_a_chat_template_answers_with_its_model(template: str, model: str) -> None:
    async with nosana(template=template) as (compute, _):
        status, output = await run(compute, replace(TASK, model=model))
    assert output is not None, status
    assert output.content
    assert (output.model_run, output.finish_reason) == (model, "stop")
    assert output.output_tokens


async def test_a_plain_container_answers_with_what_its_command_prints() -> None:
    async with nosana(template="container", image=DEBIAN, command="cat | tr a-z A-Z") as (compute, _):
        status, output = await run(compute, TASK)
    assert output is not None, status
    assert (output.model_run, output.media_type) == ("model", "text/plain; charset=utf-8")
    assert b'"CONTENT":"WHAT IS SIX TIMES SEVEN?"' in output.content


async def test_a_notebook_answers_with_what_it_writes(tmp_path: Path) -> None:
    (tmp_path / "job.ipynb").write_bytes(SHOUT)
    async with nosana(template="jupyter", notebook=str(tmp_path / "job.ipynb")) as (compute, _):
        status, output = await run(compute, TASK)
    assert output is not None, status
    assert (output.content, output.model_run) == (b"WHAT IS SIX TIMES SEVEN?", "model")


async def test_a_template_of_ones_own_is_run(tmp_path: Path) -> None:
    own = dict(built_in("container", image=DEBIAN, command="echo forty two").document)
    (tmp_path / "own.json").write_text(json.dumps(own))
    async with nosana(template=str(tmp_path / "own.json")) as (compute, _):
        status, output = await run(compute, TASK)
    assert output is not None, status
    assert output.content == b"forty two\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"template": "container", "image": DEBIAN, "command": "exit 3"},
        {"template": "container", "image": DEBIAN, "command": "no-such-program"},
        {"template": "ollama"},
        {"template": "vllm"},
    ],
    ids=["exit", "unknown command", "ollama without the model", "vllm without the model"],
)
async def test_a_container_that_fails_fails_though_the_job_is_completed(settings: dict[str, str]) -> None:
    async with nosana(**settings) as (compute, emulator):
        status, _ = await run(compute, replace(TASK, model="no/such-model"))
        (job,) = emulator.books()["jobs"]
    assert job["state"] == "COMPLETED"
    assert status.state is JobState.FAILED
    assert status.error is not None
    assert status.error.error is errors.JOB_FAILED


@pytest.mark.parametrize("fault", ["loses_output", "corrupts_output", "out_of_memory", "expires", "blank_result"])
async def test_a_text_that_did_not_arrive_whole_is_no_answer(fault: str) -> None:
    async with nosana(template="container", image=DEBIAN, command="cat") as (compute, emulator):
        emulator.faults.add(fault)
        status, _ = await run(compute, TASK)
    assert status.state is JobState.FAILED


# --- the scripts in a real shell ---

needs_tools = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("bash", "base64", "sha256sum", "timeout")),
    reason="needs bash and GNU coreutils",
)


async def in_a_real_shell(
    directory: Path, args: dict[str, Any], port: int = 0, **tools: str
) -> tuple[int, dict[str, Any]]:
    """Exit code, and the result document that a host would make of what the script printed. `tools` are stand-ins."""
    for name, text in {"sleep": "exit 0", **tools}.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    script = args["cmd"][0].replace("/tmp/", f"{directory}/").replace("8000", str(port))
    body = base64.b64encode(b'{"model": "model", "messages": [{"role": "user", "content": "hi"}]}').decode()
    env = {
        **args["env"],
        "PATH": f"{directory}:/usr/bin:/bin",
        "ORACLE_MODEL": "model",
        "ORACLE_BODY": body,
        "ORACLE_MAX_SECONDS": "60",
    }
    shell = await asyncio.create_subprocess_exec(
        args["entrypoint"][0],
        "-c",
        script,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = await asyncio.wait_for(shell.wait(), 60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    stdout, _ = await shell.communicate()
    logs = [{"type": "stdout", "log": line + "\n"} for line in stdout.decode().splitlines()]
    status = "success" if code == 0 else "failed"
    operation = {"operationId": "inference", "status": status, "exitCode": code, "logs": logs, "results": {}}
    return code, {"status": "success", "opStates": [operation]}


def args_of(template: Any) -> dict[str, Any]:
    return dict(template.document["ops"][0]["args"])


@needs_tools
async def test_a_real_shell_runs_the_command_of_a_plain_container(tmp_path: Path) -> None:
    args = args_of(built_in("container", image=DEBIAN, command="wc -c; echo 'é'"))
    code, found = await in_a_real_shell(tmp_path, args)
    assert code == 0
    completion = completion_of(found)
    assert (completion.text, completion.model) == ("67\né\n", "model")


@needs_tools
async def test_a_real_shell_ends_as_badly_as_its_command(tmp_path: Path) -> None:
    code, _ = await in_a_real_shell(tmp_path, args_of(built_in("container", image=DEBIAN, command="exit 3")))
    assert code == 72


@needs_tools
async def test_a_real_shell_executes_the_notebook_it_was_given(tmp_path: Path) -> None:
    jupyter = f'cat "$8" >{tmp_path}/text'
    code, found = await in_a_real_shell(tmp_path, args_of(built_in("jupyter", notebook=SHOUT)), jupyter=jupyter)
    assert code == 0
    # The stand-in for jupyter "executes" the notebook by printing it: the eighth word is its path.
    assert completion_of(found).text.encode() == SHOUT


@needs_tools
async def test_bash_speaks_to_ollama_without_curl(tmp_path: Path) -> None:
    api = ScriptedOpenAI(Personality.VLLM, models=("model",))
    async with serve(api) as running:
        port = int(running.url.rpartition(":")[2])
        ollama = 'case "$1" in serve) exec "$(command -v -p sleep)" 30;; esac'
        code, found = await in_a_real_shell(tmp_path, args_of(built_in("ollama")), port, ollama=ollama)
    assert code == 0
    completion = completion_of(found)
    assert completion.text
    assert completion.model == "model"
    assert [request["messages"] for request in api.requests] == [[{"role": "user", "content": "hi"}]]
