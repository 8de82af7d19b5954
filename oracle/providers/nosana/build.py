"""From settings to Nosana, by each of its routes: REST jobs, jobs on chain, a deployment."""

from __future__ import annotations

from pathlib import Path

from oracle.providers import errors
from oracle.providers.nosana import serving, templates
from oracle.providers.nosana.api import NosanaApi
from oracle.providers.nosana.compute import NosanaCompute, Terms
from oracle.providers.nosana.deployments import DeploymentsApi
from oracle.providers.nosana.landlord import NosanaLandlord
from oracle.providers.nosana.look_up import LookUp
from oracle.providers.nosana.market_place import MarketPlace
from oracle.providers.nosana.markets import Wanted
from oracle.providers.nosana.onchain import NosanaOnChain
from oracle.providers.nosana.onchain_markets import ChainMarkets
from oracle.providers.nosana.program import Program
from oracle.providers.nosana.purchase import Purchase
from oracle.providers.nosana.templates import Template
from oracle.providers.pace import Pace
from oracle.providers.rented.build import rented, rented_server
from oracle.providers.rented.compute import RentedCompute
from oracle.providers.rented.landlord import Rental
from oracle.providers.rented.openai import OpenAIServer
from oracle.providers.settings import (
    NosanaDeploymentSettings,
    NosanaJobsSettings,
    NosanaMarketsSettings,
    NosanaOnChainSettings,
    NosanaSettings,
)
from oracle.providers.site import Site, bearer


def nosana(site: Site, settings: NosanaSettings) -> NosanaCompute:
    key = site.needed_secret(settings, "api_key", settings.kind)
    api = _api(site, settings, key)
    return NosanaCompute(
        site.name,
        api,
        _terms(settings),
        MarketPlace(api, _wanted(settings), rates=site.rates),
        LookUp(api, api_key=key, project=settings.project, horizon_seconds=settings.look_up_seconds),
        Purchase(api),
        rates=site.rates,
    )


def nosana_onchain(site: Site, settings: NosanaOnChainSettings) -> NosanaOnChain:
    chain = site.chain
    if chain is None:
        raise errors.SETTINGS_INVALID(f"{site.name}: nosana_onchain needs a cluster, an operator key and a database")
    api = _api(site, settings, None)
    markets = ChainMarkets(api, chain.view, _wanted(settings), site.rates)
    return NosanaOnChain(site.name, api, chain, Program(settings.cluster), _terms(settings), markets, rates=site.rates)


def nosana_deployment(site: Site, settings: NosanaDeploymentSettings) -> RentedCompute:
    key = site.needed_secret(settings, "api_key", settings.kind)
    image = settings.image or templates.IMAGES[settings.engine]
    blueprint = serving.Blueprint(settings.engine, image, settings.repository, settings.min_vram_gb, settings.replicas)
    rest = site.http(settings.base_url, settings, bearer(key), key)
    # Definitions go inline, and Nosana pins them: nothing is pinned or read through a gateway of ours.
    api = NosanaApi(rest, rest, rest, listing=Pace())
    landlord = NosanaLandlord(
        DeploymentsApi(rest),
        api,
        MarketPlace(api, _wanted(settings), rates=site.rates),
        blueprint,
        key,
        timeout_minutes=settings.lasts_minutes,
        rates=site.rates,
    )

    def connect(rental: Rental) -> OpenAIServer:
        server_key = serving.key_of(rental.name, key)
        return rented_server(site, rental, settings, settings.engine, settings.repository, server_key)

    naming = blueprint.naming(settings.name_prefix, site.name, key)
    is_public = not settings.strangers_may_read
    return rented(site, settings, settings.repository, landlord, connect, naming, prompts_public=is_public)


def _api(site: Site, settings: NosanaJobsSettings, key: str | None) -> NosanaApi:
    jwt = site.needed_secret(settings, "pinata_jwt", "Nosana")
    return NosanaApi(
        site.http(settings.base_url, settings, bearer(key), key),
        site.http(settings.pinning_url, settings, bearer(jwt), jwt),
        site.http(settings.gateway_url, settings, {}, None),
        # The list route allows 20 calls in 30 s (nosana.md §4.4); other users of the address may need some too.
        listing=Pace(per_second=0.5, burst=15, at_once=1),
    )


def _wanted(settings: NosanaMarketsSettings) -> Wanted:
    return Wanted(
        max_usd_per_hour=settings.max_usd_per_hour,
        min_vram_gb=settings.min_vram_gb,
        max_queued_jobs=settings.max_queued_jobs,
        markets=tuple(settings.markets),
        kinds=tuple(settings.market_types),
    )


def _terms(settings: NosanaJobsSettings) -> Terms:
    return Terms(
        template=_template(settings),
        models=tuple(settings.models),
        min_vram_gb=settings.min_vram_gb,
        max_queue_seconds=settings.max_queue_seconds,
        expected_seconds=settings.expected_seconds,
    )


def _template(settings: NosanaJobsSettings) -> Template:
    """Read and checked when the provider is built: a mistake in it must not wait for the first purchase."""
    if isinstance(settings.template, Path):
        if settings.image or settings.command or settings.notebook:
            raise errors.SETTINGS_INVALID("`image`, `command` and `notebook` are in the job definition of your own")
        return templates.from_file(settings.template)
    notebook = None
    if settings.notebook is not None:
        try:
            notebook = settings.notebook.read_bytes()
        except OSError as error:
            raise errors.SETTINGS_INVALID(f"notebook {settings.notebook}: {error.strerror}") from None
    return templates.built_in(settings.template, image=settings.image, command=settings.command, notebook=notebook)
