"""One call of a client from its question to the last word: routes, books and recording put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from oracle.api.gateway.books import Call
from oracle.api.gateway.errors import RECORDING_FORBIDDEN
from oracle.api.gateway.jobs import Jobs
from oracle.api.gateway.keys import Client, Clients
from oracle.api.gateway.recording import Desk, again
from oracle.api.gateway.replies import Ended, Usage
from oracle.api.gateway.routes import Rests, candidates, first_to_answer
from oracle.api.gateway.wire import ChatAsk, EmbeddingsAsk
from oracle.core.compute import (
    Embeddings,
    IdempotencyKey,
    Message,
    Output,
    Piece,
    Synchronous,
    Task,
)
from oracle.core.errors import OracleError
from oracle.core.identity import nonce_of
from oracle.core.policy import MODEL_SUBSTITUTED, OUTPUT_EMPTY
from oracle.core.routing import Route, is_same_model
from oracle.pipeline.context import Context
from oracle.pipeline.errors import UNEXPECTED
from oracle.providers.errors import MODEL_UNAVAILABLE
from oracle.providers.pricing import estimated_input_tokens
from oracle.store import calls, recordings
from oracle.store.rows import CallRow, RecordingRow
from oracle.store.schema import CallKind

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Gateway:
    """What every call holds. `draw` gives random bits: for ids, seeds and nonces. `born_at` is in unix seconds."""

    context: Context
    clients: Clients
    desk: Desk | None
    draw: Callable[[int], int]
    born_at: int
    jobs: Mapping[str, Jobs] = field(init=False)
    rests: Rests = field(init=False)

    def __post_init__(self) -> None:
        self.rests = Rests(self.context.clock.monotonic)
        seconds = self.context.config.daemon.poll_interval_seconds
        self.jobs = {
            name: Jobs(provider, seconds)
            for name, provider in self.context.providers.items()
            if not isinstance(provider, Synchronous)
        }


@dataclass(slots=True)
class Conversation:
    """A chat call that may go ahead: everything that could be refused before a purchase has been."""

    gateway: Gateway
    call: Call
    task: Task
    routes: tuple[Route, ...]
    by_stream: bool
    earlier: RecordingRow | None = None

    @property
    def request(self) -> str | None:
        """The address under which the answer will be recorded."""
        return None if self.call.recording is None else self.call.recording.address

    async def answer(self) -> AsyncGenerator[str | Ended, None]:
        """Pieces of the answer, if it comes in pieces, and its end with the whole. Closing it stops the provider."""
        if self.earlier is not None:
            yield await self._again(self.earlier)
            return
        async with in_the_books(self.call):
            items = first_to_answer(self.call, self.routes, self.task, self.gateway.rests, self._run)
            async with contextlib.aclosing(items):
                async for item in items:
                    if isinstance(item, Piece):
                        self.call.delivered_bytes += len(item.text.encode())
                        yield item.text
                    else:
                        yield await self.call.answered(item)

    async def _run(self, route: Route, task: Task, key: IdempotencyKey) -> AsyncGenerator[Piece | Output, None]:
        provider = self.gateway.context.providers[route.provider]
        if not isinstance(provider, Synchronous):
            yield fit(route, await self.gateway.jobs[route.provider].run(self.call, task, key))
        elif not self.by_stream:
            yield fit(route, await provider.answer(task))
        else:
            stream = provider.stream(task)
            async with contextlib.aclosing(stream):
                async for item in stream:
                    if isinstance(item, Output):
                        yield fit(route, item)
                        continue
                    if item.model:
                        check_model(route, item.model)
                    yield item

    async def _again(self, row: RecordingRow) -> Ended:
        """The client asks what it has asked before, under the same name: it gets what it got, and nothing is bought."""
        call: CallRow = await self.call.context.store.read(lambda c: calls.get(c, row.call_id))
        output = again(row)
        about = {"provider": row.provider, "model_run": row.model_run, "request": row.address, "repeated": True}
        text, usage = output.content.decode(errors="replace"), Usage(call.input_tokens, call.output_tokens)
        return Ended(text, output.finish_reason, usage, about)


async def begin_chat(
    gateway: Gateway, client: Client, ask: ChatAsk, *, record: bool, idempotency_key: str | None
) -> Conversation:
    """Raises whatever speaks against the call, before anything is bought."""
    context = gateway.context
    seed = ask.seed
    if seed is None:
        # A call that is repeated under its name must be the same call: the seed is part of what is asked.
        seed = gateway.draw(31) if idempotency_key is None else nonce_of(client.name, idempotency_key) >> 32
    task = Task(
        model=ask.model,
        messages=ask.messages,
        max_output_tokens=ask.max_output_tokens,
        temperature=ask.temperature,
        seed=seed,
        private=client.settings.private,
        sampling=ask.sampling,
    )
    routes = candidates(context, client, task)
    call = Call(
        context,
        client,
        f"chatcmpl-{gateway.draw(128):032x}",
        CallKind.CHAT,
        ask.model,
        estimated_input_tokens(task),
        ask.max_output_tokens,
    )
    conversation = Conversation(gateway, call, task, routes, ask.stream)
    if record:
        if gateway.desk is None:
            raise RECORDING_FORBIDDEN("the gateway has no key that could pay")
        recording = await gateway.desk.prepare(client, ask, seed, idempotency_key)
        call.recording = recording
        conversation.earlier = await context.store.read(lambda c: recordings.find(c, recording.address))
    return conversation


async def embed(gateway: Gateway, client: Client, ask: EmbeddingsAsk) -> tuple[Call, Embeddings, Usage]:
    """One vector per text, from the first route that makes any."""
    context = gateway.context
    task = Task(
        model=ask.model,
        messages=tuple(Message("user", text) for text in ask.texts),
        max_output_tokens=0,
        private=client.settings.private,
    )
    routes = candidates(context, client, task)
    call = Call(
        context,
        client,
        f"embd-{gateway.draw(128):032x}",
        CallKind.EMBEDDINGS,
        ask.model,
        estimated_input_tokens(task),
        0,
    )

    async def run(route: Route, task: Task, key: IdempotencyKey) -> AsyncGenerator[Embeddings, None]:
        provider = context.providers[route.provider]
        if not isinstance(provider, Synchronous):
            raise MODEL_UNAVAILABLE(f"{route.provider} makes no embeddings")
        found = await provider.embed(task.model, ask.texts, seconds=task.timeout_seconds)
        check_model(route, found.model)
        yield found

    async with in_the_books(call):
        items = first_to_answer(call, routes, task, gateway.rests, run)
        async with contextlib.aclosing(items):
            found = await anext(items)
            return call, found, await call.embedded(found)


@contextlib.asynccontextmanager
async def in_the_books(call: Call) -> AsyncGenerator[None, None]:
    """However the call ends, its end is written: with an error, or because the client has left."""
    try:
        yield
    except OracleError as error:
        log.info("call failed", client=call.client.name, call=call.id, code=error.code, detail=error.detail)
        await call.fail(error)
        raise
    except Exception:
        log.exception("call failed", client=call.client.name, call=call.id)
        unexpected = UNEXPECTED("a call of the gateway")
        await call.fail(unexpected)
        raise unexpected from None
    except BaseException:
        # Cancelled, or closed between two pieces.
        log.info("client left", client=call.client.name, call=call.id)
        await call.leave()
        raise


def fit(route: Route, output: Output) -> Output:
    """Raises ORC-POLICY-014 or 015 for what is not the answer that was asked for."""
    if not output.content.strip():
        raise OUTPUT_EMPTY(f"{len(output.content)} bytes from {route.provider}")
    check_model(route, output.model_run)
    return output


def check_model(route: Route, model_run: str) -> None:
    if not is_same_model(route.model, model_run):
        raise MODEL_SUBSTITUTED(f"{route.provider} ran {model_run!r} instead of {route.model!r}")
