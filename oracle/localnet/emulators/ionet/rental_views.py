"""Rentals and their containers as the API shows them (§4.2, §4.4)."""

from __future__ import annotations

from typing import Any

from oracle.localnet.emulators.ionet.rentals import LOCATIONS, Hardware, Rental, RentalFault, naive_time


def rental_json(rental: Rental, hardware: Hardware, now: float) -> dict[str, Any]:
    """The whole deployment object."""
    status = rental.status(now)
    total = max(1, round((rental.ends_at - rental.started_at) / 60))
    served = min(max(0, int((now - rental.started_at) / 60)), total)
    return {
        "id": rental.id,
        "status": status.upper() if rental.fault == RentalFault.UPPER_CASE else status,
        "name": rental.name,
        "created_at": naive_time(rental.created_at),
        "started_at": naive_time(rental.started_at) if now >= rental.started_at else None,
        "finished_at": naive_time(rental.ends_at) if status == "completed" else naive_time(rental.deleted_at),
        "amount_paid": float(rental.paid_usd),
        "completed_percent": 100 * served // total,
        "hardware_quantity": rental.gpus_per_container * rental.config["replica_count"],
        "total_gpus": rental.gpus_per_container * rental.config["replica_count"],
        "gpus_per_container": rental.gpus_per_container,
        "total_containers": rental.config["replica_count"],
        "hardware_name": hardware.name,
        "hardware_id": rental.hardware_id,
        "locations": [{name: LOCATIONS[rental.location_id][name] for name in ("id", "iso2", "name")}],
        "brand_name": "NVIDIA",
        "compute_minutes_served": served,
        "compute_minutes_remaining": total - served,
        "container_config": {
            **without_secrets(rental.config),
            "image_url": rental.image_url,
        },
    }


def without_secrets(config: dict[str, Any]) -> dict[str, Any]:
    """A container's configuration with the names of its secrets only."""
    hidden = ("secret_env_variables", "registry_username", "registry_secret")
    shown = {name: value for name, value in config.items() if name not in hidden}
    return {**shown, "secret_env_keys": list(config.get("secret_env_variables") or ())}


def row_json(rental: Rental, hardware: Hardware, now: float) -> dict[str, Any]:
    """What a list has of it."""
    whole = rental_json(rental, hardware, now)
    return {name: whole[name] for name in _ROW}


_ROW = (
    "id",
    "status",
    "name",
    "completed_percent",
    "hardware_quantity",
    "brand_name",
    "hardware_name",
    "compute_minutes_served",
    "compute_minutes_remaining",
    "created_at",
)


def worker_json(
    rental: Rental, hardware: Hardware, container: str, public_url: str | None, now: float
) -> dict[str, Any]:
    """One container; without an address it is not usable, whatever the deployment's status says."""
    return {
        "device_id": f"device-{container}",
        "container_id": container,
        "hardware": hardware.name,
        "brand_name": "NVIDIA",
        "created_at": naive_time(rental.created_at),
        "uptime_percent": 100 if public_url else 0,
        "gpus_per_container": rental.gpus_per_container,
        "status": "running" if public_url else "pending",
        "container_events": history(rental, container, now) or None,
        "public_url": public_url,
    }


def history(rental: Rental, container: str, now: float) -> list[dict[str, Any]]:
    moments = (
        (rental.started_at, f"Pulling image {rental.image_url}"),
        (rental.ready_at, f"Started container {container}"),
    )
    return [{"time": naive_time(at), "message": message} for at, message in moments if at <= now]
