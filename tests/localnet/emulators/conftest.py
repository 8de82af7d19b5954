"""A scripted model server, and a served Nosana to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from nosana_user import NosanaUser, served_nosana

from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.server import serve


@pytest.fixture
async def model() -> AsyncIterator[tuple[ScriptedOpenAI, str]]:
    """A scripted model server and its base URL."""
    server = ScriptedOpenAI(Personality.VLLM)
    async with serve(server) as running:
        yield server, f"{running.url}/v1"


@pytest.fixture
async def nosana(model: tuple[ScriptedOpenAI, str]) -> AsyncIterator[NosanaUser]:
    async with served_nosana(model[1]) as user:
        yield user
