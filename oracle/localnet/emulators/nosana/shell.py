"""The state of one script of a container: variables, files, what it prints, and the model server that it started.

The model server is the emulator's own behind another address.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from oracle.localnet.emulators.ionet.containers import Served
from oracle.localnet.emulators.upstream import ModelServer

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
    server: ModelProcess | None = None

    def fail(self, code: int, complaint: str) -> NoReturn:
        self.log("stderr", complaint)
        raise Exit(code)

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


class Exit(Exception):
    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


@dataclass(frozen=True, slots=True)
class ModelProcess:
    """A model server on a port of the container. `upstream_model` is None where it died instead of coming up."""

    served_model: str
    upstream_model: str | None
    port: str
