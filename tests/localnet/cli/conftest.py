import pytest
import settings_file
from command import wallet_file
from pipeline_world import World


@pytest.fixture
def wallet(world: World) -> str:
    """The requester's keypair file."""
    return str(wallet_file(world.directory / "requester.json", world.requester))


@pytest.fixture
def at(world: World, wallet: str) -> tuple[str, ...]:
    """Options of every command that signs: where, and with what."""
    return ("--url", world.node.rpc_url, "--keypair", wallet)


@pytest.fixture
def config(world: World) -> str:
    """The daemon's configuration file."""
    return str(settings_file.write(world.directory / "oracle.toml", world.settings))
