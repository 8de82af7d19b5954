"""From settings to a working provider."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
from pydantic import Field, TypeAdapter, ValidationError

from oracle.core.compute import Compute, Recovery
from oracle.core.purchase import ChainAccess
from oracle.model.weights import weights_directory
from oracle.providers import errors
from oracle.providers.chat import ChatCompute, Limits
from oracle.providers.failures import OPENAI_DIALECT, Dialect
from oracle.providers.http import Http, Timeouts
from oracle.providers.ionet.client import IoNetChat
from oracle.providers.ionet.cloud import IoCloud
from oracle.providers.ionet.cloud_container import IMAGES as IONET_IMAGES
from oracle.providers.ionet.cloud_container import Blueprint, key_of
from oracle.providers.ionet.cloud_wire import Wanted as WantedHardware
from oracle.providers.local.client import LocalChat
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
from oracle.providers.nosana.program import Cluster, Program
from oracle.providers.nosana.purchase import Purchase
from oracle.providers.nosana.templates import Template
from oracle.providers.openai.batch import BatchCompute, BatchTerms
from oracle.providers.openai.batch_api import BatchApi
from oracle.providers.openai.batch_list import BatchList
from oracle.providers.openai.client import OpenAIChat
from oracle.providers.openai.wire import Dictation
from oracle.providers.pace import Pace
from oracle.providers.pricing import FREE, NO_RATES, PriceOf, Rates, TokenPrice
from oracle.providers.render.api import DispersedApi
from oracle.providers.render.compute import RenderCompute
from oracle.providers.render.container import Terms as RenderTerms
from oracle.providers.render.listing import Listing
from oracle.providers.render.offers import Offers
from oracle.providers.render.server import LlamaServer
from oracle.providers.rented.boot import Patience
from oracle.providers.rented.compute import RentedCompute, RentedTerms
from oracle.providers.rented.landlord import Landlord, Naming, Rental
from oracle.providers.rented.openai import OpenAIServer
from oracle.providers.rented.server import RentedServer
from oracle.providers.secrets import read_secret
from oracle.providers.settings import (
    ChattingSettings,
    HttpSettings,
    IoNetCloudSettings,
    IoNetSettings,
    LocalSettings,
    ModelPrice,
    NosanaDeploymentSettings,
    NosanaJobsSettings,
    NosanaMarketsSettings,
    NosanaOnChainSettings,
    NosanaSettings,
    OpenAIBatchSettings,
    OpenAISettings,
    RenderSettings,
    RentedSettings,
)

ProviderSettings = Annotated[
    OpenAISettings
    | OpenAIBatchSettings
    | LocalSettings
    | IoNetSettings
    | IoNetCloudSettings
    | NosanaSettings
    | NosanaDeploymentSettings
    | NosanaOnChainSettings
    | RenderSettings,
    Field(discriminator="kind"),
]
"""One `[providers.NAME]` table of the configuration."""

_SETTINGS: TypeAdapter[ProviderSettings] = TypeAdapter(ProviderSettings)

# What a server would otherwise take from its own defaults or the model's files (openai_compatible.md §6).
_UNDO_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "vllm": {"top_k": -1, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0},
    "llamacpp": {"top_k": 0, "min_p": 0, "repeat_penalty": 1, "cache_prompt": False},
}


def parse(settings: Mapping[str, Any]) -> ProviderSettings:
    """Checked settings. Raises ORC-PROVIDER-022, which names the option and never repeats its value."""
    try:
        return _SETTINGS.validate_python(settings)
    except ValidationError as error:
        findings = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise errors.SETTINGS_INVALID(findings) from None


def nosana_clusters(providers: Iterable[ProviderSettings]) -> list[Cluster]:
    """On which clusters' Jobs programs jobs are bought with the operator's key."""
    return sorted({each.cluster for each in providers if isinstance(each, NosanaOnChainSettings)})


def build(
    name: str,
    settings: ProviderSettings | Mapping[str, Any],
    *,
    rates: Rates = NO_RATES,
    chain: ChainAccess | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Compute:
    """The provider called `name`. `chain` is for those that are paid on it; `transport` replaces the network in tests.

    Raises ORC-PROVIDER-012, 021 or 022.
    """
    checked = parse(settings) if isinstance(settings, Mapping) else settings
    match checked:
        case OpenAISettings():
            return _openai(name, checked, rates, transport, environ)
        case OpenAIBatchSettings():
            return _openai_batch(name, checked, rates, transport, environ)
        case LocalSettings():
            return _local(name, checked, environ)
        case IoNetSettings():
            return _ionet(name, checked, rates, transport, environ)
        case IoNetCloudSettings():
            return _ionet_cloud(name, checked, rates, transport, environ)
        case NosanaSettings():
            return _nosana(name, checked, rates, transport, environ)
        case NosanaDeploymentSettings():
            return _nosana_deployment(name, checked, rates, transport, environ)
        case NosanaOnChainSettings():
            return _nosana_onchain(name, checked, rates, chain, transport, environ)
        case RenderSettings():
            return _render(name, checked, rates, transport, environ)


def _openai(
    name: str,
    settings: OpenAISettings,
    rates: Rates,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> ChatCompute:
    key = read_secret("api_key", settings.api_key, settings.api_key_file, settings.api_key_env, environ)
    owner = {"OpenAI-Organization": settings.organization, "OpenAI-Project": settings.project}
    http = _http(name, settings.base_url, settings, {**_bearer(key), **owner}, key, transport)
    by_server: dict[str, Any] = {"openai": "max_completion_tokens"}
    dictation = Dictation(
        token_limit_field=settings.token_limit_field or by_server.get(settings.server, "max_tokens"),
        send_sampling=settings.send_sampling,
        by_stream=settings.server == "llamacpp",
        reasoning_tag=settings.reasoning_tag,
        extra={**_UNDO_DEFAULTS.get(settings.server, {}), **settings.extra_body},
    )
    return ChatCompute(
        name,
        OpenAIChat(http, dictation),
        recovery=Recovery.REPEAT if settings.free else Recovery.NEITHER,
        price_of=FREE if settings.free else _listed(settings.model_prices),
        rates=rates,
        limits=_limits(settings),
    )


def _openai_batch(
    name: str,
    settings: OpenAIBatchSettings,
    rates: Rates,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> BatchCompute:
    key = read_secret("api_key", settings.api_key, settings.api_key_file, settings.api_key_env, environ)
    owner = {"OpenAI-Organization": settings.organization, "OpenAI-Project": settings.project}
    api = BatchApi(_http(name, settings.base_url, settings, {**_bearer(key), **owner}, key, transport))
    return BatchCompute(
        name,
        api,
        BatchList(api, horizon_seconds=settings.look_up_seconds),
        _listed(settings.model_prices),
        terms=BatchTerms(
            discount=settings.discount,
            gather_seconds=settings.gather_seconds,
            poll_seconds=settings.poll_seconds,
            expected_seconds=settings.expected_seconds,
        ),
        dictation=Dictation(
            token_limit_field=settings.token_limit_field,
            send_sampling=settings.send_sampling,
            extra=settings.extra_body,
        ),
        rates=rates,
    )


def _ionet(
    name: str,
    settings: IoNetSettings,
    rates: Rates,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> ChatCompute:
    key = read_secret("api_key", settings.api_key, settings.api_key_file, settings.api_key_env, environ)
    dialect = Dialect(credit_words=tuple(word.lower() for word in settings.credit_words))
    http = _http(name, settings.base_url, settings, _bearer(key), key, transport, dialect)
    usage = None
    if settings.usage_url is not None:
        usage = _http(name, settings.usage_url, settings, {"x-api-key": key}, key, transport, dialect)
    chat = IoNetChat(http, usage=usage, extra=settings.extra_body, catalogue_seconds=settings.catalogue_seconds)
    listed = _listed(settings.model_prices)

    async def price_of(model: str) -> TokenPrice:
        return await (listed if model in settings.model_prices else chat.price_of)(model)

    return ChatCompute(
        name,
        chat,
        price_of=price_of,
        rates=rates,
        limits=_limits(settings),
        check=chat.check,
        balance=chat.balance,
    )


def _ionet_cloud(
    name: str,
    settings: IoNetCloudSettings,
    rates: Rates,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> RentedCompute:
    key = read_secret("api_key", settings.api_key, settings.api_key_file, settings.api_key_env, environ)
    if key is None:
        raise errors.SETTINGS_INVALID(f"{name}: ionet_cloud needs an api_key")
    token = read_secret(
        "huggingface_token", None, settings.huggingface_token_file, settings.huggingface_token_env, environ
    )
    blueprint = Blueprint(
        settings.engine,
        settings.image or IONET_IMAGES[settings.engine],
        settings.repository,
        tuple(settings.arguments),
        settings.environment,
        token,
    )
    wanted = WantedHardware(
        tuple(settings.hardware),
        tuple(settings.locations),
        settings.gpus_per_container,
        settings.duration_hours,
        settings.max_usd_per_hour,
    )
    landlord = IoCloud(
        _http(name, settings.base_url, settings, {"X-API-KEY": key}, key, transport),
        wanted,
        lambda container: blueprint.container(key_of(container, key)),
    )

    def connect(rental: Rental) -> OpenAIServer:
        return _rented_server(
            name, rental, settings, settings.engine, settings.repository, key_of(rental.name, key), transport
        )

    naming = blueprint.naming(settings.name_prefix, name, key)
    return _rented(name, settings, settings.repository, landlord, connect, naming, rates)


def _rented(
    name: str,
    settings: RentedSettings,
    model: str,
    landlord: Landlord,
    connect: Callable[[Rental], OpenAIServer],
    naming: Naming,
    rates: Rates,
    *,
    prompts_public: bool = False,
) -> RentedCompute:
    patience = Patience(
        boot=settings.boot_seconds, expected_boot=settings.expected_boot_seconds, idle=settings.idle_seconds
    )
    answers = settings.expected_answers
    server = RentedServer(landlord, connect, naming, patience=patience, expected_answers=answers)
    terms = RentedTerms(model, answers, settings.expected_seconds, prompts_public)
    limits = Limits(concurrent_jobs=settings.max_concurrent_jobs, kept_jobs=settings.max_kept_jobs)
    return RentedCompute(name, landlord, server, terms, patience, limits=limits, rates=rates)


def _rented_server(
    name: str,
    rental: Rental,
    settings: RentedSettings,
    engine: str,
    model: str,
    key: str,
    transport: httpx.AsyncBaseTransport | None,
) -> OpenAIServer:
    assert rental.address is not None
    dictation = Dictation(by_stream=engine == "llamacpp", extra=_UNDO_DEFAULTS.get(engine, {}))
    http = _http(name, rental.address, settings, _bearer(key), key, transport)
    root = _http(name, rental.address.removesuffix("/v1"), settings, {}, key, transport)
    return OpenAIServer(OpenAIChat(http, dictation), None if engine == "ollama" else root, model)


def _nosana(
    name: str,
    settings: NosanaSettings,
    rates: Rates,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> NosanaCompute:
    key = read_secret("api_key", settings.api_key, settings.api_key_file, settings.api_key_env, environ)
    if key is None:
        raise errors.SETTINGS_INVALID(f"{name}: nosana needs an api_key")
    api = _nosana_api(name, settings, key, transport, environ)
    return NosanaCompute(
        name,
        api,
        _terms(settings),
        MarketPlace(api, _wanted(settings), nos_usd=rates.nos_usd),
        LookUp(api, api_key=key, project=settings.project, horizon_seconds=settings.look_up_seconds),
        Purchase(api),
        rates=rates,
    )


def _nosana_onchain(
    name: str,
    settings: NosanaOnChainSettings,
    rates: Rates,
    chain: ChainAccess | None,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> NosanaOnChain:
    if chain is None:
        raise errors.SETTINGS_INVALID(f"{name}: nosana_onchain needs a cluster, an operator key and a database")
    api = _nosana_api(name, settings, None, transport, environ)
    markets = ChainMarkets(api, chain.view, _wanted(settings), rates.nos_usd)
    return NosanaOnChain(name, api, chain, Program(settings.cluster), _terms(settings), markets, rates=rates)


def _nosana_deployment(
    name: str,
    settings: NosanaDeploymentSettings,
    rates: Rates,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> RentedCompute:
    key = read_secret("api_key", settings.api_key, settings.api_key_file, settings.api_key_env, environ)
    if key is None:
        raise errors.SETTINGS_INVALID(f"{name}: nosana_deployment needs an api_key")
    image = settings.image or templates.IMAGES[settings.engine]
    blueprint = serving.Blueprint(settings.engine, image, settings.repository, settings.min_vram_gb, settings.replicas)
    rest = _http(name, settings.base_url, settings, _bearer(key), key, transport)
    # Definitions go inline, and Nosana pins them: nothing is pinned or read through a gateway of ours.
    api = NosanaApi(rest, rest, rest, listing=Pace())
    landlord = NosanaLandlord(
        DeploymentsApi(rest),
        api,
        MarketPlace(api, _wanted(settings), nos_usd=rates.nos_usd),
        blueprint,
        key,
        timeout_minutes=settings.lasts_minutes,
        nos_usd=rates.nos_usd,
    )

    def connect(rental: Rental) -> OpenAIServer:
        server_key = serving.key_of(rental.name, key)
        return _rented_server(name, rental, settings, settings.engine, settings.repository, server_key, transport)

    naming = blueprint.naming(settings.name_prefix, name, key)
    is_public = not settings.strangers_may_read
    return _rented(name, settings, settings.repository, landlord, connect, naming, rates, prompts_public=is_public)


def _nosana_api(
    name: str,
    settings: NosanaJobsSettings,
    key: str | None,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> NosanaApi:
    jwt = read_secret("pinata_jwt", settings.pinata_jwt, settings.pinata_jwt_file, settings.pinata_jwt_env, environ)
    if jwt is None:
        raise errors.SETTINGS_INVALID(f"{name}: Nosana needs a pinata_jwt")
    return NosanaApi(
        _http(name, settings.base_url, settings, _bearer(key), key, transport),
        _http(name, settings.pinning_url, settings, _bearer(jwt), jwt, transport),
        _http(name, settings.gateway_url, settings, {}, None, transport),
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


def _render(
    name: str,
    settings: RenderSettings,
    rates: Rates,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> RenderCompute:
    secret = read_secret("secret_key", settings.secret_key, settings.secret_key_file, settings.secret_key_env, environ)
    if settings.public_key is None or secret is None:
        raise errors.SETTINGS_INVALID(f"{name}: render needs a public_key and a secret_key")
    # The status for an empty account is not known (render.md §11).
    dialect = Dialect(credit_words=("credit", "balance", "insufficient"))
    api = DispersedApi(
        _http(name, settings.base_url, settings, {}, secret, transport, dialect), settings.public_key, secret
    )
    terms = RenderTerms(
        image=settings.image,
        tag=settings.tag,
        port=settings.port,
        kind=settings.job_kind,
        environment=tuple(settings.environment.items()),
        models=tuple(settings.models),
        min_vram_gb=settings.min_vram_gb,
        min_ram_gb=settings.min_ram_gb,
        min_storage_gb=settings.min_storage_gb,
        cpu_count=settings.cpu_count,
        regions=tuple(settings.regions),
        max_queue_seconds=settings.max_queue_seconds,
        max_start_seconds=settings.max_start_seconds,
        expected_seconds=settings.expected_seconds,
    )
    dictation = Dictation(by_stream=True, extra=_UNDO_DEFAULTS["llamacpp"])

    def serve(address: str, key: str) -> LlamaServer:
        root = _http(name, address, settings, {}, key, transport)
        chat = _http(name, f"{address}/v1", settings, _bearer(key), key, transport)
        return LlamaServer(root, OpenAIChat(chat, dictation))

    return RenderCompute(
        name,
        api,
        terms,
        Offers(api, terms, settings.max_usd_per_hour),
        Listing(api, horizon_seconds=settings.look_up_seconds),
        serve,
        secret=secret,
        rates=rates,
        look_seconds=settings.look_seconds,
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


def _local(name: str, settings: LocalSettings, environ: Mapping[str, str]) -> ChatCompute:
    chat = LocalChat(
        name,
        settings.directory or weights_directory(environ),
        threads=settings.threads,
        context_tokens=settings.context_tokens,
    )
    # One at a time: a job that waits here is known to be unsent, one that waits inside llama.cpp is not.
    limits = Limits(concurrent_jobs=1, kept_jobs=settings.max_kept_jobs)
    return ChatCompute(name, chat, recovery=Recovery.REPEAT, limits=limits)


def _http(
    name: str,
    base_url: str,
    settings: HttpSettings,
    headers: Mapping[str, str | None],
    key: str | None,
    transport: httpx.AsyncBaseTransport | None,
    dialect: Dialect = OPENAI_DIALECT,
) -> Http:
    return Http(
        name,
        base_url,
        pace=Pace(per_second=settings.requests_per_second, at_once=_calls_at_once(settings)),
        headers={header: value for header, value in headers.items() if value},
        secrets=(key,) if key else (),
        timeouts=Timeouts(connect=settings.connect_seconds, silence=settings.silence_seconds),
        max_answer_bytes=settings.max_answer_bytes,
        dialect=dialect,
        transport=transport,
    )


def _calls_at_once(settings: HttpSettings) -> int:
    """A few more than jobs, so that a long job does not keep a question about models or balance waiting."""
    return settings.max_concurrent_jobs + 4 if isinstance(settings, ChattingSettings | RentedSettings) else 8


def _bearer(key: str | None) -> dict[str, str | None]:
    return {"Authorization": f"Bearer {key}" if key else None}


def _limits(settings: ChattingSettings) -> Limits:
    return Limits(concurrent_jobs=settings.max_concurrent_jobs, kept_jobs=settings.max_kept_jobs)


def _listed(prices: Mapping[str, ModelPrice]) -> PriceOf:
    """Prices as configured. A model that is not listed has none: nothing is bought at a price nobody knows."""

    async def price_of(model: str) -> TokenPrice:
        price = prices.get(model)
        if price is None:
            raise errors.PRICE_UNKNOWN(f"model {model!r} is not under model_prices")
        return TokenPrice(price.input_usd_per_million_tokens, price.output_usd_per_million_tokens)

    return price_of
