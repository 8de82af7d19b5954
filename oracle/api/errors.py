"""Codes of the HTTP server."""

from __future__ import annotations

from oracle.core.errors import ErrorCode

PORT_TAKEN = ErrorCode(
    "ORC-API-001",
    "Cannot listen",
    "The address or port of the HTTP server is taken, or not this machine's.",
    "Set api.host and api.port, or stop what listens there; port 0 takes any free one.",
)
