"""From settings to Render's compute subnet."""

from __future__ import annotations

from oracle.providers import errors
from oracle.providers.failures import Dialect
from oracle.providers.openai.build import UNDO_DEFAULTS
from oracle.providers.openai.client import OpenAIChat
from oracle.providers.openai.wire import Dictation
from oracle.providers.render.api import DispersedApi
from oracle.providers.render.compute import RenderCompute
from oracle.providers.render.container import Terms
from oracle.providers.render.listing import Listing
from oracle.providers.render.offers import Offers
from oracle.providers.render.server import LlamaServer
from oracle.providers.settings import RenderSettings
from oracle.providers.site import Site, bearer


def render(site: Site, settings: RenderSettings) -> RenderCompute:
    secret = site.secret(settings, "secret_key")
    if settings.public_key is None or secret is None:
        raise errors.SETTINGS_INVALID(f"{site.name}: render needs a public_key and a secret_key")
    # The status for an empty account is not known (render.md §11).
    dialect = Dialect(credit_words=("credit", "balance", "insufficient"))
    api = DispersedApi(site.http(settings.base_url, settings, {}, secret, dialect), settings.public_key, secret)
    terms = Terms(
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
    dictation = Dictation(by_stream=True, extra=UNDO_DEFAULTS["llamacpp"])

    def serve(address: str, key: str) -> LlamaServer:
        root = site.http(address, settings, {}, key)
        chat = site.http(f"{address}/v1", settings, bearer(key), key)
        return LlamaServer(root, OpenAIChat(chat, dictation))

    return RenderCompute(
        site.name,
        api,
        terms,
        Offers(api, terms, settings.max_usd_per_hour),
        Listing(api, horizon_seconds=settings.look_up_seconds),
        serve,
        secret=secret,
        rates=site.rates,
        look_seconds=settings.look_seconds,
    )
