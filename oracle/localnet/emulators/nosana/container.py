"""Executes the containers that the emulator knows: a documented subset of images and commands, read, never run.

| image | what it can do |
|---|---|
| `docker.io/vllm/vllm-openai[:tag]` | the script of `script`, with `vllm serve` as its model server |
| `ghcr.io/ggml-org/llama.cpp:server[-cuda]…` | the same, with `/app/llama-server -hf` |
| `docker.io/ollama/ollama[:tag]` | the same, with `ollama serve` and `ollama pull` |
| `docker.io/nosana/pytorch-jupyter[:tag]` | `jupyter nbconvert --execute` of the notebooks of `programs` |
| `docker.io/library/` python, busybox, debian, ubuntu | `echo`, `sleep`, `exit`, `true`; the commands of `programs` |

A real host would run the same commands with the same result; any other image fails as one that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oracle.localnet.emulators.nosana.script import run_script
from oracle.localnet.emulators.nosana.shell import Log, Serve, Shell
from oracle.localnet.emulators.upstream import ModelServer

ENV_STRING_BYTES = 131_072
"""Linux's MAX_ARG_STRLEN: one `NAME=value` with its final zero byte must fit, or exec fails."""


class ContainerError(Exception):
    """The container never ran: the image could not be pulled or the process not started. `code` is the engine's."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(f"(HTTP code {code}) {message}")


async def run_container(
    arguments: Mapping[str, Any],
    models: ModelServer,
    log: Log,
    *,
    pace: float = 0.0,
    serve: Serve = lambda served: None,
) -> int:
    """Runs one `container/run` to its end and returns the exit code. Raises ContainerError where it cannot start."""
    image = next((known for known in _IMAGES if known.name.fullmatch(arguments["image"])), None)
    if image is None:
        raise ContainerError("no such image", 404)
    environment: dict[str, str] = arguments.get("env") or {}
    if any(len(f"{name}={value}".encode()) >= ENV_STRING_BYTES for name, value in environment.items()):
        raise ContainerError("exec: argument list too long", 400)
    own_entrypoint = _words(arguments.get("entrypoint"))
    command = arguments.get("cmd") or []
    argv = [
        *(own_entrypoint or image.entrypoint),
        *(["/bin/sh", "-c", command] if isinstance(command, str) else command),
    ]
    match argv:
        case [("/bin/sh" | "sh" | "/bin/bash" | "bash") as program, "-c", str(script), *_]:
            is_bash = program.endswith("bash")
            shell = Shell(image.server, dict(environment), models, log, pace, serve, is_bash)
            return await run_script(shell, script)
        case ["python" | "python3", "-c", str(code)]:
            return _run_python(code, log)
    if image.entrypoint and not own_entrypoint:
        # The trap of §3.3: the image's own program gets the command as its arguments, and dies of them.
        log("stderr", f"error: unrecognized arguments: {' '.join(argv[len(image.entrypoint) :])[:200]}")
        return 2
    raise ContainerError(f'exec: "{argv[0] if argv else ""}": executable file not found in $PATH', 400)


def _words(argument: str | list[str] | None) -> list[str]:
    return [argument] if isinstance(argument, str) else list(argument or [])


def _run_python(code: str, log: Log) -> int:
    """Only what prints literals and exits, one statement a line."""
    for line in map(str.strip, code.splitlines()):
        if (printed := re.fullmatch(r"print\((['\"])([^'\"\\]*)\1\)", line)) is not None:
            log("stdout", printed[2])
        elif (left := re.fullmatch(r"raise SystemExit\((\d+)\)", line)) is not None:
            return int(left[1])
        elif line:
            log("stderr", f"the emulator cannot execute: {line}")
            return 127
    return 0


@dataclass(frozen=True, slots=True)
class _Image:
    """`server` is what starts its model server in a script; the model's name follows."""

    name: re.Pattern[str]
    entrypoint: tuple[str, ...] = ()
    server: tuple[str, ...] = ()


_IMAGES = (
    _Image(
        re.compile(r"docker\.io/vllm/vllm-openai(:[\w.-]+)?"),
        entrypoint=("python3", "-m", "vllm.entrypoints.openai.api_server"),
        server=("vllm", "serve"),
    ),
    _Image(
        re.compile(r"ghcr\.io/ggml-org/llama\.cpp:server[\w.-]*"),
        entrypoint=("/app/llama-server",),
        server=("/app/llama-server", "-hf"),
    ),
    _Image(
        re.compile(r"(docker\.io/)?ollama/ollama(:[\w.-]+)?"),
        entrypoint=("/bin/ollama",),
        server=("ollama", "serve"),
    ),
    _Image(re.compile(r"(docker\.io/)?nosana/pytorch-jupyter(:[\w.-]+)?")),
    _Image(re.compile(r"(docker\.io/library/)?(python|busybox|debian|ubuntu)(:[\w.-]+)?")),
)
