"""Every emulator at once, and a configuration that leads to all of them."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import settings_file
from command import Ran, oracle

from oracle.localnet.emulators.exhibits import EXHIBITS, REPOSITORY, Ground
from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.server import Running, serve
from oracle.store import migrate
from oracle.store.engine import Store
from oracle.store.rows import LedgerRow
from oracle.store.schema import ledger


@dataclass
class Stand:
    """`settings` may be changed before a command is run."""

    directory: Path
    settings: dict[str, Any]
    emulators: dict[str, Any]
    running: Mapping[str, Running]
    model: ScriptedOpenAI

    @property
    def url(self) -> str:
        return f"sqlite:///{self.directory / 'oracle.sqlite'}"

    def provider(self, name: str, **changes: Any) -> dict[str, Any]:
        section: dict[str, Any] = self.settings["providers"][name]
        section.update(changes)
        return section

    def write(self) -> Path:
        return settings_file.write(self.directory / "oracle.toml", self.settings)

    async def run(self, *arguments: object, stdin: str | None = None) -> Ran:
        return await oracle("providers", *arguments, "-c", self.write(), stdin=stdin)

    async def rows(self) -> dict[str, Any]:
        """What `oracle providers --json` says, by name."""
        return {row["name"]: row for row in (await self.run("--json")).document["providers"]}

    async def create_database(self) -> None:
        await asyncio.to_thread(migrate.upgrade, self.url)

    async def booked(self) -> list[LedgerRow]:
        store = await Store.open(self.url)
        try:
            return await store.read(lambda c: [LedgerRow(*row) for row in c.execute(ledger.select())])
        finally:
            await store.close()


@asynccontextmanager
async def open_stand(directory: Path, *names: str) -> AsyncIterator[Stand]:
    """With the emulators of these names, by default of all."""
    settings: dict[str, Any] = {
        "rates": {"sol_usd": 100, "nos_usd": 0.5},
        "database": {"url": "sqlite:///oracle.sqlite"},
        # Nobody listens there: no daemon runs.
        "api": {"port": 1},
        "providers": {},
        "sources": {},
    }
    emulators: dict[str, Any] = {}
    running: dict[str, Running] = {}
    async with AsyncExitStack() as stack:
        model = ScriptedOpenAI(Personality.VLLM)
        upstream = await stack.enter_async_context(serve(model))
        for name in names or EXHIBITS:
            exhibit = EXHIBITS[name]
            emulators[name] = exhibit.build(Ground(f"{upstream.url}/v1", None))
            running[name] = await stack.enter_async_context(serve(emulators[name]))
            for section, entries in tomllib.loads(exhibit.settings.format(url=running[name].url)).items():
                settings[section] |= entries
        if "nosana" in running:
            settings["providers"]["deployment"] = {
                "kind": "nosana_deployment",
                "base_url": running["nosana"].url,
                "api_key": settings["providers"]["nosana"]["api_key"],
                "repository": REPOSITORY,
            }
        yield Stand(directory, settings, emulators, running, model)
