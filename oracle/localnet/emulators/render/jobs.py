"""The life of a job and its run (§5): what it is now follows from its times, in unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from oracle.localnet.emulators.render.hardware import iso_time

TERMINAL = ("COMPLETED", "FAILED", "CANCELLED")


class JobFault(StrEnum):
    """What can go wrong with a job. The subject is its title."""

    NEVER_ASSIGNED = "never_assigned"
    """No node takes it; it fails when its time to be assigned is over."""
    START_FAILS = "start_fails"
    EXITS = "exits"
    """The container ends with `exit_code` as soon as it runs; 0 is a COMPLETED job."""
    NODE_LOST = "node_lost"
    """The node goes away in the middle of the first call to the container; FAILING is seen before FAILED."""
    NO_RUNS = "no_runs"
    """RUNNING, and the list of runs stays empty."""
    NO_ADDRESS = "no_address"
    """RUNNING, and `node_urls` stays empty."""
    NEVER_HEALTHY = "never_healthy"
    """The container's server answers 503 for ever, as one that still loads its model."""
    STRANGE_STATUS = "strange_status"
    """A status that nobody documents, while it runs."""
    SLOW_CANCEL = "slow_cancel"
    """CANCELLING for `seconds`."""
    DEAR = "dear"
    """It is placed on a node of six GPUs, at 4.14 USD an hour."""
    NO_RATE = "no_rate"
    """`hourly_rate_usd` and `duration_ms` stay null."""
    UNLISTED = "unlisted"
    """It is missing from the list for `seconds`."""


@dataclass(frozen=True, slots=True)
class Timings:
    """How long each phase takes. The run is listed and gets its address some time after the job is RUNNING (§5)."""

    assign_seconds: float = 0.0
    start_seconds: float = 0.0
    run_lag_seconds: float = 0.0
    address_lag_seconds: float = 0.0
    load_seconds: float = 0.0
    """From the address to a server that serves."""
    cancel_seconds: float = 0.0


AT_ONCE = Timings()


