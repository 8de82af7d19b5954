"""Runs a chat on the model server, in one piece or as a stream, and books what it used."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from oracle.localnet.emulators.faults import Fault
from oracle.localnet.emulators.ionet.answers import Head, Meter, completion, events
from oracle.localnet.emulators.ionet.catalogue import ApiKey, ServedModel
from oracle.localnet.emulators.ionet.ledger import Inference, Ledger
from oracle.localnet.emulators.ionet.refusals import Refused, refuse
from oracle.localnet.emulators.ionet.requests import ChatRequest
from oracle.localnet.emulators.ionet.spoiling import spoil, spoiled_stream
from oracle.localnet.emulators.upstream import Answer, ModelServer, ModelServerUnreachable


@dataclass(frozen=True, slots=True)
class Caller:
    """Who pays for which call."""

    key: ApiKey
    request_id: str


class Chat:
    def __init__(
        self, models: ModelServer, ledger: Ledger, now: Callable[[], float], entropy: Callable[[int], bytes]
    ) -> None:
        self._models = models
        self._ledger = ledger
        self._now = now
        self._entropy = entropy

    async def answer(self, caller: Caller, model: ServedModel, request: ChatRequest, fault: Fault | None) -> Response:
        """One piece. Raises Refused where the model server does not answer."""
        meter = Meter()
        body = await self._post("/chat/completions", request.for_model_server(model.upstream_model))
        choice = body["choices"][0]
        meter.finish_reason = choice["finish_reason"]
        _read_usage(meter, body)
        head = Head(_uuid7(self._now(), self._entropy(10)), int(self._now()), model.id, model.thinks)
        self.book(caller, model, "chat", meter, stream=False)
        answer = completion(head, choice["message"].get("content") or "", meter)
        return JSONResponse(spoil(answer, fault.kind if fault else None))

    async def stream(self, caller: Caller, model: ServedModel, request: ChatRequest, fault: Fault | None) -> Response:
        """Server-sent events. An error before the first of them is an ordinary answer: raises Refused (§2.6)."""
        head = Head(
            f"chatcmpl-{uuid.UUID(bytes=self._entropy(16), version=4)}", int(self._now()), model.id, model.thinks
        )
        # The model server tells how long the prompt was only at the end; until then it is a guess from its words.
        meter = Meter(prompt_tokens=sum(len(str(message.content).split()) + 4 for message in request.messages))
        words = self._words(caller, model, request, meter)
        first = await anext(words, "")
        with_usage = request.stream_options is None or request.stream_options.include_usage
        plain = events(head, _after(first, words), meter, with_usage=with_usage)
        spoilt = spoiled_stream(plain, fault.kind if fault else None, fault.seconds if fault else 0.0)
        return StreamingResponse(spoilt, media_type="text/event-stream")

    async def _words(
        self, caller: Caller, model: ServedModel, request: ChatRequest, meter: Meter
    ) -> AsyncGenerator[str]:
        """The content as it comes from the model server. Booked at the end, however it ends."""
        options = {"stream": True, "stream_options": {"include_usage": True}}
        body = {**request.for_model_server(model.upstream_model), **options}
        outcome = "aborted"
        try:
            async with self._models.stream("/chat/completions", body) as answer:
                if isinstance(answer, Answer):
                    raise _refused(answer)
                async for event in answer:
                    choice = event["choices"][0] if event.get("choices") else {}
                    meter.finish_reason = choice.get("finish_reason") or meter.finish_reason
                    _read_usage(meter, event)
                    if word := choice.get("delta", {}).get("content"):
                        meter.completion_tokens += 1
                        yield word
            outcome = "answered"
        except ModelServerUnreachable as error:
            raise refuse(503, "Service temporarily unavailable") from error
        finally:
            if outcome == "answered" or meter.completion_tokens:
                self.book(caller, model, "chat", meter, stream=True, outcome=outcome)

    async def embed(self, caller: Caller, model: ServedModel, body: dict[str, Any]) -> Response:
        answer = await self._post("/embeddings", {**body, "model": model.upstream_model})
        meter = Meter()
        _read_usage(meter, answer)
        self.book(caller, model, "embeddings", meter, stream=False)
        usage = {"prompt_tokens": meter.prompt_tokens, "total_tokens": meter.prompt_tokens}
        return JSONResponse({"object": "list", "data": answer["data"], "model": model.id, "usage": usage})

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = await self._models.post(path, body)
        except ModelServerUnreachable as error:
            raise refuse(503, "Service temporarily unavailable") from error
        parsed = answer.json()
        if answer.status != 200 or not isinstance(parsed, dict):
            raise _refused(answer)
        return parsed

    def book(
        self, caller: Caller, model: ServedModel, kind: str, meter: Meter, *, stream: bool, outcome: str = "answered"
    ) -> None:
        self._ledger.add(
            Inference(
                request_id=caller.request_id,
                key_id=caller.key.key_id,
                kind=kind,
                model=model.id,
                stream=stream,
                prompt_tokens=meter.prompt_tokens,
                completion_tokens=meter.completion_tokens,
                cost_usd=f"{model.cost_usd(meter.prompt_tokens, meter.completion_tokens):f}",
                outcome=outcome,
                at=self._now(),
            )
        )


async def _after(first: str, rest: AsyncGenerator[str]) -> AsyncGenerator[str]:
    async with aclosing(rest):
        if first:
            yield first
        async for word in rest:
            yield word


def _read_usage(meter: Meter, body: dict[str, Any]) -> None:
    if usage := body.get("usage"):
        meter.prompt_tokens = usage["prompt_tokens"]
        meter.completion_tokens = usage.get("completion_tokens", 0)


def _refused(answer: Answer) -> Refused:
    """The server's own words for a bad request, such as a context that is too long (status and form unverified)."""
    parsed = answer.json()
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
    text = error.get("message") if isinstance(error, dict) else None
    if answer.status < 500:
        return refuse(400, str(text or "Bad Request"))
    return refuse(503, "Service temporarily unavailable")


def _uuid7(now: float, entropy: bytes) -> str:
    raw = bytearray(int(now * 1000).to_bytes(6, "big") + entropy)
    raw[6], raw[8] = raw[6] & 0x0F | 0x70, raw[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))
