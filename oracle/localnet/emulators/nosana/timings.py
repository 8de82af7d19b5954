"""How long things take at the emulated network, in seconds. All zero by default: as fast as the model answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    create_seconds: float = 0.0
    """`POST /jobs/list` takes this long; the same idempotency key is answered IN_PROGRESS meanwhile."""
    queue_seconds: float = 0.0
    """From listed to taken by a host."""
    start_seconds: float = 0.0
    """From taken by a host to the container's start: pulling the image."""
    read_lag_seconds: float = 0.0
    """A new job reads as 404 for this long (§4.4)."""
    result_lag_seconds: float = 0.0
    """`jobResult` and `jobStatus` stay null for this long after `ipfsResult` is there (§4.4)."""
    stop_lag_seconds: float = 0.05
    """A job stopped by its owner has no `ipfsResult` for this long (§2.5, point 5)."""
    pace: float = 0.0
    """Factor on every pause inside a container's script; 1.0 takes as long as a real container."""
