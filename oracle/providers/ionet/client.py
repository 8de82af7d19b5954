"""`Chat` on IO Intelligence, with the prices and limits it states and the credit that is left."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from oracle.core.compute import Completion, Embeddings, Money, Piece, Task
from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.http import Http
from oracle.providers.ionet import catalogue
from oracle.providers.offers import Allowance, Offer
from oracle.providers.openai.client import MODELS_SECONDS, OpenAIChat
from oracle.providers.openai.wire import Dictation
from oracle.providers.pricing import TokenPrice

PAGE_SIZE: Final = 100
_MOST_PAGES: Final = 20
USAGE_SECONDS: Final = 30.0
USAGE_LAG_SECONDS: Final = 60.0
"""How late the service counts what was used (ionet.md §2.11): asking more often tells nothing new."""

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
        self._clock = clock
        self._chatting = _Listing(http, "models", embeds=False, seconds=catalogue_seconds, clock=clock)
        self._embedding = _Listing(http, "embedding-models", embeds=True, seconds=catalogue_seconds, clock=clock)
        self._counting = asyncio.Lock()
        self._counted: Allowance | None = None
        self._counted_at: float | None = None

    async def complete(self, task: Task) -> Completion:
        with self._noticing_what_vanishes():
            return await self._chat.complete(task)

    async def stream(self, task: Task) -> AsyncGenerator[Piece | Completion, None]:
        with self._noticing_what_vanishes():
            async with contextlib.aclosing(self._chat.stream(task)) as pieces:
                async for piece in pieces:
                    yield piece

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float) -> Embeddings:
        with self._noticing_what_vanishes():
            return await self._chat.embed(model, texts, seconds=seconds)

    async def models(self) -> Sequence[str]:
        return tuple(offer.model for offer in await self.offers())

    async def offers(self) -> Sequence[Offer]:
        chatting = await self._chatting.offers()
        return tuple({**await self._embedding_offers(), **chatting}.values())

    async def price_of(self, model: str) -> TokenPrice:
        """The price stated now, at most `catalogue_seconds` old. Raises ORC-PROVIDER-010 or 020."""
        offer = await self._offer(model)
        if offer is None:
            raise errors.MODEL_UNAVAILABLE(f"{model!r} is not among the models of io.net")
        price = offer.price
        if price is None:
            raise errors.PRICE_UNKNOWN(f"io.net states no usable price of {model!r}")
        return price

    async def check(self, task: Task, most_usd: Decimal) -> None:
        """Raises what io.net would answer, before anything is sent: ORC-PROVIDER-008, 009 or 011."""
        if (offer := await self._offer(task.model)) is not None:
            offer.check(task)
        try:
            allowance = await self._recent_allowance()
        except OracleError:
            # What is left is a courtesy of another address: the inference API itself has the last word.
            return
        if allowance is not None and allowance.remaining_usd is not None and allowance.remaining_usd < most_usd:
            raise errors.OUT_OF_CREDIT(f"{allowance.remaining_usd:f} USD of the key's credit are left")

    async def allowance(self) -> Allowance | None:
        """What a sub-key may still spend; None where no usage address is configured or its answer does not say."""
        if self._usage is None:
            return None
        answer = await self._usage.call("GET", "", repeatable=True, seconds=USAGE_SECONDS)
        return catalogue.read_usage(answer.content)

    async def balance(self) -> Money | None:
        allowance = await self.allowance()
        if allowance is None or allowance.remaining_usd is None:
            return None
        return Money(float(allowance.remaining_usd), "USD")

    async def close(self) -> None:
        await self._chat.close()
        if self._usage is not None:
            await self._usage.close()

    @contextlib.contextmanager
    def _noticing_what_vanishes(self) -> Iterator[None]:
        """Models vanish without notice: the next quote must not be made from a list that still has it."""
        try:
            yield
        except OracleError as error:
            if error.error is errors.MODEL_UNAVAILABLE:
                self._chatting.forget()
                self._embedding.forget()
            raise

    async def _offer(self, model: str) -> Offer | None:
        chatting = await self._chatting.offers()
        return chatting.get(model) or (await self._embedding_offers()).get(model)

    async def _embedding_offers(self) -> Mapping[str, Offer]:
        """Their list is documented and was never captured: where it is not there, chats go on without it."""
        try:
            return await self._embedding.offers()
        except OracleError as error:
            if error.verdict is Verdict.GIVE_UP or error.error is errors.UNREADABLE_ANSWER:
                return {}
            raise

    async def _recent_allowance(self) -> Allowance | None:
        async with self._counting:
            if self._counted_at is None or self._clock() - self._counted_at > USAGE_LAG_SECONDS:
                # Before the answer: where there is none, it is not asked again for every quote.
                self._counted_at = self._clock()
                self._counted = None
                self._counted = await self.allowance()
            return self._counted


class _Listing:
    """One list of models, read anew once it is older than `seconds`."""

    def __init__(self, http: Http, path: str, *, embeds: bool, seconds: float, clock: Callable[[], float]) -> None:
        self._http = http
        self._path = path
        self._embeds = embeds
        self._seconds = seconds
        self._clock = clock
        self._reading = asyncio.Lock()
        self._offers: Mapping[str, Offer] = {}
        self._read_at: float | None = None

    async def offers(self) -> Mapping[str, Offer]:
        """By name."""
        async with self._reading:
            if self._read_at is None or self._clock() - self._read_at > self._seconds:
                self._offers = await self._read()
                self._read_at = self._clock()
            return self._offers

    def forget(self) -> None:
        self._read_at = None

    async def _read(self) -> Mapping[str, Offer]:
        offers: dict[str, Offer] = {}
        for page in range(1, _MOST_PAGES + 1):
            params = {"page": page, "page_size": PAGE_SIZE}
            answer = await self._http.call("GET", self._path, params=params, repeatable=True, seconds=MODELS_SECONDS)
            read = catalogue.read_page(answer.content, embeds=self._embeds)
            if read is None:
                raise self._http.unreadable("no list of models", repeatable=True)
            found, more = read
            offers |= found
            if not more:
                break
        return offers
