"""Markets: classes of GPU hosts with one price (§1.2, §4.7, §5, §7.8)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

NOS_USD = 0.27755
"""Makes a second of the 3060 market cost what the completed job of §7.4 says, 0.04796 USD an hour."""


@dataclass(frozen=True, slots=True)
class Market:
    """`price_micro_nos_per_second` is what jobs pay, network fee included. `hosts` is how many jobs run at once.

    What makes a market eligible for credits is not known (§4.7 presumes `client`), so it is a field of its own.
    """

    address: str
    slug: str
    name: str
    type: str
    usd_reward_per_hour: float
    nos_reward_per_second: float
    nos_job_price_per_second: float
    sft: str
    gpu_types: tuple[str, ...]
    lowest_vram: int
    required_images: tuple[str, ...] = ()
    credit_eligible: bool = True
    hosts: int = 4

    @property
    def price_micro_nos_per_second(self) -> int:
        return round(self.nos_job_price_per_second * 1e6)

    @property
    def job_usd_per_hour(self) -> float:
        return self.nos_job_price_per_second * 3600 * NOS_USD

    def reservation_micro_usd(self, seconds: int) -> int:
        """What is reserved for this long: whole thousandths of a dollar, as `costUSD` shows them (§7.3)."""
        return round(self.job_usd_per_hour * seconds / 3.6) * 1000

    def settlement_micro_usd(self, seconds: float) -> int:
        return math.ceil(self.job_usd_per_hour * 1e6 * seconds / 3600)

    def as_json(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "slug": self.slug,
            "name": self.name,
            "sft": self.sft,
            "type": self.type,
            "usd_reward_per_hour": self.usd_reward_per_hour,
            "nos_reward_per_second": self.nos_reward_per_second,
            "nos_job_price_per_second": self.nos_job_price_per_second,
            "network_fee_percentage": 10,
            "premium_community_relation": None,
            "gpu_types": list(self.gpu_types),
            "required_images": list(self.required_images),
            "required_remote_resources": [],
            "nodes": [],
            "client": self.credit_eligible,
            "max_usd_uptime_reward_per_day": 0,
            "lowest_vram": self.lowest_vram,
        }


MARKETS = (
    Market(
        address="7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq",
        slug="nvidia-3060",
        name="NVIDIA 3060",
        type="PREMIUM",
        usd_reward_per_hour=0.0436,
        nos_reward_per_second=0.0000436,
        nos_job_price_per_second=0.000048,
        sft="EriVoFxWkWpgHAWsRUTnAH1kkmY9UnbXqcBYzqXqqJPE",
        gpu_types=("NVIDIA GeForce RTX 3060",),
        lowest_vram=8,
        required_images=("docker.io/vllm/vllm-openai:v0.9.2",),
    ),
    Market(
        address="Dcwz62TisNbWuto6KJM2EGYGVKnHbdZGVGmgLASzsXy8",
        slug="nvidia-4090-community",
        name="NVIDIA 4090 Community",
        type="COMMUNITY",
        usd_reward_per_hour=0.218175,
        nos_reward_per_second=0.000196,
        nos_job_price_per_second=0.0002156,
        sft="HLuwMuBQgJt9QzR64VuqKod5wxZkCogryK4CFqH2id43",
        gpu_types=("NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090"),
        lowest_vram=24,
        required_images=("docker.io/vllm/vllm-openai:v0.9.2",),
    ),
    Market(
        address="7nxXoihx65yRGZiGzWZsFMz8D7qwxFePNKvDBWZnxc41",
        slug="no-credits",
        name="A market that takes no credits",
        type="OTHER",
        usd_reward_per_hour=0.0436,
        nos_reward_per_second=0.0000436,
        nos_job_price_per_second=0.000048,
        sft="EriVoFxWkWpgHAWsRUTnAH1kkmY9UnbXqcBYzqXqqJPE",
        gpu_types=(),
        lowest_vram=8,
        credit_eligible=False,
    ),
)
