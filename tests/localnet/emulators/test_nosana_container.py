"""What the emulated containers do, and that a real shell does the same with the same script."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nosana_template as template
import orjson
import pytest

from oracle.localnet.emulators.nosana.container import ENV_STRING_BYTES, ContainerError, run_container
from oracle.localnet.emulators.nosana.results import LogLine, extract
from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.server import serve
from oracle.localnet.emulators.upstream import ModelServer
from oracle.localnet.ports import free_port

pytestmark = pytest.mark.localnet

REPOSITORY = template.REPOSITORY
needs_shell = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("sh", "curl", "base64", "sha256sum")),
    reason="needs a shell with curl and GNU coreutils",
)


@pytest.fixture
async def models(model: tuple[ScriptedOpenAI, str]) -> AsyncIterator[ModelServer]:
    server = ModelServer(model[1], {REPOSITORY: REPOSITORY})
    yield server
    await server.close()


async def run(models: ModelServer, arguments: dict[str, Any]) -> tuple[int, list[str], list[str]]:
    """Exit code, lines of stdout, lines of stderr."""
    lines: list[tuple[str, str]] = []
    code = await run_container(arguments, models, lambda kind, line: lines.append((kind, line)))
    stdout, stderr = ([line for kind, line in lines if kind == wanted] for wanted in ("stdout", "stderr"))
    return code, stdout, stderr


def arguments(body: Any = None, **more: Any) -> dict[str, Any]:
    return dict(template.inference(body=body, **more)["ops"][0]["args"])


async def run_in_a_real_shell(directory: Path, server: str, body: Any) -> tuple[int, list[str], list[str]]:
    """The same, of `/bin/sh`. `server` is the program that stands for `vllm`; the API is served beside it."""
    port = free_port()
    # The container's loopback is this machine's here: another port, other files, and shorter pauses.
    script = template.script().replace("8000", str(port)).replace("/tmp/", f"{directory}/").replace("0.2", "0.02")
    (directory / "vllm").write_text(f"#!/bin/sh\n{server}\n")
    (directory / "vllm").chmod(0o755)
    environment = {**template.environment(body), "PATH": f"{directory}:{os.environ['PATH']}"}
    api = ScriptedOpenAI(Personality.VLLM, models=(REPOSITORY,))
    api.ready = "sleep" in server
    async with serve(api, port=port):
        shell = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            script,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            # Not `communicate`: the server in the background keeps the pipes open.
            code = await asyncio.wait_for(shell.wait(), 60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        stdout, stderr = await shell.communicate()
    return code, stdout.decode().splitlines(), stderr.decode().splitlines()


@needs_shell
@pytest.mark.parametrize("body", [template.chat(), template.chat("é" * 2000), {"model": "another", "messages": []}])
async def test_a_real_shell_prints_what_the_emulator_prints(models: ModelServer, tmp_path: Path, body: Any) -> None:
    """The emulator reads the very script that a host would run; only the model server is a stand-in in both."""
    real = await run_in_a_real_shell(tmp_path, "exec sleep 60", body)
    assert real == await run(models, arguments(body))
    assert real[0] == (0 if body["model"] == REPOSITORY else 1)


@needs_shell
async def test_a_server_that_dies_ends_a_real_shell_as_it_ends_the_emulator(
    models: ModelServer, tmp_path: Path
) -> None:
    real = await run_in_a_real_shell(tmp_path, "echo 'not a valid model identifier'; exit 1", template.chat())
    unknown = {**template.environment(), "ORACLE_MODEL": "no/such-model"}
    emulated = await run(models, arguments(env=unknown))
    assert real[:2] == emulated[:2] == (70, [])
    assert "not a valid model identifier" in real[2][-1]
    assert "not a valid model identifier" in emulated[2][-1]


async def test_the_model_of_a_job_is_asked_under_the_name_the_server_has_for_it(
    model: tuple[ScriptedOpenAI, str],
) -> None:
    models = ModelServer(model[1], {REPOSITORY: "upstream-name"})
    code, stdout, _ = await run(models, arguments())
    await models.close()
    assert code == 0
    assert model[0].requests[0]["model"] == "upstream-name"
    answer = template.answer_in({"part": [line for line in stdout if "PART" in line], "end": stdout[-1:]})
    assert answer is not None
    assert orjson.loads(answer)["model"] == REPOSITORY


async def test_llama_cpp_takes_whatever_model_the_body_names(models: ModelServer) -> None:
    """openai_compatible.md §6.3."""
    server = [template.script(template.LLAMA_CPP_SERVER)]
    image = template.LLAMA_CPP_IMAGE
    code, _, _ = await run(models, arguments({"model": "x", **template.chat()}, image=image, cmd=server))
    assert code == 0


async def test_a_command_without_an_entrypoint_dies_of_the_images_own(models: ModelServer) -> None:
    """§3.3."""
    plain = arguments()
    del plain["entrypoint"]
    for command in (template.script(), ["sh", "-c", template.script()]):
        code, stdout, stderr = await run(models, {**plain, "cmd": command})
        assert (code, stdout) == (2, [])
        assert stderr[0].startswith("error: unrecognized arguments")


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        ("echo 'hello  world' again", (0, ["hello  world again"], [])),
        ("echo one\nexit 3\necho two", (3, ["one"], [])),
        (["/bin/sh", "-c", "sleep 100\ntrue\nfalse\ntrue"], (1, [], [])),
        (["python", "-c", "print('RESULT 42')"], (0, ["RESULT 42"], [])),
        (["python", "-c", 'print("a")\nraise SystemExit(4)'], (4, ["a"], [])),
        (["python", "-c", "import os"], (127, [], ["the emulator cannot execute: import os"])),
        ("rm -rf /", (127, [], ["sh: the emulator cannot execute: rm -rf /"])),
        ("echo $(id)", (127, [], ["sh: the emulator cannot execute: echo $(id)"])),
        ("base64 -w 480 /tmp/none >/tmp/x", (2, [], ["sh: 1: cannot open /tmp/none: No such file"])),
        ('printf %s "$NOTHING" | base64 -d >/tmp/x', (2, [], ["sh: 1: NOTHING: parameter not set"])),
        (
            "for i in 1; do printf '%d\\n' \"$A\"; sleep 0; done",
            (127, [], ["sh: the emulator cannot execute: printf '%d' with 1 values"]),
        ),
        ([], (0, [], [])),
    ],
)
async def test_a_plain_image_runs_what_is_documented_and_nothing_else(
    models: ModelServer, command: Any, outcome: tuple[int, list[str], list[str]]
) -> None:
    image = "docker.io/library/python:3.12-slim"
    if not command:
        with pytest.raises(ContainerError, match="executable file not found"):
            await run(models, {"image": image, "cmd": command})
        return
    assert await run(models, {"image": image, "cmd": command}) == outcome


async def test_an_unknown_image_is_not_pulled(models: ModelServer) -> None:
    """§7.5, image pull failed."""
    with pytest.raises(ContainerError, match=r"^\(HTTP code 404\) no such image$") as raised:
        await run(models, arguments(image="docker.io/example/unheard-of:latest"))
    assert raised.value.code == 404


@pytest.mark.parametrize("excess", [0, 1])
async def test_a_body_longer_than_linux_allows_never_starts(models: ModelServer, excess: int) -> None:
    environment = {**template.environment(), "FILL": "x" * (ENV_STRING_BYTES - len("FILL=\0") + excess)}
    if excess:
        with pytest.raises(ContainerError, match="argument list too long"):
            await run(models, arguments(env=environment))
    else:
        assert (await run(models, arguments(env=environment)))[0] == 0


async def test_a_body_that_is_not_base64_fails_as_base64_does(models: ModelServer) -> None:
    broken = {**template.environment(), "ORACLE_BODY": "%%%"}
    assert await run(models, arguments(env=broken)) == (1, [], ["base64: invalid input"])


async def test_a_script_waits_until_the_model_server_is_up(
    model: tuple[ScriptedOpenAI, str], models: ModelServer
) -> None:
    model[0].ready = False
    script = template.script().replace("sleep 1;", "sleep 0.01;")
    work = asyncio.create_task(run(models, arguments(cmd=[script])))
    done, _ = await asyncio.wait({work}, timeout=0.1)
    assert not done
    model[0].ready = True
    assert (await work)[0] == 0


async def test_a_model_server_that_is_too_slow_ends_curl_with_28(
    model: tuple[ScriptedOpenAI, str], models: ModelServer
) -> None:
    model[0].faults.add("hang", on="POST *")
    hurried = {**template.environment(), "ORACLE_MAX_SECONDS": "0.05"}
    assert await run(models, arguments(env=hurried)) == (28, [], ["curl: (28) Operation timed out"])


async def test_a_model_server_that_hangs_up_ends_curl_with_52(
    model: tuple[ScriptedOpenAI, str], models: ModelServer
) -> None:
    model[0].faults.add("drop", on="POST *")
    assert await run(models, arguments()) == (52, [], ["curl: (52) Empty reply from server"])


async def test_an_error_of_the_model_server_is_printed_and_fails_the_operation(
    model: tuple[ScriptedOpenAI, str], models: ModelServer
) -> None:
    model[0].faults.add("error", on="POST *", status=503)
    code, stdout, _ = await run(models, arguments())
    assert code == 1
    assert stdout[-1].split()[1] == "503"


LINES = [
    LogLine("stdout", "RESULT 42\n", ""),
    LogLine("stderr", "RESULT 43\n", ""),
    LogLine("stdout", "nothing\n", ""),
]


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        ({"regex": "^RESULT (\\S+)", "logType": ["stdout"]}, ["RESULT 42", "42"]),
        ("^RESULT \\S+", ["RESULT 42", "RESULT 43"]),
        ("^RESULT \\S+$", []),
        ("^absent", []),
        ("(?<word>RESULT) 4(3)?", ["RESULT 4", "RESULT", None, "RESULT 43", "RESULT", "3"]),
        ("[$] ?|\\$|nothing", ["nothing"]),
        ("*", ["", "", ""]),
        ("(", "SyntaxError: Invalid regular expression: /(/: missing ), unterminated subpattern"),
    ],
)
def test_results_are_taken_from_the_log_as_javascript_would(filter_: Any, found: Any) -> None:
    """§3.6: flat arrays, the whole match first; `$` does not match before the newline; `*` is rewritten to `/*`."""
    assert extract({"key": filter_}, LINES) == {"key": found}
