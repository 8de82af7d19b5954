"""The same tests on two chains: the embedded one (`localnet`) and Surfpool (`validator`). They must agree."""

import time
from collections.abc import AsyncIterator

import pytest
from rpc_cluster import Cluster

from oracle.localnet.chain import Chain, Config
from oracle.localnet.server import serve
from oracle.testing.surfpool import Surfpool


@pytest.fixture(
    params=[pytest.param("embedded", marks=pytest.mark.localnet), pytest.param("surfpool", marks=pytest.mark.validator)]
)
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    if request.param == "surfpool":
        surfpool: Surfpool = request.getfixturevalue("surfpool")
        async with Cluster(surfpool.rpc_url, surfpool.ws_url, is_surfpool=True) as cluster:
            yield cluster
        return
    chain = Chain(seed=bytes(32), now=time.time, config=Config(confirmed_lag_slots=1, finalized_lag_slots=4))
    async with serve(chain, slot_seconds=0.01) as node, Cluster(node.rpc_url, node.ws_url) as cluster:
        yield cluster
    chain.close()
