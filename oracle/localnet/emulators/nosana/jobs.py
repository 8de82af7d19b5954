"""Jobs and the money that is bound in them: every change is a new record, every record is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import Any

from oracle.localnet.emulators.records import Records

NOBODY = "1" * 32
"""The all-zero key: the node of a queued job (§4.4)."""


PAYER = "credFgXCGH3JFUT6WEKF6tJitxrXhSCM2VEqF7GE6pt"
"""Who pays on chain for jobs bought with credits: Nosana, not the user (§6.5)."""


class JobState(IntEnum):
    """As REST numbers them (§2.4)."""

    QUEUED = 0
    RUNNING = 1
    COMPLETED = 2
    STOPPED = 3

    @property
    def ended(self) -> bool:
        return self >= JobState.COMPLETED


@dataclass(frozen=True, slots=True)
class Job:
    """One job account. Times are unix seconds, 0 until they come; `fault` is what the emulator was told to do to it."""

    number: int
    address: str
    run: str
    tx: str
    user_id: str
    project: str
    market: str
    ipfs_job: str
    timeout_seconds: int
    price_micro_nos_per_second: int
    usd_per_hour: float
    reserved_micro_usd: int
    listed_at: float
    reservation_id: str
    idempotency_key: str | None = None
    requested_node: str | None = None
    fault: dict[str, Any] | None = None
    state: JobState = JobState.QUEUED
    delisted: bool = False
    node: str = NOBODY
    time_start: float = 0.0
    time_end: float = 0.0
    settled_micro_usd: int = 0
    ipfs_result: str | None = None
    result_at: float = 0.0
    stopped_by_owner: bool = False

    @property
    def deadline(self) -> float:
        return self.time_start + self.timeout_seconds


@dataclass(frozen=True, slots=True)
class Balance:
    """Micro-dollars: granted, bound in jobs that have not ended, spent."""

    assigned: int
    reserved: int
    settled: int

    @property
    def available(self) -> int:
        return self.assigned - self.reserved - self.settled


class Jobs:
    """All jobs ever listed, delisted ones included, newest last."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._jobs: dict[str, Job] = {}
        self._reserved: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        for _, record in records.read("job"):
            self._keep(Job(**{**record, "state": JobState(record["state"])}))

    def put(self, job: Job) -> Job:
        self._records.put("job", job.address, asdict(job))
        self._keep(job)
        return job

    def change(self, address: str, **changes: Any) -> Job:
        return self.put(replace(self._jobs[address], **changes))

    def get(self, address: str) -> Job | None:
        return self._jobs.get(address)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def __len__(self) -> int:
        return len(self._jobs)

    def balance(self, user_id: str, assigned_micro_usd: int) -> Balance:
        return Balance(assigned_micro_usd, self._reserved.get(user_id, 0), self._settled.get(user_id, 0))

    def _keep(self, job: Job) -> None:
        before = self._jobs.get(job.address)
        for total, name in ((self._reserved, "reserved_micro_usd"), (self._settled, "settled_micro_usd")):
            gone = 0 if before is None else getattr(before, name)
            total[job.user_id] = total.get(job.user_id, 0) - gone + getattr(job, name)
        self._jobs[job.address] = job
