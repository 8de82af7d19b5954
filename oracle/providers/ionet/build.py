"""From settings to io.net: its chat API, and its containers."""

from __future__ import annotations

from oracle.providers.chat import ChatCompute
from oracle.providers.failures import Dialect
from oracle.providers.ionet.client import IoNetChat
from oracle.providers.ionet.cloud import IoCloud
from oracle.providers.ionet.cloud_container import IMAGES, Blueprint, key_of
from oracle.providers.ionet.cloud_wire import Wanted
from oracle.providers.openai.build import limits_of, listed
from oracle.providers.pricing import TokenPrice
from oracle.providers.rented.build import rented, rented_server
from oracle.providers.rented.compute import RentedCompute
from oracle.providers.rented.landlord import Rental
from oracle.providers.rented.openai import OpenAIServer
from oracle.providers.settings import IoNetCloudSettings, IoNetSettings
from oracle.providers.site import Site, bearer


def ionet(site: Site, settings: IoNetSettings) -> ChatCompute:
    key = site.secret(settings, "api_key")
    dialect = Dialect(credit_words=tuple(word.lower() for word in settings.credit_words))
    http = site.http(settings.base_url, settings, bearer(key), key, dialect)
    usage = None
    if settings.usage_url is not None:
        usage = site.http(settings.usage_url, settings, {"x-api-key": key}, key, dialect)
    chat = IoNetChat(http, usage=usage, extra=settings.extra_body, catalogue_seconds=settings.catalogue_seconds)
    stated = listed(settings.model_prices)

    async def price_of(model: str) -> TokenPrice:
        return await (stated if model in settings.model_prices else chat.price_of)(model)

    return ChatCompute(
        site.name,
        chat,
        price_of=price_of,
        rates=site.rates,
        limits=limits_of(settings),
        check=chat.check,
        balance=chat.balance,
    )


def ionet_cloud(site: Site, settings: IoNetCloudSettings) -> RentedCompute:
    key = site.needed_secret(settings, "api_key", settings.kind)
    blueprint = Blueprint(
        settings.engine,
        settings.image or IMAGES[settings.engine],
        settings.repository,
        tuple(settings.arguments),
        settings.environment,
        site.secret(settings, "huggingface_token"),
    )
    wanted = Wanted(
        tuple(settings.hardware),
        tuple(settings.locations),
        settings.gpus_per_container,
        settings.duration_hours,
        settings.max_usd_per_hour,
    )
    landlord = IoCloud(
        site.http(settings.base_url, settings, {"X-API-KEY": key}, key),
        wanted,
        lambda container: blueprint.container(key_of(container, key)),
    )

    def connect(rental: Rental) -> OpenAIServer:
        return rented_server(site, rental, settings, settings.engine, settings.repository, key_of(rental.name, key))

    naming = blueprint.naming(settings.name_prefix, site.name, key)
    return rented(site, settings, settings.repository, landlord, connect, naming)
