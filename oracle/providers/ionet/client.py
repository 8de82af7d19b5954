"""`Chat` on IO Intelligence, with the prices it states and the credit that is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final

from oracle.core.compute import Completion, Embeddings, Money, Piece, Task
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.http import Http
from oracle.providers.ionet import catalogue
from oracle.providers.openai.client import MODELS_SECONDS, OpenAIChat
from oracle.providers.openai.wire import Dictation
from oracle.providers.pricing import TokenPrice

PAGE_SIZE: Final = 100
_MOST_PAGES: Final = 20
USAGE_SECONDS: Final = 30.0

# Every default is sent, for those of the service are its own: a temperature of 0.7 above all (ionet.md §2.4).
PARAMETERS: Final = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0}


class IoNetChat:
    """`http` speaks to the inference API, `usage` to the address that tells a sub-key its usage, where there is one."""

    def __init__(
        self,
        http: Http,
        *,
        usage: Http | None = None,
        extra: Mapping[str, object] | None = None,
        catalogue_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._usage = usage
        self._chat = OpenAIChat(http, Dictation("max_completion_tokens", extra={**PARAMETERS, **(extra or {})}))
        self._catalogue_seconds = catalogue_seconds
        self._clock = clock
        self._listing = asyncio.Lock()
        self._listed: dict[str, TokenPrice | None] = {}
        self._listed_at: float | None = None

    async def complete(self, task: Task) -> Completion:
        try:
            return await self._chat.complete(task)
        except OracleError as error:
            if error.error is errors.MODEL_UNAVAILABLE:
                # Models vanish without notice: the next quote must not be made from a list that still has it.
                self._listed_at = None
            raise

    def stream(self, task: Task) -> AsyncGenerator[Piece | Completion, None]:
        return self._chat.stream(task)

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float) -> Embeddings:
        return await self._chat.embed(model, texts, seconds=seconds)

    async def models(self) -> Sequence[str]:
        return tuple(await self._models())

    async def price_of(self, model: str) -> TokenPrice:
        """The price stated now, at most `catalogue_seconds` old. Raises ORC-PROVIDER-010 or 020."""
        models = await self._models()
        if model not in models:
            raise errors.MODEL_UNAVAILABLE(f"{model!r} is not among the {len(models)} models of io.net")
        price = models[model]
        if price is None:
            raise errors.PRICE_UNKNOWN(f"io.net states no usable price of {model!r}")
        return price

    async def balance(self) -> Money | None:
        """The credit left of a sub-key; None where no usage address is configured or its answer does not say."""
        if self._usage is None:
            return None
        answer = await self._usage.call("GET", "", repeatable=True, seconds=USAGE_SECONDS)
        usd = catalogue.remaining_usd(self._usage.json(answer, repeatable=True))
        return None if usd is None else Money(usd, "USD")

    async def close(self) -> None:
        await self._chat.close()
        if self._usage is not None:
            await self._usage.close()

    async def _models(self) -> dict[str, TokenPrice | None]:
        async with self._listing:
            if self._listed_at is None or self._clock() - self._listed_at > self._catalogue_seconds:
                self._listed = await self._list()
                self._listed_at = self._clock()
            return self._listed

    async def _list(self) -> dict[str, TokenPrice | None]:
        models: dict[str, TokenPrice | None] = {}
        for page in range(1, _MOST_PAGES + 1):
            params = {"page": page, "page_size": PAGE_SIZE}
            answer = await self._http.call("GET", "models", params=params, repeatable=True, seconds=MODELS_SECONDS)
            read = catalogue.read_page(answer.content)
            if read is None:
                raise self._http.unreadable("no list of models", repeatable=True)
            found, more = read
            models |= found
            if not more:
                break
        return models
