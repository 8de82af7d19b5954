"""Where the files that belong to the oracle, and are not Python, lie: in an installed wheel, or in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from oracle.core.errors import ErrorCode

RESOURCE_MISSING: Final = ErrorCode(
    "ORC-RESOURCES-001",
    "A file of the oracle is missing",
    "The installed package, or the checkout it runs from, is incomplete.",
    "Install it again; in a checkout, restore the file with git, or build the program with `make program`.",
)

_PACKAGE: Final = Path(__file__).resolve().parent
_WHEEL: Final = _PACKAGE / "_data"
_CHECKOUT: Final = _PACKAGE.parent


def idl(program: str = "inference_oracle") -> Path:
    """The Anchor IDL (specification 0.1.0) of the built-in program, or of one that a local network emulates."""
    return _find(f"idl/{program}.json")


def bytecode(program: str = "inference_oracle") -> Path:
    """The program as an ELF, byte for byte what is deployed."""
    return _find(f"idl/{program}.so")


def migrations() -> Path:
    """The directory of the Alembic migrations."""
    return _find("migrations")


def example_config() -> Path:
    """The documented configuration with every option."""
    return _find("oracle.example.toml")


def _find(name: str) -> Path:
    # The wheel's own data first: a checkout may lie beside an installed package by chance (`site-packages/idl`).
    for root in (_WHEEL, _CHECKOUT):
        path = root / name
        if path.exists():
            return path
    raise RESOURCE_MISSING(f"{name} is neither in {_WHEEL} nor in {_CHECKOUT}")
