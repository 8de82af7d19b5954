"""A chain whose clock is driven by the test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driven_chain import SOL, DrivenClock
from solders.keypair import Keypair

from oracle.localnet.chain import Chain, Config


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock()


@pytest.fixture
def make_chain(clock: DrivenClock) -> Iterator[Callable[..., Chain]]:
    """Makes chains that confirm 2 and finalize 5 slots back; they are closed in the end."""
    chains: list[Chain] = []

    def make(directory: Path | None = None, seed: bytes = bytes(32)) -> Chain:
        config = Config(confirmed_lag_slots=2, finalized_lag_slots=5)
        chains.append(Chain(seed=seed, now=clock, config=config, directory=directory))
        return chains[-1]

    yield make
    for chain in chains:
        chain.close()


@pytest.fixture
def payer() -> Keypair:
    return Keypair.from_seed(bytes([1] * 32))


@pytest.fixture
def chain(make_chain: Callable[..., Chain], payer: Keypair) -> Chain:
    """A chain on which `payer` has ten SOL and ten slots have passed."""
    chain = make_chain()
    chain.fund(payer.pubkey(), 10 * SOL)
    chain.advance(10)
    return chain
