"""From settings to a working data network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError

from oracle.core.compute import Source
from oracle.providers import errors
from oracle.providers.failures import OPENAI_DIALECT, Dialect
from oracle.providers.http import Http, Timeouts
from oracle.providers.pace import Pace
from oracle.providers.pricing import NO_RATES, Rates
from oracle.providers.secrets import read_secret
from oracle.providers.sources.beemaps import BeeMaps
from oracle.providers.sources.files import Files
from oracle.providers.sources.grass import Endpoint, Grass
from oracle.providers.sources.helium import Helium
from oracle.providers.sources.normal import origin_of
from oracle.providers.sources.settings import BeemapsSettings, GrassSettings, HeliumSettings, SourceSettings

_SETTINGS: TypeAdapter[SourceSettings] = TypeAdapter(SourceSettings)

# What tells a 403 or 429 about credit from one about the key or the rate; which status Bee Maps uses is not known.
_CREDIT: Dialect = Dialect(credit_words=("credit", "balance", "quota", "billing"))


def parse(settings: Mapping[str, Any]) -> SourceSettings:
    """Checked settings. Raises ORC-PROVIDER-022, which names the option and never repeats its value."""
    try:
        return _SETTINGS.validate_python(settings)
    except ValidationError as error:
        findings = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise errors.SETTINGS_INVALID(findings) from None


def build(
    name: str,
    settings: SourceSettings | Mapping[str, Any],
    *,
    rates: Rates = NO_RATES,
    transport: httpx.AsyncBaseTransport | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Source:
    """The data network called `name`. `transport` replaces the network in tests. Raises ORC-PROVIDER-012, 021, 022."""
    checked = parse(settings) if isinstance(settings, Mapping) else settings
    match checked:
        case BeemapsSettings():
            return _beemaps(name, checked, rates, transport, environ)
        case HeliumSettings():
            return _helium(name, checked, transport)
        case GrassSettings():
            return _grass(name, checked, rates, transport, environ)


def _beemaps(
    name: str,
    settings: BeemapsSettings,
    rates: Rates,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> BeeMaps:
    key = read_secret("api_key", settings.api_key, settings.api_key_file, settings.api_key_env, environ)
    if key is None:
        raise errors.SETTINGS_INVALID(f"{name}: beemaps needs an api_key")
    headers = {"Authorization": f"Basic {key}"} if settings.auth == "header" else {}
    return BeeMaps(
        name,
        _http(name, settings.base_url, settings, headers, (key,), transport, _CREDIT),
        origin=origin_of(settings.base_url).rstrip("/"),
        key_params={} if headers else {"apiKey": key},
        max_area_km2=settings.max_area_km2,
        max_bytes=settings.max_bytes,
        seconds=settings.timeout_seconds,
        usd_per_fetch=settings.usd_per_fetch,
        rates=rates,
    )


def _helium(name: str, settings: HeliumSettings, transport: httpx.AsyncBaseTransport | None) -> Helium:
    rpc_url = settings.rpc_url.get_secret_value() if settings.rpc_url is not None else None
    return Helium(
        name,
        _http(name, settings.base_url, settings, {}, (), transport),
        _files(name, settings),
        origin=origin_of(settings.base_url).rstrip("/"),
        rpc=None if rpc_url is None else _http(name, rpc_url, settings, {}, (rpc_url,), transport),
        # The path of an RPC address is often its key.
        rpc_origin="" if rpc_url is None else origin_of(str(httpx.URL(rpc_url).copy_with(path="/"))).rstrip("/"),
        max_pages=settings.max_pages,
        max_bytes=settings.max_bytes,
        seconds=settings.timeout_seconds,
    )


def _grass(
    name: str,
    settings: GrassSettings,
    rates: Rates,
    transport: httpx.AsyncBaseTransport | None,
    environ: Mapping[str, str],
) -> Grass:
    key = read_secret("api_key", settings.api_key, settings.api_key_file, settings.api_key_env, environ)
    if settings.endpoint is None and settings.files is None:
        raise errors.SETTINGS_INVALID(f"{name}: Grass has no public API: set endpoint, files, or both")
    web = None
    if settings.endpoint is not None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        web = Endpoint(
            _http(name, settings.endpoint, settings, headers, (key,) if key else (), transport, _CREDIT),
            origin=origin_of(settings.endpoint).rstrip("/"),
            max_document_characters=settings.max_document_characters,
            seconds=settings.timeout_seconds,
            is_free=settings.usd_per_fetch == 0,
        )
    return Grass(
        name,
        web,
        _files(name, settings),
        max_bytes=settings.max_bytes,
        usd_per_fetch=settings.usd_per_fetch,
        rates=rates,
    )


def _http(
    name: str,
    base_url: str,
    settings: BeemapsSettings | HeliumSettings | GrassSettings,
    headers: Mapping[str, str],
    secrets: tuple[str, ...],
    transport: httpx.AsyncBaseTransport | None,
    dialect: Dialect = OPENAI_DIALECT,
) -> Http:
    return Http(
        name,
        base_url,
        pace=Pace(per_second=settings.requests_per_second, at_once=4),
        headers=headers,
        secrets=secrets,
        timeouts=Timeouts(silence=settings.timeout_seconds, total=settings.timeout_seconds),
        max_answer_bytes=settings.max_answer_bytes,
        dialect=dialect,
        transport=transport,
    )


def _files(name: str, settings: HeliumSettings | GrassSettings) -> Files:
    return Files(name, settings.files, max_bytes=settings.max_bytes, max_file_bytes=settings.max_answer_bytes)
