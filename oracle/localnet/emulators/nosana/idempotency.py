"""Idempotency keys of job writes: one effect for one key (§4.3, §6.4, §7.1)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from oracle.localnet.emulators.records import Records

RETRY_AFTER_SECONDS = 5


class Control(StrEnum):
    """The codes of a 409 that is about the key and not about the request."""

    IN_PROGRESS = "IDEMPOTENCY_KEY_IN_PROGRESS"
    EXPIRED = "IDEMPOTENCY_KEY_EXPIRED"
    PAYLOAD_MISMATCH = "IDEMPOTENCY_KEY_PAYLOAD_MISMATCH"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A status with a JSON body. `dead` says that the transaction which the key stands for can never land."""

    status: int
    body: Any
    dead: bool = False


_NOT_YOURS = Outcome(404, {"message": "Job not found"})


class Idempotency:
    """Keys and what became of them. How long Nosana keeps a key is unverified; here it is kept for ever."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._settled: dict[str, dict[str, Any]] = dict(records.read("idempotency"))
        self._in_flight: dict[str, tuple[str, str]] = {}

    async def once(
        self, user_id: str, key: str | None, payload: bytes, work: Callable[[], Outcome], *, seconds: float = 0.0
    ) -> Outcome:
        """Does the work after `seconds`, unless this key stands for it already. `work` is one step without a pause.

        A refusal settles nothing: after a 4xx the key is free again (what Nosana does is unverified).
        """
        if key is None:
            await asyncio.sleep(seconds)
            return work()
        digest = hashlib.sha256(payload).hexdigest()
        if (earlier := self._earlier(user_id, key, digest)) is not None:
            return earlier
        self._in_flight[key] = (user_id, digest)
        try:
            await asyncio.sleep(seconds)
            outcome = work()
        finally:
            del self._in_flight[key]
        if outcome.status < 400 or outcome.dead:
            record = {"user_id": user_id, "digest": digest, "body": outcome.body, "dead": outcome.dead}
            self._settled[key] = record
            self._records.put("idempotency", key, record)
        return outcome

    def _earlier(self, user_id: str, key: str, digest: str) -> Outcome | None:
        if (flight := self._in_flight.get(key)) is not None:
            if flight[0] != user_id:
                return _NOT_YOURS
            return _control(Control.IN_PROGRESS if flight[1] == digest else Control.PAYLOAD_MISMATCH)
        record = self._settled.get(key)
        if record is None:
            return None
        if record["user_id"] != user_id:
            return _NOT_YOURS
        if record["digest"] != digest:
            return _control(Control.PAYLOAD_MISMATCH)
        return _control(Control.EXPIRED) if record["dead"] else Outcome(200, record["body"])


def _control(code: Control) -> Outcome:
    body: dict[str, Any] = {"code": str(code), "message": _MESSAGES[code]}
    if code is Control.IN_PROGRESS:
        body["retryAfter"] = RETRY_AFTER_SECONDS
    return Outcome(409, body)


_MESSAGES = {
    Control.IN_PROGRESS: "A request with this idempotency key is in progress",
    Control.EXPIRED: "The transaction prepared for this idempotency key has expired",
    Control.PAYLOAD_MISMATCH: "This idempotency key was used with another payload",
}
