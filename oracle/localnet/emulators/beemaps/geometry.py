"""GeoJSON as the API takes it: what is a shape, how large it is, and what lies inside (§1.2, §1.3)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

METRES_PER_DEGREE = 111_320.0
# How far from a line something may stand: the spec names no width.
LINE_METRES = 25.0

Position = tuple[float, float]


class NotAShape(ValueError):
    """What was sent is no GeoJSON of the kinds that the endpoint takes."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`holds` says whether a longitude and a latitude are inside."""

    area_km2: float
    holds: Callable[[float, float], bool]


def polygon_of(value: Any) -> Shape:
    """A Polygon or a MultiPolygon, the only shapes of the `…/poly` endpoints."""
    match value:
        case {"type": "Polygon", "coordinates": [*rings]}:
            return _polygons([rings])
        case {"type": "MultiPolygon", "coordinates": [*polygons]} if polygons:
            return _polygons(polygons)
    raise NotAShape


def geometry_of(value: Any) -> Shape:
    """A geometry of `/map-data`: a Point with a `radius` in metres, a LineString, or a Polygon."""
    match value:
        case {"type": "Point", "coordinates": point, "radius": radius}:
            return _circle(_position(point), _number(radius))
        case {"type": "LineString", "coordinates": [_, _, *_] as points}:
            return _line([_position(point) for point in points])
        case {"type": "Polygon", "coordinates": [*rings]}:
            return _polygons([rings])
    raise NotAShape


def _polygons(polygons: Sequence[Any]) -> Shape:
    outlines: list[list[list[Position]]] = []
    for rings in polygons:
        if not isinstance(rings, list) or not rings:
            raise NotAShape
        outlines.append([_ring(ring) for ring in rings])

    def holds(lon: float, lat: float) -> bool:
        # The first ring is the outline, the others are holes in it (RFC 7946).
        return any(
            _inside(outline, lon, lat) and not any(_inside(hole, lon, lat) for hole in holes)
            for outline, *holes in outlines
        )

    area = sum(_ring_km2(outline) - sum(map(_ring_km2, holes)) for outline, *holes in outlines)
    return Shape(area, holds)


def _circle(centre: Position, radius: float) -> Shape:
    if radius <= 0:
        raise NotAShape
    return Shape(math.pi * (radius / 1000) ** 2, lambda lon, lat: _metres(centre, (lon, lat)) <= radius)


def _line(points: Sequence[Position]) -> Shape:
    pairs = list(itertools.pairwise(points))
    length = sum(_metres(a, b) for a, b in pairs)

    def holds(lon: float, lat: float) -> bool:
        return any(_metres_to_line(a, b, (lon, lat)) <= LINE_METRES for a, b in pairs)

    return Shape(length * 2 * LINE_METRES / 1e6, holds)


def _ring(value: Any) -> list[Position]:
    if not isinstance(value, list) or len(value) < 4 or value[0] != value[-1]:
        raise NotAShape
    return [_position(point) for point in value]


def _position(value: Any) -> Position:
    if not isinstance(value, list) or len(value) < 2:
        raise NotAShape
    lon, lat = _number(value[0]), _number(value[1])
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise NotAShape
    return lon, lat


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise NotAShape
    return float(value)


def _inside(ring: Sequence[Position], lon: float, lat: float) -> bool:
    """By the number of edges that a ray to the east crosses."""
    crossings = 0
    for (lon1, lat1), (lon2, lat2) in itertools.pairwise(ring):
        if (lat1 > lat) != (lat2 > lat) and lon < (lon2 - lon1) * (lat - lat1) / (lat2 - lat1) + lon1:
            crossings += 1
    return crossings % 2 == 1


def _ring_km2(ring: Sequence[Position]) -> float:
    flat = [_flat(ring[0], point) for point in ring]
    twice = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in itertools.pairwise(flat))
    return abs(twice) / 2 / 1e6


def _metres(a: Position, b: Position) -> float:
    return math.hypot(*_flat(a, b))


def _metres_to_line(a: Position, b: Position, point: Position) -> float:
    (bx, by), (px, py) = _flat(a, b), _flat(a, point)
    squared = bx * bx + by * by
    along = 0.0 if squared == 0 else min(1.0, max(0.0, (px * bx + py * by) / squared))
    return math.hypot(px - along * bx, py - along * by)


def _flat(origin: Position, point: Position) -> Position:
    """Metres east and north of the origin, on a plane: the areas here are a few kilometres wide."""
    shrink = math.cos(math.radians(origin[1]))
    return ((point[0] - origin[0]) * METRES_PER_DEGREE * shrink, (point[1] - origin[1]) * METRES_PER_DEGREE)
