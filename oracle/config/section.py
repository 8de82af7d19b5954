"""What every section of the configuration has in common."""

from __future__ import annotations

from typing import Final

from pydantic import ConfigDict

# An unknown option is an error: a misspelt spending cap would otherwise be no cap at all. And TOML has types:
# `daily_budget_lamports = false` must not become a budget of nothing.
STRICT: Final = ConfigDict(
    extra="forbid",
    frozen=True,
    strict=True,
    allow_inf_nan=False,
    hide_input_in_errors=True,
    use_attribute_docstrings=True,
)
