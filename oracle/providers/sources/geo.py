"""Places in a query: a circle or a box, as GeoJSON, with its area. Pure. Longitude comes first, as in GeoJSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from oracle.core.dataquery import PARAMETER_INVALID, DataQuery, decimals, whole

EARTH_KM: Final = 6_371.0088
MAX_RADIUS_METRES: Final = 10_000

AT: Final = "at"
RADIUS: Final = "radius"
BOX: Final = "box"


@dataclass(frozen=True, slots=True)
class Circle:
    """`radius_metres` around a point."""

    lon: float
    lat: float
    radius_metres: int

    @property
    def area_km2(self) -> float:
        return math.pi * (self.radius_metres / 1000) ** 2

    def geojson(self) -> dict[str, Any]:
        """A Point with a radius, which is no GeoJSON proper, but what Bee Maps takes (depin_data.md §1.2)."""
        return {"type": "Point", "coordinates": [self.lon, self.lat], "radius": self.radius_metres}


@dataclass(frozen=True, slots=True)
class Box:
    """From west to east and from south to north; none crosses the date line."""

    west: float
    south: float
    east: float
    north: float

    @property
    def area_km2(self) -> float:
        band = math.sin(math.radians(self.north)) - math.sin(math.radians(self.south))
        return EARTH_KM**2 * math.radians(self.east - self.west) * band

    def geojson(self) -> dict[str, Any]:
        west, south, east, north = self.west, self.south, self.east, self.north
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        return {"type": "Polygon", "coordinates": [ring]}

    def holds(self, lon: float, lat: float) -> bool:
        return self.west <= lon <= self.east and self.south <= lat <= self.north


def area_of(query: DataQuery, max_area_km2: float) -> Circle | Box:
    """`at` with `radius`, or `box`. Raises ORC-DATA-003, also where the area is too large."""
    circle, box = circle_of(query), box_of(query)
    if (circle is None) == (box is None):
        raise PARAMETER_INVALID(f"give {AT} with {RADIUS}, or {BOX}")
    area = circle or box
    assert area is not None
    check_area(area, max_area_km2)
    return area


def check_area(area: Circle | Box, max_area_km2: float) -> None:
    if area.area_km2 > max_area_km2:
        raise PARAMETER_INVALID(f"{area.area_km2:.3f} km², at most {max_area_km2:g}")


def circle_of(query: DataQuery) -> Circle | None:
    point = decimals(query, AT, 2)
    if (point is None) != (query.get(RADIUS) is None):
        raise PARAMETER_INVALID(f"{AT} and {RADIUS} belong together")
    if point is None:
        return None
    lon, lat = point
    _check(AT, lon, lat)
    return Circle(lon, lat, whole(query, RADIUS, least=1, most=MAX_RADIUS_METRES, default=1))


def box_of(query: DataQuery) -> Box | None:
    corners = decimals(query, BOX, 4)
    if corners is None:
        return None
    west, south, east, north = corners
    _check(BOX, west, south)
    _check(BOX, east, north)
    if west >= east or south >= north:
        raise PARAMETER_INVALID(f"{BOX} is west,south,east,north, and holds something")
    return Box(west, south, east, north)


def _check(name: str, lon: float, lat: float) -> None:
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise PARAMETER_INVALID(f"{name} is a longitude and a latitude, in this order")
