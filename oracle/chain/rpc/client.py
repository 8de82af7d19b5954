"""The typed client that every caller holds. It knows methods and shapes; a `Transport` knows where the calls go.

Methods carry the names of solana-py, and take and give solders types. `min_context_slot` asks for an answer as of that
slot or later: an endpoint behind it is not asked, and a node that ignores the wish is found out.
Sources: solana.com/docs/rpc/http, and Agave's `rpc/src/rpc.rs` for limits.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from solana.rpc.commitment import Commitment, Confirmed, Finalized
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.rpc import bulk, shapes
from oracle.chain.rpc.errors import BEHIND
from oracle.chain.rpc.transport import Call, Transport
from oracle.chain.rpc.types import (
    Account,
    AtSlot,
    Blockhash,
    DataSlice,
    EpochInfo,
    Filter,
    Memcmp,
    PerformanceSample,
    PriorityFee,
    ProgramAccounts,
    SignatureHistory,
    SignatureInfo,
    SignatureStatus,
    Simulation,
    TransactionRecord,
    Version,
)

T = TypeVar("T")

ACCOUNTS_PER_CALL: Final = 100
STATUSES_PER_CALL: Final = 256


class Client:
    """JSON-RPC calls over one endpoint or a pool. Every method raises `OracleError` with a code ORC-RPC-NNN."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    @property
    def name(self) -> str:
        """Hosts, never URLs."""
        return self.transport.name

    @property
    def tip_slot(self) -> int:
        """The newest slot that is known of the cluster, without a call; 0 where none is."""
        return self.transport.tip_slot

    def pinned(self) -> Client:
        """A client to one endpoint, the best now: for answers that prove something only together (law 2).

        Whatever fails there is raised. Then take another and start the proof anew.
        """
        return Client(self.transport.pinned())

    async def close(self) -> None:
        await self.transport.close()

    async def get_genesis_hash(self) -> Hash:
        return await self._call("getGenesisHash", [], shapes.blockhash)

    async def get_slot(self, commitment: Commitment = Confirmed, *, min_context_slot: int | None = None) -> int:
        def read(result: Any) -> int:
            return shapes.not_before(shapes.integer(result), min_context_slot)

        return await self._call("getSlot", [_config(commitment, min_context_slot)], read, min_context_slot)

    async def get_block_height(self, commitment: Commitment = Confirmed, *, min_context_slot: int | None = None) -> int:
        config = _config(commitment, min_context_slot)
        return await self._call("getBlockHeight", [config], shapes.integer, min_context_slot)

    async def get_epoch_info(
        self, commitment: Commitment = Confirmed, *, min_context_slot: int | None = None
    ) -> EpochInfo:
        """Slot and block height of one bank."""

        def read(result: Any) -> EpochInfo:
            return shapes.epoch_info(result, min_context_slot)

        return await self._call("getEpochInfo", [_config(commitment, min_context_slot)], read, min_context_slot)

    async def get_latest_blockhash(
        self, commitment: Commitment = Confirmed, *, min_context_slot: int | None = None
    ) -> Blockhash:
        def read(result: Any) -> Blockhash:
            return shapes.latest_blockhash(result, min_context_slot)

        return await self._call("getLatestBlockhash", [_config(commitment, min_context_slot)], read, min_context_slot)

    async def get_account(
        self,
        address: Pubkey,
        commitment: Commitment = Confirmed,
        *,
        min_context_slot: int | None = None,
        data_slice: DataSlice | None = None,
    ) -> AtSlot[Account | None]:
        config = _config(commitment, min_context_slot, **_data(data_slice))
        return await self._read(
            "getAccountInfo", [str(address), config], lambda v: shapes.optional(shapes.account, v), min_context_slot
        )

    async def get_multiple_accounts(
        self,
        addresses: Sequence[Pubkey],
        commitment: Commitment = Confirmed,
        *,
        min_context_slot: int | None = None,
        data_slice: DataSlice | None = None,
    ) -> AtSlot[list[Account | None]]:
        """Any number of accounts, in calls of 100. The slot is the lowest of the calls: values are as of it or later.

        With no address there is no call, and the slot is 0.
        """
        config = _config(commitment, min_context_slot, **_data(data_slice))
        parts = []
        for chunk in _chunks(addresses, ACCOUNTS_PER_CALL):

            def read(value: Any, asked: int = len(chunk)) -> list[Account | None]:
                return [shapes.optional(shapes.account, item) for item in shapes.array(value, asked)]

            params = [[str(address) for address in chunk], config]
            parts.append(await self._read("getMultipleAccounts", params, read, min_context_slot))
        return _joined(parts)

    async def get_program_accounts(
        self,
        program: Pubkey,
        filters: Sequence[Filter] = (),
        commitment: Commitment = Confirmed,
        *,
        min_context_slot: int | None = None,
        data_slice: DataSlice | None = None,
    ) -> AtSlot[ProgramAccounts]:
        """All accounts of a program that pass the filters (at most four). Another process parses large answers."""
        config = _config(commitment, min_context_slot, withContext=True, **_data(data_slice))
        config["filters"] = filter_params(filters)

        async def read_bulk(body: Sequence[bytes]) -> AtSlot[ProgramAccounts]:
            read = await bulk.read_apart(body)
            shapes.not_before(read.slot, min_context_slot)
            return read

        return await self.transport.call(
            Call(
                "getProgramAccounts",
                [str(program), config],
                lambda result: shapes.at_slot(result, bulk.program_accounts, min_context_slot),
                read_bulk,
                min_context_slot,
            )
        )

    async def get_signature_statuses(
        self, signatures: Sequence[Signature], *, search_history: bool = False
    ) -> AtSlot[list[SignatureStatus | None]]:
        """Any number of statuses, in calls of 256. None: not in the node's recent cache, or its history if searched.

        None alone proves nothing: see `get_signature_history`.
        """
        config = {"searchTransactionHistory": search_history}
        parts = []
        for chunk in _chunks(signatures, STATUSES_PER_CALL):

            def read(value: Any, asked: int = len(chunk)) -> list[SignatureStatus | None]:
                return [shapes.optional(shapes.signature_status, item) for item in shapes.array(value, asked)]

            params = [[str(signature) for signature in chunk], config]
            parts.append(await self._read("getSignatureStatuses", params, read))
        return _joined(parts)

    async def get_signature_history(self, signatures: Sequence[Signature]) -> SignatureHistory:
        """What one endpoint knows of these signatures, and how far its knowledge reaches: the proof of law 2.

        The height is read first and the statuses as of its slot or later, so whatever landed up to that height is among
        them; the start of the history is read last, because it only ever moves forward. Raises ORC-RPC-007 where the
        statuses come from a node behind the one that told the height, as behind a load balancer.
        """
        one = self.pinned()
        finalized = await one.get_epoch_info(Finalized)
        statuses = await one.get_signature_statuses(signatures, search_history=True)
        if signatures and statuses.slot < finalized.slot:
            raise BEHIND(f"{one.name}: statuses as of slot {statuses.slot}, height as of slot {finalized.slot}")
        first_available = await one.get_first_available_block()
        return SignatureHistory(finalized.slot, finalized.block_height, first_available, tuple(statuses.value))

    async def send_transaction(
        self,
        wire: bytes,
        *,
        skip_preflight: bool = True,
        max_retries: int = 0,
        preflight_commitment: Commitment = Confirmed,
        min_context_slot: int | None = None,
    ) -> Signature:
        """Send signed bytes to every healthy endpoint; returns at the first that takes them.

        Raises ORC-RPC-015 (`Verdict.UNKNOWN`) where an answer was lost: the transaction may be on its way. An error of
        any other kind from one endpoint does not prove that no other forwarded it earlier.
        """
        config: dict[str, Any] = {
            "encoding": "base64",
            "skipPreflight": skip_preflight,
            "maxRetries": max_retries,
            "preflightCommitment": preflight_commitment,
        }
        if min_context_slot is not None:
            config["minContextSlot"] = min_context_slot
        params = [base64.b64encode(wire).decode(), config]
        return await self.transport.broadcast(Call("sendTransaction", params, shapes.signature, acts=True))

    async def simulate_transaction(
        self,
        wire: bytes,
        commitment: Commitment = Confirmed,
        *,
        sig_verify: bool = False,
        replace_blockhash: bool = False,
        accounts: Sequence[Pubkey] = (),
        min_context_slot: int | None = None,
    ) -> Simulation:
        """Run a transaction without effect. `accounts` are returned as they would be afterwards."""
        config = _config(commitment, min_context_slot, encoding="base64")
        config |= {"sigVerify": sig_verify, "replaceRecentBlockhash": replace_blockhash}
        if accounts:
            config["accounts"] = {"encoding": "base64", "addresses": [str(address) for address in accounts]}

        def read(result: Any) -> Simulation:
            return shapes.simulation(result, len(accounts), min_context_slot)

        params = [base64.b64encode(wire).decode(), config]
        return await self._call("simulateTransaction", params, read, min_context_slot)

    async def get_recent_prioritization_fees(self, addresses: Sequence[Pubkey] = ()) -> list[PriorityFee]:
        """Lowest prices that got in, per slot of the last 150, with locks on all of `addresses` (at most 128)."""
        params = [[str(address) for address in addresses]]
        return await self._call("getRecentPrioritizationFees", params, _list_of(shapes.priority_fee))

    async def get_minimum_balance_for_rent_exemption(self, size: int) -> int:
        """Lamports that an account of `size` bytes must hold."""
        return await self._call("getMinimumBalanceForRentExemption", [size], shapes.integer)

    async def get_balance(
        self, address: Pubkey, commitment: Commitment = Confirmed, *, min_context_slot: int | None = None
    ) -> AtSlot[int]:
        config = _config(commitment, min_context_slot)
        return await self._read("getBalance", [str(address), config], shapes.integer, min_context_slot)

    async def get_transaction(
        self, signature: Signature, commitment: Commitment = Confirmed
    ) -> TransactionRecord | None:
        """A transaction that landed, with its logs; None where this node does not know it."""
        config = {"encoding": "base64", "commitment": commitment, "maxSupportedTransactionVersion": 0}
        return await self._call(
            "getTransaction", [str(signature), config], lambda v: shapes.optional(shapes.transaction, v)
        )

    async def get_signatures_for_address(
        self,
        address: Pubkey,
        commitment: Commitment = Confirmed,
        *,
        before: Signature | None = None,
        until: Signature | None = None,
        limit: int = 1000,
        min_context_slot: int | None = None,
    ) -> list[SignatureInfo]:
        """Transactions that named the address, newest first: before `before`, down to `until`, both left out."""
        config = _config(commitment, min_context_slot, limit=limit)
        config |= {name: str(given) for name, given in (("before", before), ("until", until)) if given is not None}
        return await self._call(
            "getSignaturesForAddress", [str(address), config], _list_of(shapes.signature_info), min_context_slot
        )

    async def request_airdrop(self, address: Pubkey, lamports: int) -> Signature:
        """Ask for play money on a test cluster."""
        params = [str(address), lamports]
        return await self.transport.call(Call("requestAirdrop", params, shapes.signature, acts=True))

    async def get_health(self) -> None:
        """Return if the node thinks itself healthy, else raise ORC-RPC-013."""
        await self._call("getHealth", [], shapes.text)

    async def get_version(self) -> Version:
        return await self._call("getVersion", [], shapes.version)

    async def get_first_available_block(self) -> int:
        """The lowest slot whose block, and so whose transactions, the node can still look up."""
        return await self._call("getFirstAvailableBlock", [], shapes.integer)

    async def get_minimum_ledger_slot(self) -> int:
        """The lowest slot in the node's own ledger."""
        return await self._call("minimumLedgerSlot", [], shapes.integer)

    async def get_recent_performance_samples(self, limit: int = 30) -> list[PerformanceSample]:
        """How many slots passed per minute lately, newest first."""
        return await self._call("getRecentPerformanceSamples", [limit], _list_of(shapes.performance_sample))

    async def _call(
        self, method: str, params: list[Any], read: Callable[[Any], T], min_context_slot: int | None = None
    ) -> T:
        return await self.transport.call(Call(method, params, read, min_context_slot=min_context_slot))

    async def _read(
        self, method: str, params: list[Any], read: Callable[[Any], T], min_context_slot: int | None = None
    ) -> AtSlot[T]:
        return await self._call(
            method, params, lambda result: shapes.at_slot(result, read, min_context_slot), min_context_slot
        )


