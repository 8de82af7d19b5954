"""Reads a container's script line by line and does what `/bin/sh`, curl and coreutils would do, without running any.

Each line must be one of `_STATEMENTS`; any other fails as an unknown command would, with 127. That a real shell prints
the same is tested (`tests/localnet/emulators/test_nosana_container.py`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shlex
from collections.abc import Awaitable, Callable
from typing import NoReturn

from oracle.localnet.emulators.nosana import servers
from oracle.localnet.emulators.nosana.programs import Failed, run_command, run_notebook
from oracle.localnet.emulators.nosana.shell import Exit, Shell


async def run_script(shell: Shell, script: str) -> int:
    """The exit code of the script."""
    try:
        for line in map(str.strip, script.splitlines()):
            if line and not line.startswith("#"):
                await _execute(shell, line)
    except Exit as left:
        return left.code
    return 0


async def _execute(shell: Shell, line: str) -> None:
    for pattern, statement in _STATEMENTS:
        if (match := pattern.fullmatch(line)) is not None:
            await statement(shell, match)
            return
    shell.fail(127, f"sh: the emulator cannot execute: {line}")


async def _set(shell: Shell, match: re.Match[str]) -> None:
    """`set -eu`: the only mode this shell has."""


async def _decode(shell: Shell, match: re.Match[str]) -> None:
    variable, path = match.groups()
    try:
        shell.files[path] = base64.b64decode(shell.value(variable), validate=True)
    except binascii.Error:
        shell.fail(1, "base64: invalid input")


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
    raise Exit(int(code)) from None


async def _name_and_text(shell: Shell, match: re.Match[str]) -> None:
    shell.files[match[3]] = shell.value(match[1]).encode() + b"\n" + shell.file(match[2])


async def _assign(shell: Shell, match: re.Match[str]) -> None:
    shell.variables[match[1]] = match[2]


async def _count_bytes(shell: Shell, match: re.Match[str]) -> None:
    shell.variables[match[1]] = str(len(shell.file(match[2])))


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
        raise Exit(1)


async def _echo(shell: Shell, match: re.Match[str]) -> None:
    shell.log("stdout", " ".join(shlex.split(match[1])))


async def _sleep(shell: Shell, match: re.Match[str]) -> None:
    await shell.pause(match[1])


async def _true(shell: Shell, match: re.Match[str]) -> None:
    """Nothing to do."""


async def _leave(shell: Shell, match: re.Match[str]) -> None:
    raise Exit(1 if match[0] == "false" else int(match[1]))


_FOR = r"for \w+ in ((?:\d+ ?)+); do "
_PRINTF = r"printf '([^'\\]*)\\n'((?: \"\$\w+\")*); sleep ([\d.]+)"
_GRAMMAR: tuple[tuple[str, Callable[[Shell, re.Match[str]], Awaitable[None]]], ...] = (
    (r"set -(?:e|u|eu|ue)", _set),
    (r"([^&|;<>]+) >(\S+) 2>&1 & (\w+)=\$!", servers.start_server),
    (
        r"until curl -fsS -o /dev/null http://127\.0\.0\.1:(\d+)/health 2>/dev/null; do kill -0 \$\w+ \|\| "
        r"\{ tail -n (\d+) (\S+) >&2; exit (\d+); \}; sleep ([\d.]+); done",
        servers.await_server,
    ),
    (
        r"until ollama list >/dev/null 2>&1; do kill -0 \$\w+ \|\| "
        r"\{ tail -n (\d+) (\S+) >&2; exit (\d+); \}; sleep ([\d.]+); done",
        servers.await_ollama,
    ),
    (
        r'ollama pull "\$(\w+)" >(\S+) 2>&1 \|\| \{ tail -n (\d+) (\S+) >&2; exit (\d+); \}',
        servers.pull,
    ),
    (r'wait "\$\w+"', servers.stay),
    (r"exec 3<>/dev/tcp/127\.0\.0\.1/(\d+)", servers.connect),
    (
        r"\{ printf 'POST (/\S+)(?<=/v1/chat/completions) HTTP/1\.0\\r\\nHost: 127\.0\.0\.1\\r\\n"
        r"Content-Type: application/json\\r\\nContent-Length: %s\\r\\n\\r\\n' "
        r'"\$(\w+)"; cat (\S+); \} >&3',
        servers.write_request,
    ),
    (r'timeout "\$(\w+)" cat <&3 >(\S+)', servers.read_response),
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
        servers.curl,
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
