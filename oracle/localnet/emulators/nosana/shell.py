"""Reads a container's script line by line and does what `/bin/sh`, curl and coreutils would do, without running any.

Each line must be one of `_STATEMENTS`; any other fails as an unknown command would, with 127. The model server that a
script starts is the emulator's own behind another address. That a real shell prints the same is tested
(`tests/localnet/emulators/test_nosana_container.py`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn

import orjson

from oracle.localnet.emulators.ionet.containers import Served
from oracle.localnet.emulators.nosana.programs import Failed, run_command, run_notebook
from oracle.localnet.emulators.upstream import ModelServer, ModelServerUnreachable

Log = Callable[[str, str], None]
"""Takes `stdout` or `stderr`, and a line without its end."""

Serve = Callable[[Served | None], None]
"""Takes the model server that a container leaves running behind its port, and None when it has ended."""


@dataclass(slots=True)
class Shell:
    """One script under `set -e`: variables, files, and at most one model server.

    `starts_server` are the words that start one in this image. `pace` is a factor on every pause.
    """

    starts_server: tuple[str, ...]
    variables: dict[str, str]
    models: ModelServer
    log: Log
    pace: float
    serve: Serve
    is_bash: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    server: _Server | None = None

    async def run(self, script: str) -> int:
        """The exit code of the script."""
        try:
            for line in map(str.strip, script.splitlines()):
                if line and not line.startswith("#"):
                    await self._execute(line)
        except _Exit as left:
            return left.code
        return 0

    async def _execute(self, line: str) -> None:
        for pattern, statement in _STATEMENTS:
            if (match := pattern.fullmatch(line)) is not None:
                await statement(self, match)
                return
        self.fail(127, f"sh: the emulator cannot execute: {line}")

    def fail(self, code: int, complaint: str) -> NoReturn:
        self.log("stderr", complaint)
        raise _Exit(code)

    def value(self, name: str) -> str:
        if name not in self.variables:
            self.fail(2, f"sh: 1: {name}: parameter not set")
        return self.variables[name]

    def file(self, path: str) -> bytes:
        if path not in self.files:
            self.fail(2, f"sh: 1: cannot open {path}: No such file")
        return self.files[path]

    async def pause(self, seconds: str) -> None:
        await asyncio.sleep(float(seconds) * self.pace)

    def print(self, pattern: str, arguments: str) -> None:
        """`printf 'pattern\\n' "$a" "$b"`, with `%s` as the only conversion."""
        names = re.findall(r'"\$(\w+)"', arguments)
        if pattern.count("%s") != len(names) or pattern.count("%") != len(names):
            self.fail(127, f"sh: the emulator cannot execute: printf {pattern!r} with {len(names)} values")
        pieces = iter(names)
        self.log("stdout", re.sub("%s", lambda _: self.value(next(pieces)), pattern))


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


@dataclass(frozen=True, slots=True)
class _Server:
    """A model server on a port of the container. `upstream_model` is None where it died instead of coming up."""

    served_model: str
    upstream_model: str | None
    port: str


async def _set(shell: Shell, match: re.Match[str]) -> None:
    """`set -eu`: the only mode this shell has."""


async def _start_server(shell: Shell, match: re.Match[str]) -> None:
    command, log_file, process = match.groups()
    words = [re.sub(r"^\$(\w+)$", lambda name: shell.value(name[1]), word) for word in shlex.split(command)]
    start = len(shell.starts_server)
    if shell.starts_server == ("ollama", "serve") and words == ["ollama", "serve"]:
        # It starts without a model; `ollama pull` brings one.
        shell.files[log_file] = b""
        shell.variables[process] = "7"
        port = shell.variables.get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")[2]
        shell.server = _Server("", "", port)
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
    shell.server = _Server(served, upstream_model, named.get("--port", "8000"))


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


async def _await_server(shell: Shell, match: re.Match[str]) -> None:
    port, lines, log_file, code, seconds = match.groups()
    if shell.server is None or shell.server.upstream_model is None:
        for line in shell.file(log_file).decode().splitlines()[-int(lines) :]:
            shell.log("stderr", line)
        raise _Exit(int(code))
    while True:
        if port == shell.server.port and await shell.models.healthy():
            return
        await asyncio.sleep(float(seconds))


async def _await_ollama(shell: Shell, match: re.Match[str]) -> None:
    if shell.server is None:
        shell.fail(int(match[3]), f"sh: {match[2]}: no server")
    while True:
        if await shell.models.healthy():
            return
        await asyncio.sleep(float(match[4]))


async def _pull(shell: Shell, match: re.Match[str]) -> None:
    variable, log_file, lines, _, code = match.groups()
    model = shell.value(variable)
    if shell.server is None or model not in shell.models.models:
        shell.files[log_file] = b"Error: pull model manifest: file does not exist\n"
        for line in shell.file(log_file).decode().splitlines()[-int(lines) :]:
            shell.log("stderr", line)
        raise _Exit(int(code))
    shell.server = _Server(model, shell.models.models[model], shell.server.port)


async def _stay(shell: Shell, match: re.Match[str]) -> None:
    """`wait` for the server: the container runs on, and whoever calls its port reaches the server."""
    server = shell.server
    if server is None or not server.upstream_model:
        raise _Exit(1)
    is_vllm = shell.starts_server[0] == "vllm"
    key = shell.variables.get("VLLM_API_KEY" if is_vllm else "LLAMA_API_KEY")
    is_open = shell.starts_server[0] == "ollama"
    shell.serve(Served(is_vllm, server.served_model, server.upstream_model, None if is_open else key))
    try:
        await asyncio.Event().wait()
    finally:
        shell.serve(None)


async def _decode(shell: Shell, match: re.Match[str]) -> None:
    variable, path = match.groups()
    try:
        shell.files[path] = base64.b64decode(shell.value(variable), validate=True)
    except binascii.Error:
        shell.fail(1, "base64: invalid input")


async def _curl(shell: Shell, match: re.Match[str]) -> None:
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


async def _connect(shell: Shell, match: re.Match[str]) -> None:
    if not shell.is_bash:
        shell.fail(2, "sh: 1: cannot open /dev/tcp: No such file")
    if shell.server is None or shell.server.port != match[1]:
        shell.fail(1, f"bash: connect: Connection refused\nbash: /dev/tcp/127.0.0.1/{match[1]}: Connection refused")


async def _write_request(shell: Shell, match: re.Match[str]) -> None:
    path, length, body = match.groups()
    if shell.value(length) != str(len(shell.file(body))):
        shell.fail(127, "sh: the emulator cannot execute: a Content-Length that is not that of the body")
    shell.files["&3"] = path.removeprefix("/v1").encode() + b"\n" + shell.file(body)


async def _read_response(shell: Shell, match: re.Match[str]) -> None:
    path, _, body = shell.file("&3").partition(b"\n")
    assert shell.server is not None
    try:
        code, content = await _ask(shell, shell.server, path.decode(), body, float(shell.value(match[1])))
    except ModelServerUnreachable as error:
        if error.timed_out:
            raise _Exit(124) from None
        code, content = 502, b""
    shell.files[match[2]] = b"HTTP/1.0 %d OK\r\nContent-Type: application/json\r\n\r\n%s" % (code, content)


async def _read_status(shell: Shell, match: re.Match[str]) -> None:
    line = shell.file(match[2]).split(b"\n", 1)[0].decode()
    shell.variables[match[1]] = line.split(" ")[1]


async def _drop_headers(shell: Shell, match: re.Match[str]) -> None:
    shell.files[match[2]] = shell.file(match[1]).partition(b"\r\n\r\n")[2]


async def _run_command(shell: Shell, match: re.Match[str]) -> None:
    seconds, variable, source, target, log_file, lines, _, code = match.groups()
    shell.value(seconds)
    try:
        shell.files[target] = run_command(shell.value(variable), shell.file(source))
    except Failed as failed:
        _give_up(shell, failed, log_file, lines, code)


async def _run_notebook(shell: Shell, match: re.Match[str]) -> None:
    seconds, notebook, log_file, lines, _, code = match.groups()
    shell.value(seconds)
    try:
        written = run_notebook(shell.file(notebook), shell.file("/tmp/body.json"))
    except Failed as failed:
        _give_up(shell, failed, log_file, lines, code)
    else:
        if written is not None:
            shell.files["/tmp/text"] = written


def _give_up(shell: Shell, failed: Failed, log_file: str, lines: str, code: str) -> NoReturn:
    shell.files[log_file] = failed.complaint.encode()
    for line in shell.file(log_file).decode().splitlines()[-int(lines) :]:
        shell.log("stderr", line)
    raise _Exit(int(code)) from None


async def _name_and_text(shell: Shell, match: re.Match[str]) -> None:
    shell.files[match[3]] = shell.value(match[1]).encode() + b"\n" + shell.file(match[2])


async def _assign(shell: Shell, match: re.Match[str]) -> None:
    shell.variables[match[1]] = match[2]


async def _count_bytes(shell: Shell, match: re.Match[str]) -> None:
    shell.variables[match[1]] = str(len(shell.file(match[2])))


async def _ask(shell: Shell, server: _Server, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
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


async def _encode(shell: Shell, match: re.Match[str]) -> None:
    width, source, target = int(match[1]), match[2], match[3]
    encoded = base64.b64encode(shell.file(source))
    pieces = (encoded[start : start + width] + b"\n" for start in range(0, len(encoded), width))
    shell.files[target] = b"".join(pieces)


async def _count_lines(shell: Shell, match: re.Match[str]) -> None:
    shell.variables[match[1]] = str(shell.file(match[2]).count(b"\n"))


async def _digest(shell: Shell, match: re.Match[str]) -> None:
    shell.variables[match[1]] = hashlib.sha256(shell.file(match[2])).hexdigest()


async def _print_file(shell: Shell, match: re.Match[str]) -> None:
    passes, counter, part, pattern, arguments, seconds, path = match.groups()
    for _ in passes.split():
        for n, line in enumerate(shell.file(path).decode().splitlines(), 1):
            shell.variables |= {counter: str(n), part: line}
            shell.print(pattern, arguments)
            await shell.pause(seconds)


async def _print_often(shell: Shell, match: re.Match[str]) -> None:
    passes, pattern, arguments, seconds = match.groups()
    for _ in passes.split():
        shell.print(pattern, arguments)
        await shell.pause(seconds)


async def _test(shell: Shell, match: re.Match[str]) -> None:
    if shell.value(match[1]) != match[2]:
        raise _Exit(1)


async def _echo(shell: Shell, match: re.Match[str]) -> None:
    shell.log("stdout", " ".join(shlex.split(match[1])))


async def _sleep(shell: Shell, match: re.Match[str]) -> None:
    await shell.pause(match[1])


async def _true(shell: Shell, match: re.Match[str]) -> None:
    """Nothing to do."""


async def _leave(shell: Shell, match: re.Match[str]) -> None:
    raise _Exit(1 if match[0] == "false" else int(match[1]))


_FOR = r"for \w+ in ((?:\d+ ?)+); do "
_PRINTF = r"printf '([^'\\]*)\\n'((?: \"\$\w+\")*); sleep ([\d.]+)"
_GRAMMAR: tuple[tuple[str, Callable[[Shell, re.Match[str]], Awaitable[None]]], ...] = (
    (r"set -(?:e|u|eu|ue)", _set),
    (r"([^&|;<>]+) >(\S+) 2>&1 & (\w+)=\$!", _start_server),
    (
        r"until curl -fsS -o /dev/null http://127\.0\.0\.1:(\d+)/health 2>/dev/null; do kill -0 \$\w+ \|\| "
        r"\{ tail -n (\d+) (\S+) >&2; exit (\d+); \}; sleep ([\d.]+); done",
        _await_server,
    ),
    (
        r"until ollama list >/dev/null 2>&1; do kill -0 \$\w+ \|\| "
        r"\{ tail -n (\d+) (\S+) >&2; exit (\d+); \}; sleep ([\d.]+); done",
        _await_ollama,
    ),
    (
        r'ollama pull "\$(\w+)" >(\S+) 2>&1 \|\| \{ tail -n (\d+) (\S+) >&2; exit (\d+); \}',
        _pull,
    ),
    (r'wait "\$\w+"', _stay),
    (r"exec 3<>/dev/tcp/127\.0\.0\.1/(\d+)", _connect),
    (
        r"\{ printf 'POST (/\S+)(?<=/v1/chat/completions) HTTP/1\.0\\r\\nHost: 127\.0\.0\.1\\r\\n"
        r"Content-Type: application/json\\r\\nContent-Length: %s\\r\\n\\r\\n' "
        r'"\$(\w+)"; cat (\S+); \} >&3',
        _write_request,
    ),
    (r'timeout "\$(\w+)" cat <&3 >(\S+)', _read_response),
    (r"(\w+)=\$\(head -n 1 (\S+) \| cut -d' ' -f2\)", _read_status),
    (r"sed '1,/\^\\r\$/d' (\S+) >(\S+)", _drop_headers),
    (
        r'timeout "\$(\w+)" /bin/sh -c "\$(\w+)" <(\S+) >(\S+) 2>(\S+) '
        r"\|\| \{ tail -n (\d+) (\S+) >&2; exit (\d+); \}",
        _run_command,
    ),
    (
        r'timeout "\$(\w+)" jupyter nbconvert --to notebook --execute --ExecutePreprocessor\.timeout=-1 '
        r"--output \S+ (\S+) >(\S+) 2>&1 \|\| \{ tail -n (\d+) (\S+) >&2; exit (\d+); \}",
        _run_notebook,
    ),
    (r"\{ printf '%s\\n' \"\$(\w+)\"; cat (\S+); \} >(\S+)", _name_and_text),
    (r"(\w+)=(\d{3})", _assign),
    (r"(\w+)=\$\(wc -c <(\S+)\)", _count_bytes),
    (r'printf %s "\$(\w+)" \| base64 -d >(\S+)', _decode),
    (
        r'(\w+)=\$\(curl -sS --max-time "\$(\w+)" -o (\S+) -w \'%\{http_code\}\' '
        r"-H 'Content-Type: application/json' --data-binary @(\S+) http://127\.0\.0\.1:(\d+)/v1(/\S+)\)",
        _curl,
    ),
    (r"base64 -w (\d+) (\S+) >(\S+)", _encode),
    (r"(\w+)=\$\(wc -l <(\S+)\)", _count_lines),
    (r"(\w+)=\$\(sha256sum <(\S+) \| cut -d' ' -f1\)", _digest),
    (
        _FOR + r"(\w+)=0; while IFS= read -r (\w+); do \2=\$\(\(\2\+1\)\); " + _PRINTF + r"; done <(\S+); done",
        _print_file,
    ),
    (_FOR + _PRINTF + "; done", _print_often),
    (r'test "\$(\w+)" = (\w+)', _test),
    (r"echo ([^&|;<>$`]*)", _echo),
    (r"sleep ([\d.]+)", _sleep),
    (r"true", _true),
    (r"false|exit (\d+)", _leave),
)
_STATEMENTS = tuple((re.compile(pattern), statement) for pattern, statement in _GRAMMAR)
