"""`Compute` on a rented server: the chat runner on top of it, a price by the hour instead of by the token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal

from oracle.core.compute import Capabilities, Completion, Embeddings, Money, Output, Piece, Quote, Recovery, Task
from oracle.providers import errors
from oracle.providers.chat import ChatCompute, Limits
from oracle.providers.pricing import NO_RATES, Rates, usd_quote, usd_to_lamports
from oracle.providers.rented.boot import Patience
from oracle.providers.rented.landlord import Landlord
from oracle.providers.rented.server import Held, RentedServer


@dataclass(frozen=True, slots=True)
class RentedTerms:
    """`model` is what the server runs, and the name it goes by. `expected_seconds` is the usual time of an answer."""

    model: str
    expected_answers: int = 1
    expected_seconds: float = 30.0
    prompts_public: bool = False


class RentedChat:
    """`Chat` on whichever server is rented: the first call rents one, and all wait until it serves."""

    def __init__(self, server: RentedServer, terms: RentedTerms, now: Callable[[], float] = time.time) -> None:
        self._server = server
        self._terms = terms
        self._now = now

    async def complete(self, task: Task) -> Completion:
        self._check(task)
        async with self._use(task.timeout_seconds) as (held, left):
            completion = await held.server.complete(replace(task, timeout_seconds=left))
            return self._billed(held, completion)

    async def stream(self, task: Task) -> AsyncGenerator[Piece | Completion, None]:
        self._check(task)
        async with (
            self._use(task.timeout_seconds) as (held, left),
            aclosing(held.server.stream(replace(task, timeout_seconds=left))) as pieces,
        ):
            async for piece in pieces:
                yield self._billed(held, piece) if isinstance(piece, Completion) else piece

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float) -> Embeddings:
        if model != self._terms.model:
            raise errors.MODEL_UNAVAILABLE(f"the rented server runs {self._terms.model!r}, not {model!r}")
        async with self._use(seconds) as (held, left):
            found = await held.server.embed(model, texts, seconds=left)
            return replace(found, cost_usd=self._share_usd(held))

    async def models(self) -> Sequence[str]:
        return (self._terms.model,)

    async def close(self) -> None:
        await self._server.close()

    @asynccontextmanager
    async def _use(self, seconds: float) -> AsyncIterator[tuple[Held, float]]:
        """A serving server, and what is left of `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        async with self._server.use(seconds) as held:
            yield held, max(0.0, deadline - loop.time())

    def _check(self, task: Task) -> None:
        if task.private and self._terms.prompts_public:
            raise errors.PRIVATE_REFUSED("strangers run the rented server, and can read what it is asked")
        if task.model != self._terms.model:
            raise errors.MODEL_UNAVAILABLE(f"the rented server runs {self._terms.model!r}, not {task.model!r}")

    def _billed(self, held: Held, completion: Completion) -> Completion:
        return replace(completion, cost_usd=self._share_usd(held))

    def _share_usd(self, held: Held) -> Decimal | None:
        return held.meter.share_usd(self._now(), held.in_flight)


class RentedCompute:
    """Implements `Compute`, `Synchronous` and `Tended`.

    A call costs nothing of its own, only the time of the server, so a call that was lost is simply made again. What is
    bought is the server, and `RentedServer` sees to it that there is one at most.
    """

    def __init__(
        self,
        name: str,
        landlord: Landlord,
        server: RentedServer,
        terms: RentedTerms,
        patience: Patience,
        *,
        limits: Limits,
        rates: Rates = NO_RATES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.capabilities = Capabilities(
            recovery=Recovery.REPEAT,
            cancel=True,
            stream=True,
            prompts_public=terms.prompts_public,
            in_process=True,
        )
        self.server = server
        self.landlord = landlord
        self._terms = terms
        self._patience = patience
        self._rates = rates
        calls = ChatCompute(
            name,
            RentedChat(server, terms, now),
            recovery=Recovery.REPEAT,
            rates=rates,
            limits=limits,
            balance=landlord.balance,
            now=now,
        )
        self.find, self.poll, self.fetch, self.cancel = calls.find, calls.poll, calls.fetch, calls.cancel
        self.submit, self.answer, self.stream, self.embed = calls.submit, calls.answer, calls.stream, calls.embed
        self.models, self.balance, self.close = calls.models, calls.balance, calls.close
        self.tend = server.tend

    async def probe(self) -> None:
        await self.server.live()

    async def quote_alone(self, task: Task) -> Quote:
        """A server that is rented for this one answer, and given back after it."""
        terms, patience = self._terms, self._patience
        quote = await self.quote(task)
        usd = (await self.server.price()).cost_usd(patience.expected_boot + terms.expected_seconds)
        alone = usd_quote(usd, self._rates, quote.expected_seconds)
        return replace(alone, starting_seconds=quote.starting_seconds)

    def billed_alone(self, output: Output) -> Output:
        """Where the server was rented for this one answer: with all that it has cost, instead of a share."""
        usd = self.server.own_cost_usd
        if usd is None:
            return output
        return replace(output, cost=Money(float(usd), "USD"), cost_lamports=usd_to_lamports(usd, self._rates))

    async def quote(self, task: Task) -> Quote:
        """A share of what renting costs before and after all answers, and the time of this one."""
        terms, patience = self._terms, self._patience
        if task.model != terms.model:
            raise errors.MODEL_UNAVAILABLE(f"{self.name} runs {terms.model!r}")
        price = await self.server.price()
        shared = price.cost_usd(patience.expected_boot + patience.idle) / terms.expected_answers
        own = price.usd_per_hour * Decimal(str(terms.expected_seconds)) / 3600
        starting = 0.0 if self.server.is_serving else patience.expected_boot
        quote = usd_quote(shared + own, self._rates, terms.expected_seconds + starting)
        return replace(quote, starting_seconds=starting)
