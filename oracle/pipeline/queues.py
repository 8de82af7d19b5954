"""Queues that name our key."""

from __future__ import annotations

from solders.pubkey import Pubkey

from oracle.chain.program import layout
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import DataSlice, Memcmp
from oracle.config import Config

_KEY_AT = 48
_QUEUE_AT = 16


async def unconfigured_queues(rpc: Client, program_id: Pubkey, key: Pubkey, config: Config) -> list[Pubkey]:
    """Queues on which somebody registered our key, and that the configuration does not list."""
    found = await rpc.get_program_accounts(
        program_id,
        [Memcmp(0, layout.OPERATOR_DISCRIMINATOR), Memcmp(_KEY_AT, bytes(key))],
        data_slice=DataSlice(_QUEUE_AT, 32),
    )
    queues = [Pubkey.from_bytes(data) for data in found.value.data]
    return [queue for queue in queues if str(queue) not in config.operator.queues]
