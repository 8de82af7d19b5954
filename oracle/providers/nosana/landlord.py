"""Nosana's deployments as a `Landlord`: a server on one of its markets, paid with credits by the second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from oracle.core.compute import Money
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.nosana import result
from oracle.providers.nosana.api import NosanaApi
from oracle.providers.nosana.deployments import Deployment, DeploymentJob, DeploymentsApi, Status
from oracle.providers.nosana.market_place import MarketPlace
from oracle.providers.nosana.markets import Listing
from oracle.providers.nosana.serving import Blueprint
from oracle.providers.pricing import NO_RATES, Rates, nos_usd_if_known
from oracle.providers.rented.landlord import Rental, RentalPrice, RentalState

_STATES: Final = {
    Status.DRAFT: RentalState.STARTING,
    Status.STARTING: RentalState.STARTING,
    Status.RUNNING: RentalState.RUNNING,
    # What is being stopped, or has failed, may still have a job that costs: it counts until it says that it is over.
    Status.STOPPING: RentalState.FAILED,
    Status.ERROR: RentalState.FAILED,
    Status.INSUFFICIENT_FUNDS: RentalState.FAILED,
    Status.STOPPED: RentalState.ENDED,
    Status.ARCHIVED: RentalState.ENDED,
}


class NosanaLandlord:
    """Implements `Landlord`. `timeout_minutes` is how long a deployment may run: that much credit is reserved, and
    only the time used is paid."""

    def __init__(
        self,
        deployments: DeploymentsApi,
        api: NosanaApi,
        market_place: MarketPlace,
        blueprint: Blueprint,
        api_key: str,
        *,
        timeout_minutes: int,
        rates: Rates = NO_RATES,
    ) -> None:
        self._deployments = deployments
        self._api = api
        self._market_place = market_place
        self._blueprint = blueprint
        self._api_key = api_key
        self._timeout_minutes = timeout_minutes
        self._rates = rates
        self._prices: dict[str, RentalPrice] = {}

    async def price(self) -> RentalPrice:
        (offer, *_) = await self._market_place.offers()
        return self._priced(offer.usd_per_hour)

    async def create(self, name: str) -> str:
        """A draft, which costs nothing: the first `look` starts it. So a draft whose answer was lost costs nothing."""
        definition = self._blueprint.definition(name, self._api_key)
        (offer, *_) = await self._market_place.offers()
        reserved = self._priced(offer.usd_per_hour).cost_usd(self._timeout_minutes * 60)
        if (available := await self._api.available_usd()) < reserved:
            raise errors.OUT_OF_CREDIT(f"{available:f} USD of credit, {reserved:.3f} are reserved for a deployment")
        try:
            return await self._deployments.create(
                name,
                offer.market.address,
                definition,
                replicas=self._blueprint.replicas,
                timeout_minutes=self._timeout_minutes,
            )
        except OracleError as error:
            if error.error is errors.UNAVAILABLE:
                # A gateway's 5xx does not say whether the service behind it has made it.
                raise errors.NO_ANSWER(error.detail) from None
            raise

    async def rentals(self, prefix: str) -> Sequence[Rental]:
        return [_rental(one) for one in await self._deployments.all() if one.name.startswith(prefix)]

    async def look(self, rental: Rental) -> Rental | None:
        """Started where it is a draft. RUNNING only while a job of it waits or runs: the status alone says nothing."""
        deployment = await self._deployments.read(rental.id)
        if deployment is None:
            return None
        if deployment.status is Status.DRAFT:
            await self._deployments.act(deployment.id, "start")
            return _rental(deployment)
        seen = _rental(deployment)
        if seen.state is RentalState.ENDED:
            return replace(seen, why=await self._why(deployment, await self._deployments.jobs(deployment.id)))
        jobs = await self._deployments.jobs(deployment.id)
        live = [job for job in jobs if job.is_live]
        why = "" if live else await self._why(deployment, jobs)
        if seen.state is RentalState.FAILED or why:
            return replace(seen, state=RentalState.FAILED, why=f"{deployment.status} {why}".strip())
        started = [job.started_at for job in live if job.started_at]
        return replace(
            seen,
            ends_at=min(started) + deployment.timeout_minutes * 60 if started else None,
            address=f"{deployment.url}/v1" if deployment.url and started else None,
            price=await self._price_at(deployment.market),
        )

    async def destroy(self, rental: Rental) -> None:
        """Stopped, and put away where that is allowed already: what is stopped costs nothing."""
        deployment = await self._deployments.read(rental.id)
        if deployment is None or deployment.status is Status.ARCHIVED:
            return
        if deployment.status not in (Status.DRAFT, Status.STOPPED):
            await self._deployments.act(deployment.id, "stop")
        try:
            await self._deployments.act(deployment.id, "archive")
        except OracleError:
            # A draft can become a server, so it must be put away; the next turn tries again.
            if deployment.status is Status.DRAFT:
                raise

    async def markets(self) -> Sequence[Listing]:
        """Where a server could run, the chosen market first."""
        return await self._market_place.listings()

    async def balance(self) -> Money | None:
        return Money(float(await self._api.available_usd()), "USD")

    async def close(self) -> None:
        await self._deployments.close()
        await self._api.close()

    async def _why(self, deployment: Deployment, jobs: Sequence[DeploymentJob]) -> str:
        """Why no job of it runs; empty where none has been listed yet, which may still come."""
        if not jobs:
            return await self._deployments.complaint(deployment.id)
        document = await self._deployments.result(deployment.id, jobs[0].job)
        return f"job {jobs[0].job} {jobs[0].state}: {result.ending_of(document)}"

    async def _price_at(self, market: str) -> RentalPrice | None:
        """Of the market that it runs on; None where that is not listed."""
        if market not in self._prices:
            for listed in await self._api.markets():
                usd = listed.usd_per_hour(nos_usd_if_known(self._rates))
                if market in (listed.address, listed.slug) and usd is not None:
                    self._prices[market] = self._priced(usd)
        return self._prices.get(market)

    def _priced(self, usd_per_hour: Decimal) -> RentalPrice:
        return RentalPrice(usd_per_hour * self._blueprint.replicas)


def _rental(deployment: Deployment) -> Rental:
    return Rental(deployment.id, deployment.name, _STATES[deployment.status], deployment.created_at)
