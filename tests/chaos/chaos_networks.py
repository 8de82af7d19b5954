"""Networks that sell to one oracle alone, so that their own books tell what it has bought and what it left running."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oracle.localnet.emulators.ionet import CLOUD_KEY, ApiKey, Ionet, IonetCloud
from oracle.localnet.emulators.nosana import Account as Customer
from oracle.localnet.emulators.nosana import Nosana
from oracle.localnet.emulators.openai_batches import OpenAIBatches
from oracle.localnet.emulators.render import Render
from oracle.localnet.emulators.server import Emulator

GPU_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

STUBBORN = {"max_attempts": 20}
"""A purchase that crash after crash has interrupted is an attempt each time, and none of them is to be the last."""

Books = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sold:
    """Something that is paid for, from when to when in unix seconds; None while it runs."""

    began: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class Network:
    """`sold` reads its books. `rents` says that what it sells is a server, of which there may be one at a time."""

    emulator: Callable[[str], Emulator]
    settings: Mapping[str, Any]
    base_path: str
    sold: Callable[[Books], Sequence[Sold]]
    rents: bool = False
    route: Mapping[str, Any] = field(default_factory=dict)

    def provider(self, url: str) -> dict[str, Any]:
        return {**self.settings, "base_url": f"{url}{self.base_path}"}

    def models(self, name: str) -> dict[str, Any]:
        return {
            name: {"routes": [{"provider": name, "model": GPU_MODEL, "timeout_seconds": 60, **STUBBORN, **self.route}]}
        }


def _containers(books: Books) -> list[Sold]:
    ended = ("COMPLETED", "FAILED", "CANCELLED", "CANCELLING")
    return [Sold(0.0, 0.0 if job["status"] in ended else None) for job in books["jobs"]]


def _rentals(books: Books) -> list[Sold]:
    return [Sold(rental["created_at"], rental["deleted_at"]) for rental in books["rentals"]]


def _deployed(books: Books) -> list[Sold]:
    """A deployment costs what its jobs cost; one that was taken back from the queue never ran."""
    return [Sold(job["listed_at"], job["time_end"] or None) for job in books["jobs"] if not job["delisted"]]


def _executed(books: Books) -> list[Sold]:
    return [Sold(0.0, 0.0) for _ in books["executed"]]


def _inferences(books: Books) -> list[Sold]:
    return [Sold(0.0, 0.0) for _ in books["inferences"]]


_PRICE = {"input_usd_per_million_tokens": "1", "output_usd_per_million_tokens": "1"}
_RENTED = {"repository": GPU_MODEL, "expected_boot_seconds": 1, "expected_seconds": 1, "idle_seconds": 1}

NETWORKS: Mapping[str, Network] = {
    "container": Network(
        Render,
        {
            "kind": "render",
            "public_key": "pk_localnet",
            "secret_key": "sk_localnet",
            "expected_seconds": 1.0,
            "look_seconds": 0.05,
        },
        "",
        _containers,
    ),
    "cloud": Network(
        IonetCloud,
        {"kind": "ionet_cloud", "api_key": CLOUD_KEY.value, "hardware": [12], **_RENTED},
        "/enterprise/v1/io-cloud/caas",
        _rentals,
        rents=True,
    ),
    "deployment": Network(
        Nosana,
        {"kind": "nosana_deployment", "api_key": Customer().api_key, **_RENTED},
        "",
        _deployed,
        rents=True,
    ),
    "batch": Network(
        OpenAIBatches,
        {
            "kind": "openai_batch",
            "api_key": "sk-localnet",
            "gather_seconds": 0.1,
            "poll_seconds": 0.1,
            "expected_seconds": 1.0,
            "model_prices": {GPU_MODEL: _PRICE},
        },
        "/v1",
        _executed,
        route={"timeout_seconds": 90_000},
    ),
    "intelligence": Network(
        Ionet,
        {"kind": "ionet", "api_key": ApiKey().value},
        "/api/v1",
        _inferences,
    ),
}
"""By the name of the model that is bought there, which is the provider's name, too."""
