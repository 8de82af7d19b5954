"""The bytes that a request asks about: inline, behind an https URI, or from a data network; kept by hash."""

from __future__ import annotations

from oracle.core.prompt import check_hash
from oracle.core.request import Data, Inline, Request, Uri
from oracle.pipeline import data
from oracle.pipeline.context import Context
from oracle.pipeline.fetch import fetch
from oracle.store import results


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
            content = await fetch(uri, context.config.input)
            check_hash(content, sha256)
            await keep(context, sha256.hex(), content, uri)
            return content, uri
        case Data(query, _):
            return await data.load(context, request, query)


async def keep(context: Context, name: str, content: bytes, origin: str) -> None:
    now_ms = context.clock.now_ms()
    await context.store.write(lambda c: results.put_input(c, name, content, origin=origin, now_ms=now_ms))
