"""What all parts of the emulated network share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from oracle.localnet.emulators.faults import Faults
from oracle.localnet.emulators.nosana.accounts import Account
from oracle.localnet.emulators.nosana.ipfs import base58, cid_of
from oracle.localnet.emulators.nosana.jobs import Jobs
from oracle.localnet.emulators.nosana.markets import Market
from oracle.localnet.emulators.nosana.timings import Timings
from oracle.localnet.emulators.records import Records
from oracle.localnet.emulators.upstream import ModelServer


@dataclass(frozen=True, slots=True)
class World:
    """`now` gives unix seconds, `entropy` that many random bytes."""

    accounts: tuple[Account, ...]
    markets: tuple[Market, ...]
    models: ModelServer
    timings: Timings
    faults: Faults
    records: Records
    now: Callable[[], float]
    entropy: Callable[[int], bytes]
    jobs: Jobs = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "jobs", Jobs(self.records))

    def market(self, name: object) -> Market | None:
        """By address or slug (§1.2)."""
        return next((market for market in self.markets if name in (market.address, market.slug)), None)

    def pin(self, document: bytes) -> str:
        """Stores a document under its CID, again and again the same."""
        cid = cid_of(document)
        if self.pinned(cid) is None:
            self.records.put("pin", cid, document)
        return cid

    def pinned(self, cid: str) -> bytes | None:
        return self.records.raw("pin", cid)

    def new_address(self) -> str:
        return base58(self.entropy(32))

    def new_signature(self) -> str:
        return base58(self.entropy(64))
