"""Every option of every data network, as `[sources.NAME]` of the configuration holds them; `kind` tells them apart."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from oracle.providers.settings import Usd


class _Reading(BaseModel):
    """Options of every data network. A misspelled one is an error, and a secret in it is not repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    max_bytes: int = Field(
        16_384, ge=64, le=1_048_576, description="Most data that a model is shown, in bytes; more is declined"
    )
    timeout_seconds: float = Field(20.0, gt=0, le=45, description="Time for one fetch with all its pages")
    requests_per_second: float = Field(2.0, gt=0, description="Most calls in a second")
    max_answer_bytes: int = Field(8_388_608, ge=1024, description="Largest answer read into memory")


class _Keyed(_Reading):
    api_key: SecretStr | None = Field(None, description="API key. Prefer `api_key_file` or `api_key_env`")
    api_key_file: Path | None = Field(None, description="File that holds the API key, such as a systemd credential")
    api_key_env: str | None = Field(None, description="Environment variable that holds the API key")


class BeemapsSettings(_Keyed):
    """Hivemapper's map, over the REST API of Bee Maps, which is paid for with credits."""

    kind: Literal["beemaps"] = "beemaps"
    base_url: str = Field("https://beemaps.com/api/developer", description="Address up to `/api/developer`")
    auth: Literal["header", "query"] = Field(
        "header",
        description="Where the key is sent: `header` as `Authorization: Basic KEY`, with the key exactly as you give "
        "it (sources disagree whether that is the key itself or base64 of `OrgID:key`), or `query` as `?apiKey=`",
    )
    max_area_km2: float = Field(1.0, gt=0, le=5, description="Largest area of one query; the network allows 5")
    usd_per_fetch: Usd = Field(
        Decimal("0.30"),
        description="What one fetch is reckoned to cost in USD. The fee must cover it before anything is fetched. The "
        "default is a hundred detections at 3 USD a thousand, a price that is not verified",
    )


class HeliumSettings(_Reading):
    """Helium's public data: the Entity API, token supplies on Solana, and files that you make of its oracles' data."""

    kind: Literal["helium"] = "helium"
    base_url: str = Field("https://entities.nft.helium.io", description="Address of the Entity API, which needs no key")
    max_pages: int = Field(20, ge=1, le=500, description="Most pages of hotspots read for one query")
    rpc_url: SecretStr | None = Field(
        None, description="Solana RPC endpoint for `supply/…`, which is not served where it is not set"
    )
    files: Path | None = Field(
        None, description="Directory of .json and .jsonl files for `files/…`, which is not served where it is not set"
    )


class GrassSettings(_Keyed):
    """Web data. Grass has no public API to ask: name a service of yours, or a directory of collected files."""

    kind: Literal["grass"] = "grass"
    endpoint: str | None = Field(
        None, description="Service of yours that answers `GET /search` and `GET /page`; a key is sent as Bearer token"
    )
    files: Path | None = Field(None, description="Directory of .json and .jsonl files for `files/…`")
    max_document_characters: int = Field(4_000, ge=100, le=1_000_000, description="Where the text of a document is cut")
    usd_per_fetch: Usd = Field(
        Decimal(0), description="What one call of the service costs in USD; the fee must cover it beforehand"
    )


SourceSettings = Annotated[BeemapsSettings | HeliumSettings | GrassSettings, Field(discriminator="kind")]
"""One `[sources.NAME]` table of the configuration."""
