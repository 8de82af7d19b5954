"""What a provider tells a key: its models with their prices and limits, and what the key may still spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, runtime_checkable

from oracle.core.compute import Task
from oracle.providers import errors
from oracle.providers.pricing import TokenPrice


@dataclass(frozen=True, slots=True)
class Offer:
    """One model. None is what the provider does not say. `locked`: not for this key's plan."""

    model: str
    price: TokenPrice | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    embeds: bool = False
    locked: bool = False

    def check(self, task: Task) -> None:
        """Raises what the provider would, once it had been paid or asked: ORC-PROVIDER-008 or 011."""
        if self.locked:
            raise errors.NOT_PERMITTED(f"{self.model!r} needs a higher plan")
        for limit, what in ((self.max_output_tokens, "output"), (self.context_tokens, "context")):
            if limit is not None and task.max_output_tokens > limit:
                raise errors.REQUEST_REFUSED(
                    f"{task.max_output_tokens} output tokens are asked for; {what} of {self.model!r}: {limit} tokens"
                )


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key may spend and has spent, in USD, and how often that begins anew, in the provider's words; and what was
    left of its rate when that was last told.
    """

    remaining_usd: Decimal | None = None
    used_usd: Decimal | None = None
    limit_usd: Decimal | None = None
    cycle: str = ""
    requests_left: int | None = None
    tokens_left: int | None = None


@runtime_checkable
class Describing(Protocol):
    """A provider that tells more of its models than their names. Both raise `OracleError`."""

    async def offers(self) -> Sequence[Offer]: ...

    async def allowance(self) -> Allowance | None: ...


@runtime_checkable
class Probing(Protocol):
    """A provider that knows its models from its settings, so that they say nothing of whether anybody is there."""

    async def probe(self) -> None:
        """Ask something that only the right key is answered. Buys nothing. Raises `OracleError`."""
