"""A job definition on IPFS, where hosts can read it, before anything is paid."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Final

from oracle.providers import errors
from oracle.providers.nosana.api import NosanaApi

_GATEWAY_WAITS_SECONDS: Final = (0.5, 1.0, 2.0, 4.0)


async def pin(api: NosanaApi, document: bytes, sleep: Callable[[float], Awaitable[None]]) -> str:
    """The CID of a definition that is pinned and served by the gateway, through which hosts read it too: a job whose
    definition they cannot read is paid for and fails. Raises ORC-PROVIDER-002 where it is not served yet."""
    cid = await api.pin(document)
    content = json.loads(document)
    for wait in _GATEWAY_WAITS_SECONDS:
        if await api.document(cid) == content:
            return cid
        await sleep(wait)
    raise errors.UNAVAILABLE(f"definition {cid} is pinned, but the gateway of the hosts does not serve it")
