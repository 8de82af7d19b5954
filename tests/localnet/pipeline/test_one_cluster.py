"""A database belongs to one cluster."""

import pytest
from pipeline_world import World

from oracle.core.errors import OracleError
from oracle.pipeline.errors import WRONG_CLUSTER
from oracle.store import marks
from oracle.store.engine import Store

pytestmark = pytest.mark.localnet


async def test_a_database_of_another_cluster_is_refused_before_anything_vanishes(world: World) -> None:
    async with world.daemon():
        pass
    store = await Store.open(world.config().database.url)
    await store.write(lambda c: marks.put(c, "genesis", "11111111111111111111111111111111"))
    await store.close()
    with pytest.raises(OracleError, match=WRONG_CLUSTER.code):
        async with world.daemon():
            pytest.fail("a daemon ran on another cluster's database")
