"""The bytes that a request asks about: inline, behind an https URI, or from a data network; kept by hash."""

from __future__ import annotations

import hashlib

from oracle.core.prompt import check_hash
from oracle.core.request import Data, Inline, Request, Uri
from oracle.pipeline.context import Context
from oracle.pipeline.errors import SOURCE_UNKNOWN
from oracle.pipeline.fetch import fetch
from oracle.store import results


async def load(context: Context, request: Request) -> tuple[bytes, str | None]:
    """The content and its origin (None of inline ones).

    A fetched input is stored before it is used, so that a restart, a second attempt and the receipt all mean the
    same bytes. Raises ORC-INPUT-005 and the ORC-PIPE codes of inputs.
    """
    match request.body.input:
        case Inline(content):
            return content, None
        case Uri(uri, sha256):
            stored = await context.store.read(lambda c: results.get_input(c, sha256.hex()))
            if stored is not None:
                return stored.content, stored.origin
            content = await fetch(uri, context.config.input)
            check_hash(content, sha256)
            await keep(context, sha256.hex(), content, uri)
            return content, uri
        case Data(query, _):
            return await from_source(context, request, query)


async def from_source(context: Context, request: Request, query: str) -> tuple[bytes, str]:
    """Data is fetched once a request: its hash is not fixed by the query, so a second fetch may differ."""
    network = query.removeprefix("data://").split("/", 1)[0]
    source = context.sources.get(network)
    if source is None:
        raise SOURCE_UNKNOWN(network)
    # Not a hash alone: whoever served a URI whose content has that hash could put its own words in the data's place.
    name = f"data:{hashlib.sha256(f'{request.key}/{query}'.encode()).hexdigest()}"
    stored = await context.store.read(lambda c: results.get_input(c, name))
    if stored is not None:
        return stored.content, stored.origin
    dataset = await source.fetch(query)
    await keep(context, name, dataset.content, dataset.origin)
    return dataset.content, dataset.origin


async def keep(context: Context, name: str, content: bytes, origin: str) -> None:
    now_ms = context.clock.now_ms()
    await context.store.write(lambda c: results.put_input(c, name, content, origin=origin, now_ms=now_ms))
