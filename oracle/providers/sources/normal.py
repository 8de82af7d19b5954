"""Data in one form: the documented fields only, in one order, as canonical JSON (RFC 8785). Pure.

A hash on chain stands for these bytes, so the same answer of a network must always become the same bytes, and nothing
that a network slips in beside what it documents may reach a model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import rfc8785

from oracle.core.compute import Dataset
from oracle.providers.sources.errors import DATA_TOO_LARGE

Fit = Callable[[Any], Any]
"""Makes a value that came from a network one that may be shown, or raises `Misfit`."""

LONGEST_TEXT: Final = 512
_SAFE_INTEGER: Final = 2**53 - 1
# Control characters, and those that make a text read otherwise than it is written (Unicode's bidirectional controls).
_UNSEEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


class Misfit(ValueError):
    """An answer is not what the network documents. Its text names the field, never the value."""


def text(longest: int = LONGEST_TEXT) -> Fit:
    """A text without control characters; a longer one is no name or key of anything, and does not fit."""

    def fit(value: Any) -> str:
        if not isinstance(value, str) or len(value) > longest:
            raise Misfit(f"is no text of at most {longest} characters")
        return _UNSEEN.sub(" ", value).strip()

    return fit


def prose(longest: int) -> Fit:
    """A text that is cut where it is too long."""

    def fit(value: Any) -> str:
        if not isinstance(value, str):
            raise Misfit("is no text")
        return _UNSEEN.sub(" ", value).strip()[:longest]

    return fit


def number(places: int) -> Fit:
    """A number with a fixed count of decimals: what a network computes in floats may differ in the last ones."""

    def fit(value: Any) -> float | int:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _SAFE_INTEGER:
            raise Misfit("is no number")
        rounded = round(value, places)
        return int(rounded) if rounded == int(rounded) else rounded

    return fit


def truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Misfit("is neither true nor false")
    return value


def address(value: Any) -> str:
    """Where something lies on the web, without the query: signatures that let anybody fetch it stand there."""
    fitted = text(2_048)(value)
    try:
        parts = urlsplit(fitted)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        raise Misfit("is no address") from None
    if parts.scheme not in ("https", "http") or not host:
        raise Misfit("is no address")
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def either(*fits: Fit) -> Fit:
    """What fits one of several."""

    def fit(value: Any) -> Any:
        for one in fits:
            try:
                return one(value)
            except Misfit:
                continue
        raise Misfit("is of another type")

    return fit


def each(one: Fit) -> Fit:
    """A list."""

    def fit(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise Misfit("is no list")
        return [one(item) for item in value]

    return fit


def record(fields: Mapping[str, Fit], required: Collection[str] = ()) -> Fit:
    """An object with these fields: others are left out, and so are those that are absent or null."""

    def fit(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Misfit("is no object")
        if missing := sorted(name for name in required if value.get(name) is None):
            raise Misfit(f"lacks {', '.join(missing)}")
        return {name: _named(name, one, value[name]) for name, one in fields.items() if value.get(name) is not None}

    return fit


def ordered(items: Iterable[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Each item once, by these fields, which every item must have; those that agree in them, by their bytes."""
    distinct = {canonical(item): item for item in items}
    return [item for _, item in sorted(distinct.items(), key=lambda pair: (*(pair[1][n] for n in names), pair[0]))]


def only(items: Iterable[dict[str, Any]], wanted: Collection[str]) -> list[dict[str, Any]]:
    """The wanted fields of every item."""
    return [{name: value for name, value in item.items() if name in wanted} for item in items]


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes. Raises Misfit for what has none."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError):
        raise Misfit("has no canonical form") from None


def dataset(value: Any, origin: str, max_bytes: int) -> Dataset:
    """The data as it is hashed and shown. Raises ORC-DATA-005 where it is larger than `max_bytes`, or Misfit."""
    content = canonical(value)
    if len(content) > max_bytes:
        raise DATA_TOO_LARGE(f"{len(content):,} bytes, at most {max_bytes:,}")
    return Dataset(content, hashlib.sha256(content).digest(), origin)


def origin_of(base_url: str, path: str = "") -> str:
    """Where data came from, fit for a public receipt: no user, no key, no query."""
    parts = urlsplit(base_url)
    whole = f"{parts.path.rstrip('/')}/{path.lstrip('/')}" if path else parts.path
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], whole, "", ""))


def _named(name: str, one: Fit, value: Any) -> Any:
    try:
        return one(value)
    except Misfit as misfit:
        raise Misfit(f"{name} {misfit}") from None
