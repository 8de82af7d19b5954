"""What is seen of requests on chain, and where in an account the things stand that a scan compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from solders.pubkey import Pubkey

from oracle.chain.program import layout
from oracle.core.request import RequestKey, Status

Channel = Literal["push", "scan"]

CREATED_SLOT_OFFSET: Final = 104


@dataclass(frozen=True, slots=True)
class Sighting:
    """A request account as it stood at `slot`. `lag_slots` is how old the news was, where that can be told."""

    address: Pubkey
    data: bytes
    slot: int
    channel: Channel
    lag_slots: int | None = None


@dataclass(frozen=True, slots=True)
class Vanished:
    """A finalized read at `slot`, later than the last sighting, does not have the request."""

    key: RequestKey
    slot: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the caller has on record of a request. `slot` is the newest at which it knows how the account stood."""

    created_slot: int
    status: int
    slot: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a request account keeps what a scan compares: offsets from the start of the data, slots as u64 LE.

    `claimed` is None for a program whose requests are not claimed.
    """

    discriminator: bytes
    queue_at: int = layout.QUEUE_OFFSET
    status_at: int = layout.STATUS_OFFSET
    created_slot_at: int = CREATED_SLOT_OFFSET
    slice_at: int = layout.SLICE_OFFSET
    slice_length: int = layout.SLICE_LENGTH
    pending: int = Status.PENDING
    claimed: int | None = Status.CLAIMED

    @property
    def open_statuses(self) -> tuple[int, ...]:
        return (self.pending,) if self.claimed is None else (self.pending, self.claimed)

    def cut(self, data: bytes) -> bytes:
        """The slice of whole data."""
        return data[self.slice_at : self.slice_at + self.slice_length]

    def status(self, cut: bytes) -> int:
        """The status in a slice."""
        return cut[self.status_at - self.slice_at]

    def created_slot(self, cut: bytes) -> int:
        """The slot of creation in a slice."""
        at = self.created_slot_at - self.slice_at
        return int.from_bytes(cut[at : at + 8], "little")

    def is_request(self, data: bytes) -> bool:
        """Whether whole data begins as a request does."""
        return data.startswith(self.discriminator) and len(data) >= self.slice_at + self.slice_length

    def queue(self, data: bytes) -> bytes:
        """The queue in whole data."""
        return data[self.queue_at : self.queue_at + 32]