@dataclass(frozen=True, slots=True)
class Job:
    """One job on one node. `order` is the body that created it."""

    uuid: str
    run_uuid: str
    public_key: str
    order: dict[str, Any]
    usd_per_hour: str
    created_at: float
    assigned_at: float
    running_at: float
    run_listed_at: float
    addressed_at: float
    serving_at: float
    cancel_seconds: float
    listed_at: float
    exit_code: int | None
    """What its container ends with as soon as it runs; None for a server that goes on."""
    exit_reason: str = ""
    fault: str | None = None
    cancelled_at: float | None = None
    lost_at: float | None = None

    def status(self, now: float) -> str:
        ended = self._ended(now)
        if self.cancelled_at is not None and (ended is None or ended[0] >= self.cancelled_at):
            return "CANCELLED" if now >= self.cancelled_at + self.cancel_seconds else "CANCELLING"
        if ended is not None:
            return ended[1]
        if self.lost_at is not None:
            return "FAILING"
        if now < self.assigned_at or self.fault == JobFault.NEVER_ASSIGNED:
            return "PENDING"
        if now < self.running_at:
            return "PREPARING" if now > (self.assigned_at + self.running_at) / 2 else "ASSIGNED"
        return "REBALANCING" if self.fault == JobFault.STRANGE_STATUS else "RUNNING"

    def reason(self, now: float) -> str | None:
        match self.status(now):
            case "CANCELLED":
                return "Cancelled by user"
            case "FAILED":
                ended = self._ended(now)
                return ended[2] if ended else None
        return None

    def ended_at(self, now: float) -> float | None:
        """When it ended for good, and ceased to cost; None while it goes on."""
        if self.status(now) not in TERMINAL:
            return None
        if self.status(now) == "CANCELLED":
            assert self.cancelled_at is not None
            return self.cancelled_at + self.cancel_seconds
        ended = self._ended(now)
        return ended[0] if ended else None

    def _ended(self, now: float) -> tuple[float, str, str] | None:
        """When, how and why it ended of itself."""
        if self.fault == JobFault.NEVER_ASSIGNED:
            at = self.created_at + self.order["max_timeout_assign_ms"] / 1000
            # Which status this ends in is unverified (§5).
            return (at, "FAILED", "Assignment timed out") if now >= at else None
        if self.fault == JobFault.START_FAILS and now >= self.running_at:
            return self.running_at, "FAILED", "Image pull failed"
        if self.exit_code is not None and now >= self.running_at:
            reason = self.exit_reason or f"Container exited with code {self.exit_code}"
            return self.running_at, "COMPLETED" if self.exit_code == 0 else "FAILED", reason
        if self.lost_at is not None and now >= self.lost_at + self.cancel_seconds:
            return self.lost_at + self.cancel_seconds, "FAILED", "Node lost"
        limit_ms = self.order["max_timeout_run_ms"]
        if limit_ms is not None and now >= self.running_at + limit_ms / 1000:
            return self.running_at + limit_ms / 1000, "FAILED", "Run timed out"
        return None

    def serves(self, now: float) -> bool:
        """Whether its server takes calls."""
        is_up = self.fault not in (JobFault.NEVER_HEALTHY, JobFault.NO_ADDRESS) and now >= self.serving_at
        return is_up and self.lost_at is None and self.status(now) in ("RUNNING", "REBALANCING")

    def cost_usd(self, now: float) -> Decimal:
        """For the time it ran (BATCH), or since it was created, as a client reports of PERSISTENT jobs (§7)."""
        began = self.running_at if self.order["task"] == "BATCH" else self.created_at
        until = min(now, self.ended_at(now) or now)
        return Decimal(str(max(0.0, until - began))) * Decimal(self.usd_per_hour) / 3600

    def as_json(self, now: float) -> dict[str, Any]:
        status, ended = self.status(now), self.ended_at(now)
        return {
            "object": "job",
            "uuid": self.uuid,
            "status": status,
            "status_reason": self.reason(now),
            **self.order,
            "timeout_assign_at_ms": int(self.created_at * 1000) + self.order["max_timeout_assign_ms"],
            "image_size_bytes": None,
            "container_access_tokens": [],
            "source_recipe_uuid": None,
            "created_at": iso_time(self.created_at),
            "updated_at": iso_time(now),
            "started_at": iso_time(self.running_at) if now >= self.running_at else None,
            "completed_at": iso_time(ended),
        }

    def run_json(self, now: float, port: int | None) -> dict[str, Any] | None:
        """Its run, without logs; None while there is none in the list."""
        if now < self.run_listed_at or self.fault in (JobFault.NO_RUNS, JobFault.NEVER_ASSIGNED):
            return None
        ended = self.ended_at(now)
        has_address = port is not None and now >= self.addressed_at and self.fault != JobFault.NO_ADDRESS
        is_priced = self.fault != JobFault.NO_RATE
        urls = [
            {"description": "ssh", "hostname": "127.0.0.1", "port": 9, "protocol": "tcp"},
            {"description": str(self.server_port), "hostname": "127.0.0.1", "port": port, "protocol": "http"},
        ]
        return {
            "object": "job_run",
            "uuid": self.run_uuid,
            "job_uuid": self.uuid,
            "status": self.status(now),
            "started_at_ms": int(self.running_at * 1000),
            "ended_at_ms": None if ended is None else int(ended * 1000),
            "duration_ms": int((ended - self.running_at) * 1000) if ended is not None and is_priced else None,
            "hourly_rate_usd": float(self.usd_per_hour) if is_priced else None,
            "node_urls": urls if has_address else [],
            "container_access_tokens": [],
            "job_snapshot": self.as_json(now),
        }

    @property
    def server_port(self) -> int:
        """The port on which its server listens: the last of those that it publishes."""
        return int([0, *self.order["parameters"]["parameters"]["ports"]][-1])
