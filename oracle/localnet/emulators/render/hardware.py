"""What can be rented, as `GET /v1/compute/offers` shows it (§7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Hardware:
    """A kind of node."""

    gpu_registry_uuid: str
    gpu_name: str
    usd_per_hour: Decimal
    vram_gb: int
    gpu_count: int = 1
    ram_gb: int = 64
    storage_gb: int = 500
    cpu_count: int = 16
    region: str = "us-west-2"

    def as_offer(self, now: float) -> dict[str, Any]:
        return {
            "offer_id": f"offer-{self.gpu_registry_uuid}",
            "region_code": self.region,
            "availability": {},
            "hardware_summary": {
                "cpu_cores": self.cpu_count,
                "gpu_count": self.gpu_count,
                "gpu_model_label": self.gpu_name,
                "gpu_models": [
                    {
                        "name": self.gpu_name,
                        "count": self.gpu_count,
                        "gpu_registry_uuid": self.gpu_registry_uuid,
                        "min_vram_gib": self.vram_gb,
                    }
                ],
                "gpu_registry_uuid": self.gpu_registry_uuid,
                "min_gpu_vram_gib": self.vram_gb,
                "ram_gib": self.ram_gb,
                "storage_gib": self.storage_gb,
            },
            "pricing": {"hourly_rate_usd": float(self.usd_per_hour), "quoted_at": iso_time(now)},
        }

    def fits(self, wanted: Mapping[str, Any]) -> bool:
        """Whether a node of this kind could take what is wanted, by the names of the job's fields."""
        return (
            wanted.get("gpu_registry_uuid") in (None, self.gpu_registry_uuid)
            and wanted.get("gpu_name") in (None, self.gpu_name)
            and (wanted.get("gpu_count") or 0) <= self.gpu_count
            and (wanted.get("min_vram_gb") or 0) <= self.vram_gb
            and (wanted.get("min_ram_gb") or 0) <= self.ram_gb
            and (wanted.get("min_storage_gb") or 0) <= self.storage_gb
            and (wanted.get("cpu_count") or 0) <= self.cpu_count
            and (not wanted.get("allowed_region_codes") or self.region in wanted["allowed_region_codes"])
        )


HARDWARE = (
    Hardware("0198ac1c-7063-4be8-bb94-57a5bd835490", "NVIDIA RTX 3090", Decimal("0.31"), 24),
    Hardware("0198ac1c-7063-4be8-bb94-57a5bd8354a0", "NVIDIA RTX 4090", Decimal("0.35"), 24),
    Hardware("0198ac1c-7063-4be8-bb94-57a5bd83548e", "NVIDIA RTX 5090", Decimal("0.69"), 32),
)
"""Rates of RNP-019 (§7)."""

MANY_GPUS_USD_PER_HOUR = Decimal("4.14")
"""What a node of six cost, on which a job for one GPU was once placed (§7)."""


def iso_time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
