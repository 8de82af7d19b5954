"""solana-py's `AsyncClient` over our endpoints, for anchorpy and for whoever is at home in it.

Its own provider parses before it looks: solders panics, with a `BaseException`, on errors that real nodes send. This
one takes errors out first, routes and throttles as the rest of the oracle does, and raises `OracleError` only.
"""

from __future__ import annotations

import logging
from typing import Any, Final, TypeVar

import orjson
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Commitment, Confirmed

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.transport import Call, Transport

R = TypeVar("R")

_ACTS: Final = frozenset({"sendTransaction", "requestAirdrop"})


async def solana_client(client: Client, commitment: Commitment = Confirmed) -> AsyncClient:
    """An `AsyncClient` that makes its calls through `client`. Closing it closes `client`."""
    solana = AsyncClient(f"http://{client.name}", commitment)
    await solana._provider.close()
    solana._provider = _Provider(client.transport)  # type: ignore[assignment]
    return solana


class _Provider:
    """What `AsyncClient` uses of a provider."""

    logger: Final = logging.getLogger(__name__)

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.endpoint_uri = transport.name

    async def make_request(self, body: Any, parser: Any) -> Any:
        """`body` is a request and `parser` a response type of `solders.rpc`."""
        request = orjson.loads(body.to_json())

        def read(result: Any) -> Any:
            return parser.from_json(orjson.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).decode())

        method = request["method"]
        call: Call[Any] = Call(method, request.get("params", []), read, acts=method in _ACTS)
        return await (self._transport.broadcast(call) if method == "sendTransaction" else self._transport.call(call))

    async def __aenter__(self) -> _Provider:
        return self

    async def close(self) -> None:
        await self._transport.close()
