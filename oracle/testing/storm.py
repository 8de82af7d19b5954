"""What can go wrong between a daemon and its network, by name; and storms, in which all of it does, from a seed.

A storm is a function of its seed: which fault strikes the how-manieth call of a method follows from nothing else, so
the same seed brings the same weather, whatever else goes on at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from oracle.localnet.emulators.faults import Fault


class CallFault(StrEnum):
    """What can befall a call: `FaultProxy.calls`. Its subject is the JSON-RPC method, else `POST /the/path`."""

    SLOW = "slow"
    """Pass it on after `seconds`. Every other kind waits `seconds` first, too."""
    HANG = "hang"
    """Never answer; the call goes nowhere."""
    DROP = "drop"
    """Close the connection without an answer; the call goes nowhere."""
    LOSE_ANSWER = "lose_answer"
    """Pass it on, then close the connection without an answer."""
    TWICE = "twice"
    """Pass it on twice, and answer what came second."""
    LATE = "late"
    """Pass it on at once, and answer only when a later call has been answered, or after a second."""
    TRUNCATE = "truncate"
    """Pass it on, answer half of the body under the full Content-Length, close the connection."""
    MALFORMED = "malformed"
    """Pass it on, and answer the first half of the body as if it were all."""
    HTML = "html"
    """Answer `status` (502 unless told) with a gateway's page; the call goes nowhere."""
    RATE_LIMIT = "rate_limit"
    """Answer 429, with `retry_after` as header where given; the call goes nowhere."""
    STATUS_FORGOTTEN = "status_forgotten"
    """`getSignatureStatuses`: the node has never heard of any of them."""
    STATUS_EARLY = "status_early"
    """`getSignatureStatuses`: all of them are confirmed, whether they have landed or not."""
    STATUS_FAILED = "status_failed"
    """`getSignatureStatuses`: all of them are confirmed, and have failed."""
    SWALLOW = "swallow"
    """`sendTransaction`: take it, answer with its signature, and lose it for good, however often it is sent again."""
    OLD_BLOCKHASH = "old_blockhash"
    """`getLatestBlockhash`: one that has just expired. Before the embedded chain only."""
    FORK = "fork"
    """Pass it on, then drop every slot that is not confirmed, before it is answered. Before the embedded chain only."""


class PushFault(StrEnum):
    """What can befall a WebSocket message: `FaultProxy.pushes`. Its subject is the method of a notification, `answer`
    for an answer on the socket, and `connect` for a connection that is to be made."""

    SLOW = "slow"
    """It, and all behind it, arrive after `seconds`."""
    DROP = "drop"
    """It does not arrive."""
    TWICE = "twice"
    """It arrives twice."""
    LATE = "late"
    """It arrives behind the next one."""
    GARBLE = "garble"
    """Half of it arrives."""
    CUT = "cut"
    """The connection is gone, without a close frame, and so is it. A `connect` is refused."""
    SILENCE = "silence"
    """The connection stays up, and nothing comes through any more."""


OF_METHOD: dict[str, frozenset[str]] = {
    "getSignatureStatuses": frozenset(
        {CallFault.STATUS_FORGOTTEN, CallFault.STATUS_EARLY, CallFault.STATUS_FAILED},
    ),
    "sendTransaction": frozenset({CallFault.SWALLOW, CallFault.FORK}),
    "getLatestBlockhash": frozenset({CallFault.OLD_BLOCKHASH}),
}
"""Kinds that only these methods can suffer."""

_PARTICULAR = frozenset().union(*OF_METHOD.values())
ON_THE_WIRE = tuple(kind for kind in CallFault if kind not in _PARTICULAR)
"""Kinds that any call can suffer."""


@dataclass(frozen=True, slots=True)
class Storm:
    """Of all calls and pushes a fraction `rate` is struck, by one of the kinds that are listed and possible for it.

    `slots_behind` is what the endpoint is behind, drawn anew for every `spell_slots` of the embedded chain, and never
    more than that keeps.
    """

    seed: int
    rate: float = 0.1
    calls: Sequence[str] = tuple(kind for kind in CallFault if kind is not CallFault.HANG)
    pushes: Sequence[str] = tuple(kind for kind in PushFault if kind is not PushFault.SILENCE)
    slots_behind: Sequence[int] = (0, 0, 0, 3, 40)
    spell_slots: int = 40
    most_seconds: float = 0.3
    """The longest wait of a fault."""

    def call(self, subject: str, nth: int) -> Fault | None:
        """What strikes the `nth` call of a subject, if anything does."""
        fitting = OF_METHOD.get(subject, frozenset())
        return self._fault(subject, nth, [kind for kind in self.calls if kind in fitting or kind not in _PARTICULAR])

    def push(self, subject: str, nth: int) -> Fault | None:
        if subject == "connect":
            return self._fault(subject, nth, [kind for kind in self.pushes if kind == PushFault.CUT])
        return self._fault(subject, nth, self.pushes)

    def behind(self, slot: int) -> int:
        """How many slots the endpoint is behind while `slot` is the newest."""
        return Random(f"{self.seed} behind {slot // self.spell_slots}").choice(self.slots_behind)

    def _fault(self, subject: str, nth: int, kinds: Sequence[str]) -> Fault | None:
        chance = Random(f"{self.seed} {subject} {nth}")
        if not kinds or chance.random() >= self.rate:
            return None
        kind = chance.choice(kinds)
        waits = kind in (CallFault.SLOW, PushFault.SLOW) or chance.random() < 0.2
        return Fault(
            kind,
            seconds=chance.uniform(0.0, self.most_seconds) if waits else 0.0,
            retry_after=chance.choice((None, "0", "1")) if kind == CallFault.RATE_LIMIT else None,
            status=chance.choice((403, 500, 502, 503, 504)) if kind == CallFault.HTML else None,
        )
