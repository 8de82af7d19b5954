"""What is sold, and to whom (§2.7, §2.11)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from oracle.model.pinned import SMOLLM2

CREATED = 1760000000


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of the catalogue. Prices are USD per token; `upstream_model` is the model server's name for it.

    `thinks` makes it answer as a reasoning model: `reasoning_content`, and content that begins with newlines (§2.5).
    """

    id: str
    upstream_model: str
    input_token_price: Decimal = Decimal("3.08e-7")
    output_token_price: Decimal = Decimal("2.73e-6")
    context_window: int = 8192
    max_tokens: int = 8192
    thinks: bool = False
    embeds: bool = False
    higher_tier_required: bool = False

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        return prompt_tokens * self.input_token_price + completion_tokens * self.output_token_price

    def as_live(self) -> dict[str, Any]:
        """As the service was seen to answer: prices per token, JSON numbers in exponent notation."""
        permission = {
            "id": f"modelperm-{self.id}",
            "object": "model_permission",
            "created": CREATED,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        return {
            "id": self.id,
            "name": self.id.rpartition("/")[2],
            "object": "model",
            "created": CREATED,
            "owned_by": "io-intelligence",
            "root": None,
            "parent": None,
            "max_model_len": None,
            "permission": [permission],
            "max_tokens": self.max_tokens,
            "context_window": self.context_window,
            "supports_reasoning": self.thinks,
            "supports_tools": False,
            "input_modalities": ["text"],
            "output_modalities": ["text"],
            "supports_prompt_cache": True,
            "input_token_price": float(self.input_token_price),
            "output_token_price": float(self.output_token_price),
            "cache_read_token_price": float(self.input_token_price / 2),
            "precision": "fp8",
            "avg_latency_ms_per_day": 812.0,
            "avg_throughput_per_day": 55.1,
            "supports_attestation": False,
            "min_access_tier": None,
            "higher_tier_required": self.higher_tier_required,
        }

    def as_documented(self) -> dict[str, Any]:
        """As the OpenAPI description says, in conflict with what was seen: strings, USD per million tokens."""
        return {
            "model_id": str(uuid.uuid5(uuid.NAMESPACE_URL, self.id)),
            "name": self.id,
            "description": self.id,
            "status": "active",
            "metadata": {
                "context_window": self.context_window,
                "max_tokens": self.max_tokens,
                "input_token_price": f"{self.input_token_price * 1_000_000:f}",
                "output_token_price": f"{self.output_token_price * 1_000_000:f}",
            },
        }


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key with credits. A sub-key may be held to some models and answers 429 when its own limit is spent.

    `expires_at` is in unix seconds. `key_id` is what the books call it.
    """

    value: str = "io-v2-localnet"
    key_id: str = "key-1"
    credit_usd: Decimal = Decimal(10)
    is_sub_key: bool = False
    allowed_models: tuple[str, ...] | None = None
    expires_at: float | None = None


SMOLLM2_SERVED = ServedModel("HuggingFaceTB/SmolLM2-135M-Instruct", SMOLLM2.model_id, Decimal("1e-8"), Decimal("2e-8"))
