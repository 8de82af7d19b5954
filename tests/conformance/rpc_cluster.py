"""A cluster as any client sees it: JSON-RPC, WebSocket, and transactions that are sent and waited for."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx
import orjson
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, TransferParams, create_account, transfer
from solders.transaction import VersionedTransaction
from websockets.asyncio.client import ClientConnection, connect

SOL = 10**9
SYSTEM_PROGRAM = Pubkey.default()
MEMO_PROGRAM = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
BASE64 = {"encoding": "base64"}
PROCESSED, CONFIRMED = {"commitment": "processed"}, {"commitment": "confirmed"}
_DEADLINE_SECONDS = 60


class Refused(Exception):
    """A JSON-RPC error."""

    def __init__(self, error: dict[str, Any]) -> None:
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Any = error.get("data")
        super().__init__(str(error))


class Cluster:
    """One node of it. `is_surfpool` is for the few places where Surfpool does otherwise than Agave."""

    def __init__(self, rpc_url: str, ws_url: str, *, is_surfpool: bool = False) -> None:
        self.is_surfpool = is_surfpool
        self.rpc_url = rpc_url
        self.ws_url = ws_url
        self._client = httpx.AsyncClient(base_url=rpc_url, timeout=30)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def post(self, body: bytes) -> Any:
        return orjson.loads((await self._client.post("/", content=body, headers=_JSON)).content)

    async def call(self, method: str, *params: Any) -> Any:
        answer = await self.post(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["result"]

    async def value(self, method: str, *params: Any) -> Any:
        return (await self.call(method, *params))["value"]

    async def send_refusal(self, tx: VersionedTransaction, **options: Any) -> Refused:
        try:
            signature = await self.send(tx, **options)
        except Refused as refused:
            return refused
        raise AssertionError(f"{signature} was not refused")

    async def refusal(self, method: str, *params: Any) -> Refused:
        try:
            result = await self.call(method, *params)
        except Refused as refused:
            return refused
        raise AssertionError(f"{method} was not refused: {result}")

    async def blockhash(self) -> Hash:
        return Hash.from_string((await self.value("getLatestBlockhash", CONFIRMED))["blockhash"])

    async def funded(self, lamports: int = 10 * SOL) -> Keypair:
        """A new key with lamports, confirmed."""
        keypair = Keypair()
        await self.landed(await self.call("requestAirdrop", str(keypair.pubkey()), lamports))
        return keypair

    async def balance(self, address: Pubkey) -> int:
        lamports: int = await self.value("getBalance", str(address), CONFIRMED)
        return lamports

    async def signed(
        self, payer: Keypair, *instructions: Instruction, signers: tuple[Keypair, ...] = ()
    ) -> VersionedTransaction:
        message = MessageV0.try_compile(payer.pubkey(), list(instructions), [], await self.blockhash())
        return VersionedTransaction(message, [payer, *signers])

    async def send(self, tx: VersionedTransaction, **options: Any) -> str:
        """Sends with preflight at confirmed, unless told otherwise."""
        options = {**BASE64, "preflightCommitment": "confirmed", **options}
        signature: str = await self.call("sendTransaction", encoded(tx), options)
        return signature

    async def landed(self, signature: str) -> Any:
        """The status of a transaction once it is confirmed, whatever became of it."""

        async def confirmed() -> Any:
            status = (await self.value("getSignatureStatuses", [signature]))[0]
            return status if status and status["confirmationStatus"] != "processed" else None

        return await eventually(confirmed)

    async def execute(self, tx: VersionedTransaction) -> Any:
        """The meta of a transaction that was sent without preflight, once it is confirmed."""
        signature = await self.send(tx, skipPreflight=True)
        await self.landed(signature)
        options = {**CONFIRMED, "maxSupportedTransactionVersion": 0}
        return (await eventually(lambda: self.call("getTransaction", signature, options)))["meta"]

    @asynccontextmanager
    async def subscribed(self, method: str, *params: Any) -> AsyncIterator["Subscription"]:
        async with connect(self.ws_url) as ws:
            await ws.send(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).decode())
            subscription = Subscription(ws)
            await subscription.acknowledged()
            yield subscription


class Subscription:
    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._identifier: int | None = None

    async def acknowledged(self) -> None:
        answer = await self._receive()
        if "error" in answer:
            raise Refused(answer["error"])
        self._identifier = answer["result"]

    async def notified(self) -> tuple[str, Any]:
        """Method and result of the next notification."""
        message = await self._receive()
        assert message["params"]["subscription"] == self._identifier
        return message["method"], message["params"]["result"]

    async def _receive(self) -> Any:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            return orjson.loads(await self._ws.recv())


async def eventually(probe: Callable[[], Any]) -> Any:
    """The first answer of `probe` that is not `None`."""
    async with asyncio.timeout(_DEADLINE_SECONDS):
        while (found := await probe()) is None:  # noqa: ASYNC110 (a cluster has no event to wait for)
            await asyncio.sleep(0.005)
        return found


def encoded(tx: VersionedTransaction) -> str:
    return base64.b64encode(bytes(tx)).decode()


def pay(payer: Pubkey, to: Pubkey, lamports: int) -> Instruction:
    return transfer(TransferParams(from_pubkey=payer, to_pubkey=to, lamports=lamports))


def create(payer: Pubkey, new: Pubkey, lamports: int, space: int, owner: Pubkey) -> Instruction:
    return create_account(
        CreateAccountParams(from_pubkey=payer, to_pubkey=new, lamports=lamports, space=space, owner=owner)
    )


_JSON = {"content-type": "application/json"}
