"""From rented to serving: what is waited for, and how long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.rented.landlord import Landlord, Rental, RentalState, Server

log = structlog.get_logger(__name__)

_SLOWEST_POLL_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds. `boot`: longest from rented to serving. `idle`: without a request, then it is given back.

    `tend`: between two looks for strays. `settle`: a rental whose answer was lost shows in the list within this time.
    `retire`: so long before its paid time ends a server takes no more requests. `expected_boot` is for quotes.
    """

    boot: float = 1800.0
    expected_boot: float = 600.0
    idle: float = 600.0
    tend: float = 60.0
    settle: float = 30.0
    retire: float = 120.0
    poll: float = 5.0

    def for_another_start(self) -> Patience:
        return replace(self, boot=min(self.boot, self.expected_boot))


async def until_it_serves(
    landlord: Landlord,
    connect: Callable[[Rental], Server],
    rental: Rental,
    patience: Patience,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> tuple[Rental, Server]:
    """The rental with its address, and its server. Raises ORC-PROVIDER-050 where it ends or takes too long.

    The time that it takes is paid for. A look that fails says nothing about the server, unless it can never succeed.
    """
    began = clock()
    server: Server | None = None
    try:
        while True:
            try:
                seen = await landlord.look(rental)
                if seen is None or seen.state in (RentalState.ENDED, RentalState.FAILED):
                    raise errors.SERVER_NOT_UP(f"{rental.name} has ended: {seen.why if seen else 'not listed'}")
                if server is None or seen.address != rental.address:
                    if server is not None:
                        await server.close()
                    server = connect(seen) if seen.address else None
                rental = seen
                if server is not None and await server.is_ready():
                    ready, server = server, None
                    return rental, ready
            except OracleError as error:
                if error.error is errors.SERVER_NOT_UP or error.verdict is Verdict.GIVE_UP:
                    raise
                log.info("server not seen", server=rental.name, error=str(error))
            waited = clock() - began
            if waited >= patience.boot:
                raise errors.SERVER_NOT_UP(f"{rental.name} did not serve in {patience.boot:g} s {rental.why}")
            await sleep(max(patience.poll, min(waited / 10, _SLOWEST_POLL_SECONDS)))
    finally:
        if server is not None:
            await server.close()
