"""The real daemon, which kills itself at a named point as `kill -9` would: for tests of what a crash leaves behind.

    python -m oracle.testing.crashing --config oracle.toml --list
    python -m oracle.testing.crashing --config oracle.toml --crash-at "after provider.submit nosana submit.call"
    python -m oracle.testing.crashing --config oracle.toml --crash-at "before store.write submit.intend intend_all:3"

`--list` runs the daemon until SIGTERM and then prints every point that its life has reached, with how often. The number
after the colon says at which time the point kills; without one it is the first.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pkgutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oracle.api.app import app
from oracle.api.gateway.server import open_gateway
from oracle.api.server import serving
from oracle.config import Config, load
from oracle.logs import set_up
from oracle.pipeline.clock import Clock
from oracle.pipeline.daemon import assembled
from oracle.testing.crash_points import Points, watch_providers, watched


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a daemon. Everything here can be pickled, so that a process can be forked to live it.

    `crash_at` kills it, `stop_at` stops it until SIGCONT, `record` is a file to which each point is appended when it is
    first reached. `clock_steps` are `(seconds after the start, seconds)` by which its wall clock jumps. `gateway` makes
    it one of `oracle gateway`. `replaced` are names with another value, such as
    `("oracle.providers.nosana.compute.INDEX_LAG_SECONDS", 1.0)`: what takes minutes there would take them in a test.
    """

    config: Path
    crash_at: str | None = None
    stop_at: str | None = None
    record: Path | None = None
    clock_steps: Sequence[tuple[float, float]] = ()
    gateway: bool = False
    replaced: Sequence[tuple[str, Any]] = ()


def stepped_clock(steps: Sequence[tuple[float, float]]) -> Clock:
    """The real clock of a machine whose wall time jumps when told. Its monotonic time does not, as on a real one."""
    began = time.monotonic()

    def wall_ns() -> int:
        age = time.monotonic() - began
        return time.time_ns() + int(1e9 * sum(step for after, step in steps if age >= after))

    return Clock(wall_ns=wall_ns)


def live(life: Life) -> Points:
    """Run the daemon as `oracle run` does, until SIGTERM or its crash. Returns the points that it reached."""
    for path, value in life.replaced:
        owner, _, name = path.rpartition(".")
        setattr(pkgutil.resolve_name(owner), name, value)
    config = load(life.config)
    set_up(config.log)
    points = Points(
        _each(_recorder(life.record), _send(signal.SIGKILL, life.crash_at), _send(signal.SIGSTOP, life.stop_at))
    )
    with watched(points):
        asyncio.run(_run(config, points, stepped_clock(life.clock_steps), with_gateway=life.gateway))
    return points


async def _run(config: Config, points: Points, clock: Clock, *, with_gateway: bool) -> None:
    async with assembled(config, clock) as daemon:
        context = daemon.context
        watch_providers(points, context)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, daemon.stop)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(serving(app(context), config.api.host, config.api.port))
            if with_gateway:
                await stack.enter_async_context(open_gateway(context))
            await daemon.run()


OnReach = Callable[[str, int], None]


def _send(number: signal.Signals, at: str | None) -> OnReach:
    name, colon, turn = (at or "").rpartition(":")
    target = (name, int(turn)) if colon else (at, 1)

    def send(name: str, count: int) -> None:
        if (name, count) == target:
            os.kill(os.getpid(), number)

    return send


def _recorder(path: Path | None) -> OnReach:
    if path is None:
        return lambda name, count: None
    file = path.open("a", buffering=1)

    def record(name: str, count: int) -> None:
        if count == 1:
            file.write(name + "\n")

    return record


def _each(*listeners: OnReach) -> OnReach:
    def each(name: str, count: int) -> None:
        for listen in listeners:
            listen(name, count)

    return each


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("oracle.testing.crashing", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--crash-at", metavar="NAME[:n]")
    what.add_argument("--list", action="store_true")
    chosen = parser.parse_args(arguments)
    points = live(Life(chosen.config, crash_at=chosen.crash_at))
    for name, count in points.counts.items():
        sys.stdout.write(f"{count:6d}  {name}\n")


if __name__ == "__main__":
    main()
