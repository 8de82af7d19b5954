"""Values taken out of a container's log by regular expressions, as hosts do it with JavaScript (§3.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LogLine:
    """One log entry; `log` ends in a newline. `type` is stdin, stdout, stderr or nodeerr."""

    type: str
    log: str
    timestamp: str


def extract(filters: Mapping[str, Any], lines: Iterable[LogLine]) -> dict[str, Any]:
    """Every match of every filter, flat: the whole match, then its groups. An invalid expression gives its error."""
    lines = list(lines)
    return {name: _matches(one, lines) for name, one in filters.items()}


def _matches(one: Any, lines: list[LogLine]) -> Any:
    source = one if isinstance(one, str) else one["regex"]
    log_types = None if isinstance(one, str) else one.get("logType")
    try:
        expression = re.compile(_from_javascript("/*" if source == "*" else source), re.ASCII)
    except re.error as error:
        return f"SyntaxError: Invalid regular expression: /{source}/: {error.msg}"
    found: list[str | None] = []
    for line in lines:
        match = expression.search(line.log) if log_types is None or line.type in log_types else None
        if match is not None:
            found += [match[0], *match.groups()]
    return found


def _from_javascript(source: str) -> str:
    """Named groups, and `$`, which in JavaScript without flags is the very end, not before a final newline."""
    pieces = re.findall(r"\\.|\[(?:\\.|[^\]\\])*\]|\(\?<(?![=!])|.", source, re.DOTALL)
    return "".join({"$": r"\Z", "(?<": "(?P<"}.get(piece, piece) for piece in pieces)
