"""Every kind of provider, and from settings to a working one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import httpx
from pydantic import Field, TypeAdapter, ValidationError

from oracle.core.compute import Compute
from oracle.core.purchase import ChainAccess
from oracle.providers import errors
from oracle.providers.ionet.build import ionet, ionet_cloud
from oracle.providers.local.build import local
from oracle.providers.nosana.build import nosana, nosana_deployment, nosana_onchain
from oracle.providers.nosana.program import Cluster
from oracle.providers.openai.build import openai, openai_batch
from oracle.providers.pricing import NO_RATES, Rates
from oracle.providers.render.build import render
from oracle.providers.settings import (
    IoNetCloudSettings,
    IoNetSettings,
    LocalSettings,
    NosanaDeploymentSettings,
    NosanaOnChainSettings,
    NosanaSettings,
    OpenAIBatchSettings,
    OpenAISettings,
    RenderSettings,
)
from oracle.providers.site import Site

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
    site = Site(name, rates, chain, transport, environ)
    checked = parse(settings) if isinstance(settings, Mapping) else settings
    match checked:
        case OpenAISettings():
            return openai(site, checked)
        case OpenAIBatchSettings():
            return openai_batch(site, checked)
        case LocalSettings():
            return local(site, checked)
        case IoNetSettings():
            return ionet(site, checked)
        case IoNetCloudSettings():
            return ionet_cloud(site, checked)
        case NosanaSettings():
            return nosana(site, checked)
        case NosanaDeploymentSettings():
            return nosana_deployment(site, checked)
        case NosanaOnChainSettings():
            return nosana_onchain(site, checked)
        case RenderSettings():
            return render(site, checked)
