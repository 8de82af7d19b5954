"""Misbehaviour on demand: which call is hit, how often, and by what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any


class Wire(StrEnum):
    """What can go wrong with any HTTP call. Emulators add kinds of their own for what goes wrong behind it."""

    SLOW = "slow"
    """Wait `seconds`, then behave. Every other kind waits `seconds` first, too."""
    HANG = "hang"
    """Never answer; the call does no work."""
    DROP = "drop"
    """Close the connection without an answer; the call does no work."""
    LOSE_ANSWER = "lose_answer"
    """Do the work, then close the connection without an answer."""
    TRUNCATE = "truncate"
    """Do the work, answer half of the body under the full Content-Length, close the connection."""
    MALFORMED = "malformed"
    """Do the work, answer the first half of the body as if it were all: JSON that does not parse."""
    TWICE = "twice"
    """Do the work twice, as a proxy that repeats a request would; answer what came second."""
    HTML = "html"
    """Answer `status` (502 unless told) with a proxy's HTML page; no work."""
    ERROR = "error"
    """Answer `status` (500 unless told) in the provider's own envelope, with `text` as the message; no work."""
    RATE_LIMIT = "rate_limit"
    """Answer 429 in the provider's own words, with `retry_after` as header where given; no work."""
    UNAUTHORIZED = "unauthorized"
    """Refuse the credentials, whatever they are; no work."""
    OUT_OF_CREDITS = "out_of_credits"
    """Refuse for want of credits; no work."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour. The first `skip` matching calls pass, the next `count` are hit (None: all of them).

    `on` is a glob over the subject: `POST /jobs/list` for a call (the path without prefix or trailing slash), what the
    emulator says for its own kinds. The rest are parameters that some kinds read.
    """

    kind: str
    on: str = "*"
    skip: int = 0
    count: int | None = 1
    seconds: float = 0.0
    status: int | None = None
    retry_after: str | None = None
    text: str = ""
    exit_code: int = 1


class Faults:
    """The faults that are set, in the order in which they were added; the first that applies to a call hits it.

    `kinds` maps every kind the emulator knows to the place where it acts, such as `http` or `job`.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = dict(kinds)
        self._armed: list[_Armed] = []

    def add(self, kind: str | Fault, **parameters: Any) -> Fault:
        """Sets one fault, given whole or as its fields. Raises ValueError for a kind this emulator does not know."""
        fault = kind if isinstance(kind, Fault) else Fault(str(kind), **parameters)
        if fault.kind not in self._kinds:
            raise ValueError(f"unknown kind {fault.kind!r}; this emulator knows {', '.join(sorted(self._kinds))}")
        if fault.skip < 0 or fault.seconds < 0 or (fault.count is not None and fault.count < 1):
            raise ValueError("skip and seconds are not negative, count is at least 1")
        self._armed.append(_Armed(fault, fault.skip, fault.count))
        return fault

    def clear(self) -> None:
        self._armed.clear()

    def take(self, place: str, subject: str) -> Fault | None:
        """The fault that hits this call, if any. Looking is counting: call it once for each call."""
        for armed in self._armed:
            if self._kinds[armed.fault.kind] != place or not fnmatchcase(subject, armed.fault.on):
                continue
            if armed.skip_left > 0:
                armed.skip_left -= 1
            elif armed.count_left is None or armed.count_left > 0:
                if armed.count_left is not None:
                    armed.count_left -= 1
                armed.hits += 1
                return armed.fault
        return None

    def report(self) -> list[dict[str, Any]]:
        """Every fault that was set since the last `clear`, with how often it hit."""
        return [{**asdict(armed.fault), "hits": armed.hits} for armed in self._armed]


def parse_faults(body: Any) -> list[Fault]:
    """Faults from JSON: one object or an array of them. Raises ValueError with what is wrong."""
    known = {field.name for field in fields(Fault)}
    items = body if isinstance(body, list) else [body]
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("kind"), str):
            raise ValueError("a fault is an object with a kind")
        if unknown := set(item) - known:
            raise ValueError(f"unknown field {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
        _check_types(item)
    return [Fault(**item) for item in items]


def wire_kinds(*more: tuple[str, Iterable[str]]) -> dict[str, str]:
    """The kinds of `Wire`, acting on `http`, and an emulator's own as `(place, kinds)`."""
    return {str(kind): "http" for kind in Wire} | {str(kind): place for place, kinds in more for kind in kinds}


def _check_types(item: Mapping[str, Any]) -> None:
    for name, types in _TYPES.items():
        if name in item and (not isinstance(item[name], types) or isinstance(item[name], bool)):
            raise ValueError(f"{name} has the wrong type")


_TYPES: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "on": (str,),
    "skip": (int,),
    "count": (int, type(None)),
    "seconds": (int, float),
    "status": (int, type(None)),
    "retry_after": (str, type(None)),
    "text": (str,),
    "exit_code": (int,),
}


@dataclass(slots=True)
class _Armed:
    fault: Fault
    skip_left: int
    count_left: int | None
    hits: int = 0
