"""What every provider that rents a server out is put together from."""

from __future__ import annotations

from collections.abc import Callable

from oracle.providers.chat import Limits
from oracle.providers.openai.build import UNDO_DEFAULTS
from oracle.providers.openai.client import OpenAIChat
from oracle.providers.openai.wire import Dictation
from oracle.providers.rented.boot import Patience
from oracle.providers.rented.compute import RentedCompute, RentedTerms
from oracle.providers.rented.landlord import Landlord, Naming, Rental
from oracle.providers.rented.openai import OpenAIServer
from oracle.providers.rented.server import RentedServer
from oracle.providers.settings import RentedSettings
from oracle.providers.site import Site, bearer


def rented(
    site: Site,
    settings: RentedSettings,
    model: str,
    landlord: Landlord,
    connect: Callable[[Rental], OpenAIServer],
    naming: Naming,
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
    return RentedCompute(site.name, landlord, server, terms, patience, limits=limits, rates=site.rates)


def rented_server(
    site: Site, rental: Rental, settings: RentedSettings, engine: str, model: str, key: str
) -> OpenAIServer:
    assert rental.address is not None
    dictation = Dictation(by_stream=engine == "llamacpp", extra=UNDO_DEFAULTS.get(engine, {}))
    http = site.http(rental.address, settings, bearer(key), key)
    root = site.http(rental.address.removesuffix("/v1"), settings, {}, key)
    return OpenAIServer(OpenAIChat(http, dictation), None if engine == "ollama" else root, model)
