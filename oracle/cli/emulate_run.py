"""Serves an emulator for `oracle emulate`."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

from oracle.cli.errors import OPTION_NOT_FOR_THIS
from oracle.cli.output import facts, print_json, say
from oracle.cli.weights import fetch_weights
from oracle.localnet.emulators.exhibits import EXHIBITS, Ground
from oracle.localnet.emulators.server import serve
from oracle.localnet.errors import PORT_TAKEN
from oracle.model.server import LocalModel


async def run_emulator(
    name: str, *, port: int, model_url: str | None, state: Path | None, rpc_url: str | None, json: bool
) -> None:
    exhibit = EXHIBITS[name]
    for option, is_given, is_used in (
        ("--model-url", model_url is not None, exhibit.needs_model),
        ("--state", state is not None, exhibit.keeps_state),
        ("--rpc", rpc_url is not None, name == "nosana"),
    ):
        if is_given and not is_used:
            raise OPTION_NOT_FOR_THIS(f"{option} means nothing to {name}")
    async with AsyncExitStack() as stack:
        if exhibit.needs_model and model_url is None:
            model = await stack.enter_async_context(LocalModel(await asyncio.to_thread(fetch_weights)))
            model_url = model.base_url
        emulator = exhibit.build(Ground(model_url or "", state, rpc_url))
        try:
            running = await stack.enter_async_context(serve(emulator, port=port))
        except OSError as error:
            raise PORT_TAKEN(f"127.0.0.1:{port}: {error.strerror}") from None
        settings = exhibit.settings.format(url=running.url)
        if json:
            print_json({"name": name, "url": running.url, "model_url": model_url, "settings": settings})
        else:
            _show(name, exhibit.stands_for, running.url, model_url, settings)
        await _told_to_stop()


async def _told_to_stop() -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()


def _show(name: str, stands_for: str, url: str, model_url: str | None, settings: str) -> None:
    facts(f"Emulator {name}", {"stands for": stands_for, "url": url, "model": model_url or "none"})
    say("")
    say("It is reached with:")
    for line in settings.splitlines():
        say(f"  {line}")
    say("")
    say("To make the next three calls fail, to see what was bought, and to see every call:")
    fault = '\'{"kind": "rate_limit", "count": 3}\''
    say(f"  curl -X POST {url}/_emulator/faults -H 'Content-Type: application/json' -d {fault}")
    say(f"  curl {url}/_emulator/books")
    say(f"  curl {url}/_emulator/calls")
    say("Ctrl-C stops.")
