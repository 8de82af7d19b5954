"""Codes of data networks: what a network may answer, besides what any provider may (`providers.errors`)."""

from __future__ import annotations

from oracle.core.errors import ErrorCode, Verdict

DATA_NOT_FOUND = ErrorCode(
    "ORC-DATA-004",
    "Network knows no such thing",
    "The network answered that it has nothing under this key, number or address.",
    "Check the key in the query, and submit again.",
)
DATA_TOO_LARGE = ErrorCode(
    "ORC-DATA-005",
    "Data is too large",
    "What the network has to say fills more than the operator lets a model be shown, or more pages than are read.",
    "Ask for less: a smaller area, fewer `fields`, a filter; as operator, see `max_bytes` and `max_pages`.",
)
DATA_BUSY = ErrorCode(
    "ORC-DATA-006",
    "Too many fetches at once",
    "As many fetches from this network are under way as may be: more would keep requests of other kinds waiting.",
    "It is tried again. If it lasts, raise `requests_per_second` of the network, or `daemon.concurrency`.",
    Verdict.RETRY,
)
