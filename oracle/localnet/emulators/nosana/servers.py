"""What a container's script does with model servers: it starts one, waits for it, asks it, or leaves it running."""

from __future__ import annotations

import asyncio
import re
import shlex

import orjson

from oracle.localnet.emulators.ionet.containers import Served
from oracle.localnet.emulators.nosana.shell import Exit, ModelProcess, Shell
from oracle.localnet.emulators.upstream import ModelServerUnreachable


async def start_server(shell: Shell, match: re.Match[str]) -> None:
    command, log_file, process = match.groups()
    words = [re.sub(r"^\$(\w+)$", lambda name: shell.value(name[1]), word) for word in shlex.split(command)]
    start = len(shell.starts_server)
    if shell.starts_server == ("ollama", "serve") and words == ["ollama", "serve"]:
        # It starts without a model; `ollama pull` brings one.
        shell.files[log_file] = b""
        shell.variables[process] = "7"
        port = shell.variables.get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")[2]
        shell.server = ModelProcess("", "", port)
        return
    model, options = words[start] if len(words) > start else "", words[start + 1 :]
    options = [word for word in options if word not in _FLAGS]
    named = dict(zip(options[::2], options[1::2], strict=False))
    complaint = ""
    if not start or tuple(words[:start]) != shell.starts_server:
        complaint = f"sh: 1: {words[0]}: not found"
    elif len(options) % 2 or not _SERVER_OPTIONS.issuperset(named):
        complaint = f"error: unrecognized arguments: {' '.join(options)}"
    elif model not in shell.models.models:
        complaint = f"OSError: {model} is not a local folder and is not a valid model identifier"
    shell.files[log_file] = complaint.encode()
    shell.variables[process] = "7"
    served = named.get("--served-model-name") or named.get("--alias") or model
    upstream_model = None if complaint else shell.models.models[model]
    shell.server = ModelProcess(served, upstream_model, named.get("--port", "8000"))


_SERVER_OPTIONS = {
    "--served-model-name",
    "--alias",
    "--generation-config",
    "--host",
    "--port",
    "--parallel",
    "--max-model-len",
    "--gpu-memory-utilization",
    "--ctx-size",
    "--n-gpu-layers",
    "--seed",
    "--no-slots",
}
_FLAGS = {"--no-slots"}


async def await_server(shell: Shell, match: re.Match[str]) -> None:
    port, lines, log_file, code, seconds = match.groups()
    if shell.server is None or shell.server.upstream_model is None:
        for line in shell.file(log_file).decode().splitlines()[-int(lines) :]:
            shell.log("stderr", line)
        raise Exit(int(code))
    while True:
        if port == shell.server.port and await shell.models.healthy():
            return
        await asyncio.sleep(float(seconds))


async def await_ollama(shell: Shell, match: re.Match[str]) -> None:
    if shell.server is None:
        shell.fail(int(match[3]), f"sh: {match[2]}: no server")
    while True:
        if await shell.models.healthy():
            return
        await asyncio.sleep(float(match[4]))


async def pull(shell: Shell, match: re.Match[str]) -> None:
    variable, log_file, lines, _, code = match.groups()
    model = shell.value(variable)
    if shell.server is None or model not in shell.models.models:
        shell.files[log_file] = b"Error: pull model manifest: file does not exist\n"
        for line in shell.file(log_file).decode().splitlines()[-int(lines) :]:
            shell.log("stderr", line)
        raise Exit(int(code))
    shell.server = ModelProcess(model, shell.models.models[model], shell.server.port)


async def stay(shell: Shell, match: re.Match[str]) -> None:
    """`wait` for the server: the container runs on, and whoever calls its port reaches the server."""
    server = shell.server
    if server is None or not server.upstream_model:
        raise Exit(1)
    is_vllm = shell.starts_server[0] == "vllm"
    key = shell.variables.get("VLLM_API_KEY" if is_vllm else "LLAMA_API_KEY")
    is_open = shell.starts_server[0] == "ollama"
    shell.serve(Served(is_vllm, server.served_model, server.upstream_model, None if is_open else key))
    try:
        await asyncio.Event().wait()
    finally:
        shell.serve(None)


async def curl(shell: Shell, match: re.Match[str]) -> None:
    status, seconds, answer, body, port, path = match.groups()
    server = shell.server
    if server is None or server.upstream_model is None or server.port != port:
        shell.fail(7, f"curl: (7) Failed to connect to 127.0.0.1 port {port}: Connection refused")
    try:
        code, content = await _ask(shell, server, path, shell.file(body), float(shell.value(seconds)))
    except ModelServerUnreachable as error:
        if error.timed_out:
            shell.fail(28, "curl: (28) Operation timed out")
        shell.fail(52, "curl: (52) Empty reply from server")
    shell.files[answer] = content
    shell.variables[status] = str(code)


async def connect(shell: Shell, match: re.Match[str]) -> None:
    if not shell.is_bash:
        shell.fail(2, "sh: 1: cannot open /dev/tcp: No such file")
    if shell.server is None or shell.server.port != match[1]:
        shell.fail(1, f"bash: connect: Connection refused\nbash: /dev/tcp/127.0.0.1/{match[1]}: Connection refused")


async def write_request(shell: Shell, match: re.Match[str]) -> None:
    path, length, body = match.groups()
    if shell.value(length) != str(len(shell.file(body))):
        shell.fail(127, "sh: the emulator cannot execute: a Content-Length that is not that of the body")
    shell.files["&3"] = path.removeprefix("/v1").encode() + b"\n" + shell.file(body)


async def read_response(shell: Shell, match: re.Match[str]) -> None:
    path, _, body = shell.file("&3").partition(b"\n")
    assert shell.server is not None
    try:
        code, content = await _ask(shell, shell.server, path.decode(), body, float(shell.value(match[1])))
    except ModelServerUnreachable as error:
        if error.timed_out:
            raise Exit(124) from None
        code, content = 502, b""
    shell.files[match[2]] = b"HTTP/1.0 %d OK\r\nContent-Type: application/json\r\n\r\n%s" % (code, content)


async def _ask(shell: Shell, server: ModelProcess, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
    """What the server that the script started would answer, from the model server of the emulator."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        request = None
    if not isinstance(request, dict):
        return 400, _vllm_error(400, "JSON decode error", "Bad Request", None)
    if shell.starts_server[0] == "vllm" and request.get("model") != server.served_model:
        complaint = f"The model `{request.get('model')}` does not exist."
        return 404, _vllm_error(404, complaint, "NotFoundError", "model")
    if shell.starts_server[0] == "ollama" and request.get("model") != server.served_model:
        complaint = f'model "{request.get("model")}" not found, try pulling it first'
        return 404, orjson.dumps({"error": {"message": complaint, "type": "api_error", "param": None, "code": None}})
    answer = await shell.models.post(path, {**request, "model": server.upstream_model}, timeout_seconds=seconds)
    parsed = answer.json()
    if isinstance(parsed, dict) and "model" in parsed:
        return answer.status, orjson.dumps({**parsed, "model": server.served_model})
    return answer.status, answer.body


def _vllm_error(status: int, message: str, kind: str, param: str | None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": status}})
