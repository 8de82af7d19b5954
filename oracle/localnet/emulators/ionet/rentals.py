"""GPU containers by the hour: what can be rented, and the life of a rental (§4.2 to §4.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Any

RESERVATION_FEE = Decimal("0.0025")
FACILITATION_FEE = Decimal("0.02")


@dataclass(frozen=True, slots=True)
class Hardware:
    """A configuration that can be rented. `usd_per_hour` is for one container with one GPU."""

    id: int | str
    name: str
    usd_per_hour: Decimal
    locations: tuple[int | str, ...] = (1,)
    max_gpus_per_container: int = 8
    available: int = 8


HARDWARE = (
    Hardware(12, "GeForce RTX 4090", Decimal("0.30")),
    Hardware(3, "GeForce RTX 3090", Decimal("0.27")),
    Hardware("gpu_1x_l40", "L40", Decimal("0.6615"), ("US",)),
)
LOCATIONS: Mapping[int | str, dict[str, Any]] = {
    1: {"id": 1, "name": "United States", "iso2": "US", "available": 8},
    "US": {"id": "US", "name": "United States", "iso2": "US", "available": 8},
}
STATUSES = (
    "running",
    "completed",
    "failed",
    "deployment requested",
    "termination requested",
    "destroyed",
)


class RentalFault(StrEnum):
    """What can go wrong with a rental. The subject is its name."""

    PROVISION_FAILS = "provision_fails"
    NEVER_READY = "never_ready"
    """Running and billed, but `public_url` stays null."""
    CONTAINER_DIES = "container_dies"
    """`public_url` is there and answers 502."""
    UPPER_CASE = "upper_case"
    """Statuses in upper case, as they were seen too."""
    ID_AS_CLUSTER_ID = "id_as_cluster_id"
    """`/deploy` answers the id under another key, which is not guaranteed."""
    ID_AS_ID = "id_as_id"


@dataclass(frozen=True, slots=True)
class Rental:
    """One deployment. What it is now follows from its times, in unix seconds. `config` is the container's."""

    id: str
    name: str
    key_id: str
    hardware_id: int | str
    location_id: int | str
    gpus_per_container: int
    config: dict[str, Any]
    image_url: str
    paid_usd: str
    created_at: float
    started_at: float
    ready_at: float
    ends_at: float
    destroy_seconds: float
    fault: str | None = None
    deleted_at: float | None = None

    @property
    def containers(self) -> list[str]:
        return [f"{self.id}-{n}" for n in range(self.config["replica_count"])]

    def status(self, now: float) -> str:
        """As documented, in lower case."""
        if self.deleted_at is not None:
            return "destroyed" if now >= self.deleted_at + self.destroy_seconds else "termination requested"
        if now < self.started_at:
            return "deployment requested"
        if self.fault == RentalFault.PROVISION_FAILS:
            return "failed"
        return "running" if now < self.ends_at else "completed"

    def is_ready(self, now: float) -> bool:
        """Whether its containers have an address yet: some time after `running` (§4.4)."""
        return self.status(now) == "running" and now >= self.ready_at and self.fault != RentalFault.NEVER_READY


def quote(hardware: Hardware, hours: int, gpus: int, replicas: int) -> dict[str, Any]:
    """The fields of `GET /price`. The fees in USDC are documented (§4.5), how they are rounded is not."""
    base = hardware.usd_per_hour * hours * gpus * replicas
    fee, conversion = _money(base * RESERVATION_FEE), _money(base * FACILITATION_FEE)
    return {
        "replica_count": replicas,
        "gpus_per_container": gpus,
        "available_replica_count": [hardware.available],
        "discount": 0,
        "ionet_fee": float(fee),
        "ionet_fee_percent": float(RESERVATION_FEE * 100),
        "currency_conversion_fee": float(conversion),
        "currency_conversion_fee_percent": float(FACILITATION_FEE * 100),
        "total_cost_usdc": float(_money(base + fee + conversion)),
    }


def naive_time(seconds: float | None) -> str | None:
    """Without a zone, as the service writes it (§4.4)."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def _money(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.000001"), ROUND_HALF_UP)
