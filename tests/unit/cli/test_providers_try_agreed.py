"""What a person has agreed to spend on a trial is the most that is bought for."""

from __future__ import annotations

import pytest
import typer

from oracle.cli import providers_try
from oracle.cli.providers_try import Wish
from oracle.config import parse
from oracle.core.compute import Capabilities, IdempotencyKey, JobHandle, Money, Quote, Recovery, Task
from oracle.core.errors import OracleError
from oracle.pipeline.errors import TRIAL_TOO_DEAR
from oracle.pipeline.trial import Books

CONFIG = parse({"providers": {"shop": {"kind": "openai", "base_url": "https://shop.example/v1"}}})
WISH = Wish("shop", "m", "Hi", 8, 5.0, None, is_confirmed=False, key=None)


class Shop:
    """Asks more each time it is asked."""

    name = "shop"
    capabilities = Capabilities(Recovery.LOOK_UP)

    def __init__(self) -> None:
        self.price_lamports, self.sold = 9, 0

    async def models(self) -> list[str]:
        return ["m"]

    async def quote(self, task: Task) -> Quote:
        self.price_lamports += 1
        return Quote(self.price_lamports, Money(0.1, "USD"))

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        self.sold += 1
        return JobHandle("shop", "job")


async def test_a_price_that_rises_while_a_person_thinks_is_not_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: True)
    shop, steps = Shop(), providers_try._Steps(is_shown=True)
    with pytest.raises(OracleError) as caught:
        await providers_try._try(CONFIG, WISH, shop, Books(CONFIG, None), steps)  # type: ignore[arg-type]
    assert (caught.value.error, shop.sold) == (TRIAL_TOO_DEAR, 0)
    assert "11 lamports quoted, 10 allowed" in str(caught.value)
