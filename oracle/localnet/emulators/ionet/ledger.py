"""What was inferred and what it cost. There is no idempotency: the same request twice is two inferences (§2.10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from oracle.localnet.emulators.records import Records


@dataclass(frozen=True, slots=True)
class Inference:
    """One paid call. `outcome` is `answered`, or `aborted` where the caller went away in the middle.

    Whether an aborted stream is billed is unverified; here its tokens so far are. `at` is in unix seconds.
    """

    request_id: str
    key_id: str
    kind: str
    model: str
    stream: bool
    prompt_tokens: int
    completion_tokens: int
    cost_usd: str
    outcome: str
    at: float


class Ledger:
    """`lag_seconds` is how late spending is seen by the check of credits: a limit is soft (§2.11)."""

    def __init__(self, records: Records, now: Callable[[], float], lag_seconds: float) -> None:
        self._records = records
        self._now = now
        self._lag_seconds = lag_seconds
        self._inferences = [Inference(**record) for _, record in records.read("inference")]

    def add(self, inference: Inference) -> None:
        self._inferences.append(inference)
        self._records.put("inference", inference.request_id, asdict(inference))

    def spent_usd(self, key_id: str, *, seen: bool = False) -> Decimal:
        """All that was spent with a key; or, if `seen`, what the credit check knows of by now."""
        before = self._now() - self._lag_seconds if seen else float("inf")
        costs = (Decimal(one.cost_usd) for one in self._inferences if one.key_id == key_id and one.at <= before)
        return sum(costs, Decimal(0))

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(inference) for inference in self._inferences]
