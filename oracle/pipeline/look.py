"""What one read of an account shows of a request, and the row that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from solders.pubkey import Pubkey

from oracle.chain.sightings import Sighting
from oracle.core.lifecycle import State, end_of
from oracle.core.request import Request
from oracle.store.changes import Sighted


@dataclass(frozen=True, slots=True)
class Look:
    """`operator` is the key that the request is to be worked for."""

    request: Request
    sighting: Sighting
    operator: Pubkey
    now_ms: int

    @property
    def first(self) -> State:
        """The state of a row that is new. What had ended before we first saw it is nobody's work, but is still closed
        when due."""
        return end_of(self.request.header.status, settled_by_us=False) or State.SEEN

    def sighted(self) -> Sighted:
        """What the row is made of, if there is none yet."""
        request, header = self.request, self.request.header
        return Sighted(
            operator=str(self.operator),
            address=str(request.address),
            created_slot=header.created_slot,
            queue=str(header.queue),
            requester=str(header.requester),
            refund_to=str(header.refund_to),
            model=request.body.model,
            fee_lamports=header.fee_lamports,
            deadline_slot=header.deadline_slot,
            claim_required=header.claim_required,
            retention_slots=header.retention_slots,
            account=self.sighting.data,
            chain_status=int(header.status),
            chain_slot=self.sighting.slot,
            now_ms=self.now_ms,
            seen_by=self.sighting.channel,
            state=self.first,
        )