def filter_params(filters: Sequence[Filter]) -> list[dict[str, Any]]:
    """Filters as `getProgramAccounts` and `programSubscribe` take them."""
    return [
        {"memcmp": {"offset": f.offset, "bytes": base64.b64encode(f.bytes).decode(), "encoding": "base64"}}
        if isinstance(f, Memcmp)
        else {"dataSize": f.size}
        for f in filters
    ]


def _config(commitment: Commitment, min_context_slot: int | None, **more: Any) -> dict[str, Any]:
    config: dict[str, Any] = {"commitment": commitment, **more}
    if min_context_slot is not None:
        config["minContextSlot"] = min_context_slot
    return config


def _data(data_slice: DataSlice | None) -> dict[str, Any]:
    # Plain base64: zstd costs the event loop three times as much and pays only for large accounts on slow links.
    if data_slice is None:
        return {"encoding": "base64"}
    return {"encoding": "base64", "dataSlice": {"offset": data_slice.offset, "length": data_slice.length}}


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _joined(parts: Sequence[AtSlot[list[T]]]) -> AtSlot[list[T]]:
    return AtSlot(min((part.slot for part in parts), default=0), [item for part in parts for item in part.value])


def _list_of(read: Callable[[Any], T]) -> Callable[[Any], list[T]]:
    return lambda result: [read(item) for item in shapes.array(result)]
