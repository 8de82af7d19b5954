"""One gateway for all tests here that only ask it; those that kill it or fill it have one of their own."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

from gateway_world import GatewayWorld, shared_gateway


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayWorld]:
    directory = tmp_path_factory.mktemp("gateway")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(directory))
        async with shared_gateway(directory) as gateway:
            yield gateway


@pytest.fixture
def gateway(shared: GatewayWorld) -> GatewayWorld:
    """The shared gateway, with upstreams that behave and have served nobody yet."""
    shared.reset()
    return shared
