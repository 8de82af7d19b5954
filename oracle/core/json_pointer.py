"""JSON pointers (RFC 6901): `/solana/usd` names a value inside a document."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_POINTER: Final = re.compile(r"(/([^~/]|~[01])*)*", re.DOTALL)
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


def is_pointer(text: str) -> bool:
    return _POINTER.fullmatch(text) is not None


def resolve(document: Any, pointer: str) -> Any:
    """The value that is named. Raises `LookupError` where there is none."""
    value = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value[key]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and _INDEX.fullmatch(key):
            value = value[int(key)]
        else:
            raise LookupError(part)
    return value
