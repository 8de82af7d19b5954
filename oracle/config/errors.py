"""Codes of the configuration."""

from __future__ import annotations

from oracle.core.errors import ErrorCode

CONFIG_MISSING = ErrorCode(
    "ORC-CONFIG-001",
    "No configuration file",
    "The file does not exist or cannot be read.",
    "Write one with `oracle config init`, or name it with --config or ORACLE_CONFIG.",
)
CONFIG_NOT_TOML = ErrorCode(
    "ORC-CONFIG-002",
    "Configuration is not TOML",
    "The file has a syntax error at the place shown.",
    "Mend the line; `oracle.example.toml` shows every option.",
)
CONFIG_INVALID = ErrorCode(
    "ORC-CONFIG-003",
    "Configuration is not valid",
    "An option is unknown, missing, of the wrong type or contradicts another.",
    "Mend the options that are listed; `oracle.example.toml` shows each with its default.",
)
