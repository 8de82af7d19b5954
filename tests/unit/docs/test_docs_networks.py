"""The table of networks has a row for every kind, and says of prompts what the adapters declare."""

from __future__ import annotations

from typing import Any, cast, get_args

import pytest
from docs_pages import ROOT

from oracle.core.purchase import ChainAccess
from oracle.providers.registry import ProviderSettings, build
from oracle.providers.sources.settings import SourceSettings

HEADER, _, *TABLE = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in (ROOT / "docs/reference/networks.md").read_text().splitlines()
    if line.startswith("|")
]
ROWS = {row[HEADER.index("kind")].strip("`"): dict(zip(HEADER, row, strict=True)) for row in TABLE}
KEY = {"api_key": "key"}
SERVER = KEY | {"repository": "owner/name"}
NEEDED: dict[str, dict[str, Any]] = {
    "ionet_cloud": SERVER | {"hardware": [1]},
    "nosana": KEY | {"pinata_jwt": "jwt"},
    "nosana_onchain": {"pinata_jwt": "jwt"},
    "nosana_deployment": SERVER,
    "render": {"public_key": "key", "secret_key": "secret"},
}


def kinds(union: Any) -> set[str]:
    return {settings.model_fields["kind"].default for settings in get_args(get_args(union)[0])}


def test_every_kind_of_provider_and_data_network_has_a_row() -> None:
    assert set(ROWS) == kinds(ProviderSettings) | kinds(SourceSettings)
    assert len(TABLE) == len(ROWS)
    assert all(all(row.values()) for row in ROWS.values())


@pytest.mark.parametrize("kind", sorted(kinds(ProviderSettings)))
async def test_where_prompts_become_public_is_what_the_adapter_declares(kind: str) -> None:
    access = ChainAccess(cast(Any, None), cast(Any, None))
    provider = build("any", {"kind": kind, **NEEDED.get(kind, {})}, chain=access, environ={})
    said = ROWS[kind]["prompts public"].partition(":")[0]
    assert said == ("yes" if provider.capabilities.prompts_public else "no")
