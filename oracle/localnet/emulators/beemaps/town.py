"""What stands in the town and what was filmed there. Field names from §1.2, every value synthetic."""

from __future__ import annotations

from typing import Any

CENTRE = (11.575, 48.137)
"""Longitude, latitude."""


def _feature(
    number: int, kind: str, lon: float, lat: float, azimuth: float, confidence: float, **properties: Any
) -> dict[str, Any]:
    return {
        "id": f"feature-{number:04d}",
        "class": kind,
        "status": "active",
        "position": {"lat": lat, "lon": lon, "azimuth": azimuth},
        "properties": properties,
        "confidence": confidence,
        "observed": {"firstSeen": "2026-01-12T07:30:00Z", "lastSeen": "2026-09-20T16:05:00Z"},
        "n_detections": 2 + number,
    }


FEATURES = (
    _feature(1, "speed-sign", 11.5751, 48.1371, 90.0, 0.934217, speedLimit=30, unit="kmh"),
    _feature(2, "stop-sign", 11.5752, 48.1374, 180.0, 0.88),
    _feature(3, "traffic-light", 11.5743, 48.1368, 0.0, 0.91),
    # A kilometre away from the others.
    _feature(4, "speed-sign", 11.5880, 48.1400, 270.0, 0.97, speedLimit=50, unit="kmh"),
    # Twenty kilometres away.
    _feature(5, "speed-sign", 11.8400, 48.1400, 45.0, 0.99, speedLimit=100, unit="kmh"),
)


def _frame(number: int, day: str, lon: float, lat: float) -> dict[str, Any]:
    return {
        "timestamp": f"{day}T09:00:0{number % 10}Z",
        "sequence": f"sequence-{day}",
        "idx": number,
        "device": "bee",
        "position": {"lat": lat, "lon": lon, "gdop": 1.3, "hdop": 0.8, "pdop": 1.1, "eph": 2.4},
        "width": 2028,
        "height": 1024,
    }


FRAMES = (
    _frame(1, "2026-03-02", 11.5750, 48.1370),
    _frame(2, "2026-03-02", 11.5752, 48.1371),
    _frame(3, "2026-09-16", 11.5751, 48.1372),
    _frame(4, "2026-09-16", 11.8401, 48.1401),
)
