"""What providers may read of the chain, over the daemon's own RPC endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from solders.pubkey import Pubkey

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import Memcmp
from oracle.core.purchase import AccountState


class RpcView:
    """Implements `ChainView`."""

    def __init__(self, rpc: Client) -> None:
        self._rpc = rpc

    async def accounts(self, addresses: Sequence[Pubkey], *, since_slot: int = 0) -> list[AccountState | None]:
        read = await self._rpc.get_multiple_accounts(addresses, min_context_slot=since_slot or None)
        return [
            None if account is None else AccountState(account.lamports, account.owner, account.data)
            for account in read.value
        ]

    async def accounts_of(self, program: Pubkey, contents: Mapping[int, bytes]) -> dict[Pubkey, bytes]:
        filters = [Memcmp(offset, content) for offset, content in contents.items()]
        found = (await self._rpc.get_program_accounts(program, filters)).value
        return {Pubkey.from_string(address): data for address, data in zip(found.addresses, found.data, strict=True)}

    async def was_used(self, address: Pubkey, *, since_slot: int = 0) -> bool:
        signatures = await self._rpc.get_signatures_for_address(address, min_context_slot=since_slot or None)
        return any(info.failure is None for info in signatures)
