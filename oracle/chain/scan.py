"""Reads the accounts of the queues, compares them with what is on record, and looks closely at what differs.

Every scan compares anew, so whatever was lost on the way (a push, a process, a row) the next scan finds again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from solana.rpc.commitment import Confirmed, Finalized
from solders.pubkey import Pubkey

from oracle.chain.rpc.client import ACCOUNTS_PER_CALL, Client
from oracle.chain.rpc.errors import GARBAGE
from oracle.chain.rpc.types import Account, AtSlot, DataSlice, Filter, Memcmp, ProgramAccounts
from oracle.chain.sightings import Known, Layout, Sighting
from oracle.core.request import RequestKey

_BREATH: Final = 2_000
"""Items that are looked at before the event loop gets its turn: a few milliseconds."""

Item = TypeVar("Item")


async def breathing(items: Iterable[Item]) -> AsyncIterator[Item]:
    """The items one by one, with a turn of the event loop now and then: a hundred thousand would stall it."""
    for n, item in enumerate(items):
        if n % _BREATH == 0:
            await asyncio.sleep(0)
        yield item


@dataclass(frozen=True, slots=True)
class Differences:
    """What one pass over the accounts shows. Each read was at `slot` or later. `addresses` deserve a closer look."""

    slot: int
    found: set[str]
    addresses: list[str]


@dataclass(frozen=True, slots=True)
class Looked:
    """What a closer look shows: accounts that are there, and requests that are not, with their last sighting."""

    sightings: list[Sighting]
    gone: dict[RequestKey, int]


class Scanner:
    """Reads the requests of some queues through a client. Every method raises ORC-RPC-NNN."""

    def __init__(self, client: Client, program: Pubkey, queues: Sequence[Pubkey], layout: Layout) -> None:
        self._client = client
        self._program = program
        self._queues = frozenset(bytes(queue) for queue in queues)
        self._layout = layout
        self._claims: dict[str, bytes] = {}

    def is_ours(self, account: Account) -> bool:
        """Whether an account is a request of one of our queues."""
        data = account.data
        return (
            account.owner == self._program
            and self._layout.is_request(data)
            and self._layout.queue(data) in self._queues
        )

    async def compare(
        self,
        known: Mapping[str, Known],
        *,
        sweep: bool,
        floor: int | None = None,
        sighted_at: Callable[[str], int] = lambda address: 0,
    ) -> Differences:
        """Read all open accounts, or with `sweep` all, and tell which differ from the record, or are missing.

        `floor` is a slot that no read may be before. `sighted_at` tells when an account was seen since `known` was
        written.
        """
        slot: int | None = None
        found: set[str] = set()
        different: list[str] = []
        for queue in self._queues:
            for read in await self._read(queue, sweep=sweep, floor=floor):
                slot = read.slot if slot is None else min(slot, read.slot)
                found.update(read.value.addresses)
                different += await self._different(read, known)
        missing = [
            address
            async for address, row in breathing(known.items())
            if address not in found
            and (sweep or row.status in self._layout.open_statuses)
            and max(row.slot, sighted_at(address)) < (slot or 0)
        ]
        # Claimed between the two reads of its queue, a request is in both.
        return Differences(slot or 0, found, list(dict.fromkeys(different + missing)))

    async def look_at(self, addresses: Sequence[str], slot: int, known: Mapping[str, Known]) -> Looked:
        """Read whole accounts, at `slot` or later."""
        looked = Looked([], {})
        keys = [self._key(address) for address in addresses]
        read = await self._client.get_multiple_accounts(keys, Confirmed, min_context_slot=slot)
        for address, key, account in zip(addresses, keys, read.value, strict=True):
            created_slot = None
            if account is not None and self.is_ours(account):
                cut = self._layout.cut(account.data)
                created_slot = self._layout.created_slot(cut)
                self._note_claim(address, cut)
                looked.sightings.append(Sighting(key, account.data, read.slot, "scan"))
            row = known.get(address)
            if row is not None and created_slot != row.created_slot:
                looked.gone[RequestKey(address, row.created_slot)] = row.slot
        return looked

    async def prove_absent(self, last_seen: Mapping[RequestKey, int]) -> dict[RequestKey, int]:
        """Which requests are gone for good, with the slot of the finalized read that says so.

        `last_seen` has the slot of each one's last sighting: a read that is not later proves nothing. An account that
        was closed and made anew is another request, by its slot of creation.
        """
        proven: dict[RequestKey, int] = {}
        keys = list(last_seen)
        head = DataSlice(0, self._layout.slice_at + self._layout.slice_length)
        for start in range(0, len(keys), ACCOUNTS_PER_CALL):
            chunk = keys[start : start + ACCOUNTS_PER_CALL]
            addresses = [Pubkey.from_string(key.address) for key in chunk]
            read = await self._client.get_multiple_accounts(addresses, Finalized, data_slice=head)
            for key, account in zip(chunk, read.value, strict=True):
                if read.slot > last_seen[key] and not self._is_alive(key, account):
                    proven[key] = read.slot
                    self._claims.pop(key.address, None)
        return proven

    async def _read(self, queue: bytes, *, sweep: bool, floor: int | None) -> list[AtSlot[ProgramAccounts]]:
        layout = self._layout
        of_queue: list[Filter] = [Memcmp(0, layout.discriminator), Memcmp(layout.queue_at, queue)]
        if sweep:
            return [await self._read_accounts(of_queue, floor)]
        reads: list[AtSlot[ProgramAccounts]] = []
        for status in layout.open_statuses:
            # Pending first, and claimed as of the same slot or later: what is claimed in between is in the first read.
            # The other way round, or with an older second read, it would be in neither.
            at = reads[-1].slot if reads else floor
            reads.append(await self._read_accounts([*of_queue, Memcmp(layout.status_at, bytes([status]))], at))
        return reads

    async def _read_accounts(self, filters: Sequence[Filter], slot: int | None) -> AtSlot[ProgramAccounts]:
        cut = DataSlice(self._layout.slice_at, self._layout.slice_length)
        read = await self._client.get_program_accounts(
            self._program, filters, Confirmed, data_slice=cut, min_context_slot=slot
        )
        if any(len(data) != self._layout.slice_length for data in read.value.data):
            raise GARBAGE(f"{self._client.name} getProgramAccounts: data that is not of the slice's length")
        return read

    async def _different(self, read: AtSlot[ProgramAccounts], known: Mapping[str, Known]) -> list[str]:
        return [
            address
            async for address, cut in breathing(zip(read.value.addresses, read.value.data, strict=True))
            if self._differs(address, cut, read.slot, known.get(address))
        ]

    def _key(self, address: str) -> Pubkey:
        try:
            return Pubkey.from_string(address)
        except ValueError:
            raise GARBAGE(f"{self._client.name} getProgramAccounts: no address") from None

    def _differs(self, address: str, cut: bytes, slot: int, row: Known | None) -> bool:
        if row is None:
            return True
        if row.slot > slot:  # the record is newer than this read
            return False
        status = self._layout.status(cut)
        if status != row.status or self._layout.created_slot(cut) != row.created_slot:
            return True
        # A claim that passes from one operator to another changes neither.
        return status == self._layout.claimed and self._claims.get(address) != cut

    def _note_claim(self, address: str, cut: bytes) -> None:
        if self._layout.status(cut) == self._layout.claimed:
            self._claims[address] = cut
        else:
            self._claims.pop(address, None)

    def _is_alive(self, key: RequestKey, account: Account | None) -> bool:
        if account is None or account.owner != self._program or not self._layout.is_request(account.data):
            return False
        return self._layout.created_slot(self._layout.cut(account.data)) == key.created_slot
