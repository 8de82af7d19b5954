"""`data://` queries: which data of which network a request asks about, and what it asks of it. No I/O.

    data://NETWORK/SEGMENT/…?NAME=VALUE&NAME=VALUE&ask=QUESTION

The model is shown the data, an empty line, and the question. `ask` is the only parameter that every network has; what
else may stand there is each network's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from oracle.core.errors import ErrorCode

SCHEME: Final = "data://"
MAX_QUERY_CHARACTERS: Final = 1_024
MAX_SEGMENTS: Final = 8
ASK: Final = "ask"
FIELDS: Final = "fields"

QUERY_INVALID = ErrorCode(
    "ORC-DATA-001",
    "Data query is not valid",
    "The text is not `data://NETWORK/PATH?NAME=VALUE&…` in visible ASCII, or not one way to read it is beyond doubt.",
    "Write it as docs/how-to/use-network-data.md shows: each name once, and everything unusual percent-encoded.",
)
RESOURCE_UNKNOWN = ErrorCode(
    "ORC-DATA-002",
    "Network has no such data",
    "The path of the query names nothing that the oracle knows how to ask this network for.",
    "See docs/how-to/use-network-data.md for what each network can be asked.",
)
PARAMETER_INVALID = ErrorCode(
    "ORC-DATA-003",
    "Parameter of a data query is wrong",
    "A parameter is missing, unknown to this path, out of range, or in another form than it must have.",
    "Correct the parameter that the detail names; docs/how-to/use-network-data.md lists them.",
)

_NETWORK: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
# No percent sign and nothing that an address gives a meaning: a segment goes into the path of a call as it is.
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,127}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PLAIN: Final = "-._~,:/@!$'()*;?"
_VALUE: Final = re.compile(rf"(?:[A-Za-z0-9{re.escape(_PLAIN)}]|%[0-9A-Fa-f]{{2}})+")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,7})?")
_WHOLE: Final = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class DataQuery:
    """A query that was read. `params` are decoded, in the order of their names, without the question `ask`.

    Its text, `str(query)`, is the canonical one: of all texts that mean the same there is one such.
    """

    network: str
    path: tuple[str, ...]
    params: tuple[tuple[str, str], ...] = ()
    ask: str = ""

    def __str__(self) -> str:
        pairs = sorted([*self.params, *([(ASK, self.ask)] if self.ask else [])])
        shown = "&".join(f"{name}={quote(value, safe=_PLAIN)}" for name, value in pairs)
        return f"{SCHEME}{self.network}/{'/'.join(self.path)}{'?' if shown else ''}{shown}"

    def get(self, name: str) -> str | None:
        return dict(self.params).get(name)


def parse(text: str) -> DataQuery:
    """What a query asks. Raises ORC-DATA-001; details never repeat a value, which may be a prompt."""
    if len(text) > MAX_QUERY_CHARACTERS:
        raise QUERY_INVALID(f"{len(text)} characters, at most {MAX_QUERY_CHARACTERS:,}")
    if not text.startswith(SCHEME):
        raise QUERY_INVALID(f"it does not begin with {SCHEME}")
    address, has_params, pairs = text.removeprefix(SCHEME).partition("?")
    network, *path = address.split("/")
    if not _NETWORK.fullmatch(network):
        raise QUERY_INVALID("the network is 1 to 32 of a-z, 0-9 and -, and begins with a letter")
    if not 1 <= len(path) <= MAX_SEGMENTS or not all(map(_SEGMENT.fullmatch, path)):
        raise QUERY_INVALID(f"the path is 1 to {MAX_SEGMENTS} segments of A-Z, a-z, 0-9, -, _, ~ and inner dots")
    params = dict(map(_pair, pairs.split("&"))) if has_params else {}
    if has_params and len(params) <= pairs.count("&"):
        # Of a name that stands twice, one reader takes the first and another the last.
        raise QUERY_INVALID("a parameter stands there twice")
    ask = params.pop(ASK, "")
    return DataQuery(network, tuple(path), tuple(sorted(params.items())), ask)


def compose(network: str, *path: str, ask: str = "", params: Mapping[str, str] | None = None) -> str:
    """The canonical text of a query. Raises ORC-DATA-001 for what cannot be said in one."""
    text = str(DataQuery(network, path, tuple(sorted((params or {}).items())), ask))
    parse(text)
    return text


def with_question(text: str, ask: str) -> str:
    """The query with a question added. Raises ORC-DATA-001, also where it has one."""
    query = parse(text)
    if query.ask:
        raise QUERY_INVALID("it asks something already")
    return compose(query.network, *query.path, ask=ask, params=dict(query.params))


def prompt(query: DataQuery, content: bytes) -> bytes:
    """What the model is asked: the data, an empty line, and the question; the data alone where nothing is asked."""
    return content + b"\n\n" + query.ask.encode() if query.ask else content


def check_params(query: DataQuery, *, required: Collection[str] = (), optional: Collection[str] = ()) -> None:
    """Raise ORC-DATA-003 unless the required parameters are there, and none that is neither."""
    given = {name for name, _ in query.params}
    if missing := sorted(set(required) - given):
        raise PARAMETER_INVALID(f"{', '.join(missing)} is missing")
    if unknown := sorted(given - set(required) - set(optional)):
        raise PARAMETER_INVALID(f"{', '.join(unknown)} is not a parameter of {'/'.join(query.path)}")


def decimals(query: DataQuery, name: str, count: int) -> tuple[float, ...] | None:
    """`count` numbers with commas between them, each with at most seven decimals; None where the name is absent."""
    value = query.get(name)
    if value is None:
        return None
    parts = value.split(",")
    if len(parts) != count or not all(map(_DECIMAL.fullmatch, parts)):
        raise PARAMETER_INVALID(f"{name} is {count} plain decimal number{'s' if count > 1 else ''}")
    return tuple(map(float, parts))


def whole(query: DataQuery, name: str, *, least: int, most: int, default: int) -> int:
    """A whole number within bounds."""
    value = query.get(name)
    if value is None:
        return default
    if not _WHOLE.fullmatch(value) or not least <= int(value) <= most:
        raise PARAMETER_INVALID(f"{name} is a whole number from {least} to {most}")
    return int(value)


def one_of(query: DataQuery, name: str, choices: Sequence[str]) -> str:
    """One of the choices. Raises ORC-DATA-003 where it is absent, too."""
    value = query.get(name)
    if value is None or value not in choices:
        raise PARAMETER_INVALID(f"{name} is one of {', '.join(choices)}")
    return value


def fields(query: DataQuery, known: Collection[str]) -> frozenset[str]:
    """Which fields of each record are wanted: all that are known, where `fields` does not name some of them."""
    value = query.get(FIELDS)
    if value is None:
        return frozenset(known)
    wanted = value.split(",")
    if len(set(wanted)) < len(wanted) or not set(wanted) <= set(known):
        raise PARAMETER_INVALID(f"{FIELDS} is some of {', '.join(sorted(known))}, each once")
    return frozenset(wanted)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not _NAME.fullmatch(name):
        raise QUERY_INVALID("a parameter's name is 1 to 32 of a-z, 0-9 and _, and begins with a letter")
    if not _VALUE.fullmatch(value):
        raise QUERY_INVALID(f"the value of {name} is empty, or has a character that must be percent-encoded")
    try:
        decoded = unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise QUERY_INVALID(f"the value of {name} is not UTF-8") from None
    if _CONTROLS.search(decoded):
        raise QUERY_INVALID(f"the value of {name} holds a control character")
    return name, decoded
