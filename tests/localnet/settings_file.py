"""Writes settings as the TOML file that a process of its own reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(path: Path, settings: Mapping[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(name)} = {_toml(value)}\n" for name, value in settings.items()))
    return path


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(name)} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
