"""The bodies of IO Cloud's container API: what is sent, and what is read of its answers. No I/O.

Source: specs/ionet.md §4. Types and cases vary (ids are numbers or texts, statuses upper or lower case), so they are
read leniently; but what must be known to spend or save money is either understood or None, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from oracle.providers.rented.landlord import Rental, RentalPrice, RentalState

Id = int | str

_MINUTE_SECONDS: Final = 60.0
_STATES: Final[Mapping[str, RentalState]] = {
    "deployment requested": RentalState.STARTING,
    "running": RentalState.RUNNING,
    "completed": RentalState.ENDED,
    "failed": RentalState.ENDED,
    "termination requested": RentalState.ENDED,
    "destroyed": RentalState.ENDED,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What may be rented: any of `hardware`, anywhere in `locations` (empty: anywhere), for `hours`, paid ahead."""

    hardware: tuple[Id, ...]
    locations: tuple[Id, ...]
    gpus: int
    hours: int
    max_usd_per_hour: Decimal


@dataclass(frozen=True, slots=True)
class Container:
    """What runs in it. The whole command is the `entrypoint`: `args` may be dropped silently (§4.3)."""

    image: str
    entrypoint: tuple[str, ...]
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    registry_username: str = ""
    registry_secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """Hardware that is free now, and what all of its time costs, fees included."""

    hardware: Id
    locations: tuple[Id, ...]
    total_usd: Decimal


def price_query(wanted: Wanted, hardware: Id, locations: Sequence[Id]) -> dict[str, str | int]:
    return {
        "location_ids": json.dumps(list(locations), separators=(",", ":")),
        "hardware_id": hardware,
        "duration_hours": wanted.hours,
        "gpus_per_container": wanted.gpus,
        "replica_count": 1,
    }


def deploy_body(name: str, wanted: Wanted, choice: Choice, container: Container) -> dict[str, Any]:
    return {
        "resource_private_name": name,
        "duration_hours": wanted.hours,
        "gpus_per_container": wanted.gpus,
        "hardware_id": choice.hardware,
        "location_ids": list(choice.locations),
        "container_config": {
            "replica_count": 1,
            "env_variables": dict(container.environment),
            "secret_env_variables": dict(container.secrets),
            "entrypoint": list(container.entrypoint),
            "args": [],
            "traffic_port": container.port,
        },
        "registry_config": {
            "image_url": container.image,
            "registry_username": container.registry_username,
            "registry_secret": container.registry_secret,
        },
    }


def read_exact(content: bytes) -> Any:
    """JSON with its numbers as decimals, for prices carry binary noise; None where it is none."""
    try:
        return json.loads(content, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def read_places(body: Any) -> tuple[Id, ...] | None:
    """Where at least one more container finds room."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        return None
    rows = [row for row in data if isinstance(row, dict) and _is_id(row.get("id"))]
    return tuple(row["id"] for row in rows if (_number(row.get("available_replicas")) or 0) >= 1)


def read_total_usd(body: Any) -> Decimal | None:
    """What everything costs. A price of nothing is none: nobody gives GPUs away."""
    data = body.get("data") if isinstance(body, dict) else None
    total = _number(data.get("total_cost_usdc")) if isinstance(data, dict) else None
    return total if total is not None and total > 0 else None


def read_deployment_id(body: Any) -> str | None:
    """Of the answer to a deployment: under which key is not guaranteed."""
    if not isinstance(body, dict):
        return None
    inner = body.get("data")
    held = inner if isinstance(inner, dict) else body
    return next((str(held[key]) for key in ("deployment_id", "cluster_id", "id") if _is_id(held.get(key))), None)


def read_rentals(body: Any, now: float) -> tuple[list[Rental], int] | None:
    """A page of the list, and how many there are on all pages. None where a row does not say what it is."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("deployments"), list):
        return None
    total = _number(data.get("total"))
    rentals = [rental for row in data["deployments"] if (rental := _rental(row, now)) is not None]
    if total is None or len(rentals) < len(data["deployments"]):
        return None
    return rentals, int(total)


def read_rental(body: Any, rental: Rental, now: float) -> Rental | None:
    """The deployment by itself. It knows what was paid, and not always its name."""
    data = body.get("data") if isinstance(body, dict) else None
    return _rental({"name": rental.name, "id": rental.id, **data}, now) if isinstance(data, dict) else None


def read_workers(body: Any) -> tuple[str | None, str] | None:
    """The address of the container once it runs, and what was last said of it."""
    data = body.get("data") if isinstance(body, dict) else None
    workers = data.get("workers") if isinstance(data, dict) else None
    if not isinstance(workers, list):
        return None
    address, said = None, ""
    for worker in workers:
        if not isinstance(worker, dict):
            continue
        status = str(worker.get("status") or "").lower()
        url = worker.get("public_url")
        if isinstance(url, str) and url and ("running" in status or "ready" in status):
            address = address or f"{_address(url)}/v1"
        events = worker.get("container_events")
        last = events[-1] if isinstance(events, list) and events else None
        message = last.get("message") if isinstance(last, dict) else None
        said = f"{status}: {message}" if isinstance(message, str) else status
    return address, said[:200]


def paid_ahead(total_usd: Decimal, seconds: float) -> RentalPrice:
    """Whether anything is given back for an early end is not known (§4.5): nothing is counted on."""
    hours = Decimal(str(seconds)) / 3600
    return RentalPrice(total_usd / hours, least_seconds=seconds, most_seconds=seconds)


def state_of(status: Any) -> RentalState:
    """A status that nobody has heard of is not the end of anything (§4.4)."""
    words = " ".join(str(status).replace("_", " ").lower().split())
    return _STATES.get(words, RentalState.RUNNING)


def _rental(row: Any, now: float) -> Rental | None:
    if not isinstance(row, dict) or not _is_id(row.get("id")) or "name" not in row:
        return None
    state = state_of(row.get("status"))
    served, remaining = (_number(row.get(f"compute_minutes_{part}")) for part in ("served", "remaining"))
    paid = _number(row.get("amount_paid"))
    price = None
    if paid is not None and served is not None and remaining is not None and (minutes := served + remaining) > 0:
        price = paid_ahead(paid, float(minutes) * _MINUTE_SECONDS)
    return Rental(
        id=str(row["id"]),
        name=row["name"] if isinstance(row["name"], str) else "",
        state=state,
        created_at=_seconds(row.get("created_at"), now),
        ends_at=now + float(remaining) * _MINUTE_SECONDS
        if state is RentalState.RUNNING and remaining is not None
        else None,
        price=price,
        why=str(row.get("status"))[:64],
    )


def _seconds(text: Any, otherwise: float) -> float:
    """Unix seconds; a time without a zone is UTC (§4.4)."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return otherwise
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _address(url: str) -> str:
    """It may lack a scheme (§4.4). Whatever it says, no prompt leaves this machine in the clear."""
    host = url.split("://", 1)[-1].rstrip("/")
    is_here = url.startswith("http://") and host.split(":")[0].split("/")[0] in ("127.0.0.1", "localhost")
    return f"{'http' if is_here else 'https'}://{host}"


def _is_id(value: Any) -> bool:
    return (isinstance(value, str) and bool(value)) or (isinstance(value, int) and not isinstance(value, bool))


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number = Decimal(value)
    return number if number.is_finite() and number >= 0 else None
