"""The bytes that a request asks about: inline, behind an https URI, or from a data network; kept by hash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from oracle.core.prompt import check_hash
from oracle.core.request import Data, Inline, Request, Uri
from oracle.pipeline import data
from oracle.pipeline.context import Context
from oracle.pipeline.errors import INPUT_WAITING
from oracle.pipeline.fetch import fetch
from oracle.store import results

OF_ALL: Final = 2
OF_ONE: Final = 8
"""All fetches take at most one in two of the steps that may be under way at once, those of one requester one in
eight: hosts that are slow on purpose must not hold every hand of the daemon (law 6)."""

TURN_SECONDS: Final = 3.0


def is_at_hand(request: Request) -> bool:
    """Whether the input is in the request itself: what is fetched or bought takes long, and has its own way of being
    tried again."""
    return isinstance(request.body.input, Inline)


async def load(context: Context, request: Request) -> tuple[bytes, str | None]:
    """The content and its origin (None of inline ones).

    A fetched input is stored before it is used, so that a restart, a second attempt and the receipt all mean the
    same bytes. Raises ORC-INPUT-005, the ORC-PIPE codes of inputs, and what `data.load` does.
    """
    match request.body.input:
        case Inline(content):
            return content, None
        case Uri(uri, sha256):
            stored = await context.store.read(lambda c: results.get_input(c, sha256.hex()))
            if stored is not None:
                return stored.content, stored.origin
            with turn(context, str(request.header.requester)):
                content = await fetch(uri, context.config.input)
            check_hash(content, sha256)
            await keep(context, sha256.hex(), content, uri)
            return content, uri
        case Data(query, _):
            return await data.load(context, request, query)


@contextmanager
def turn(context: Context, requester: str) -> Iterator[None]:
    """Hold one of the places for fetches. Raises ORC-PIPE-014 where none is free: it is asked for again, uncounted."""
    steps, mine = context.config.daemon.concurrency, f"https {requester}"
    for places, share in (("https", OF_ALL), (mine, OF_ONE)):
        if context.fetching[places] >= max(1, steps // share):
            raise INPUT_WAITING(f"{context.fetching[places]} under way", retry_after_seconds=TURN_SECONDS)
    context.fetching.update(("https", mine))
    try:
        yield
    finally:
        context.fetching.subtract(("https", mine))
        if not context.fetching[mine]:
            del context.fetching[mine]


async def keep(context: Context, name: str, content: bytes, origin: str) -> None:
    now_ms = context.clock.now_ms()
    await context.store.write(lambda c: results.put_input(c, name, content, origin=origin, now_ms=now_ms))
