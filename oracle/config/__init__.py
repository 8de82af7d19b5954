"""The daemon's configuration: one TOML file, every option with its meaning and default, secrets from elsewhere."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from oracle.config.errors import CONFIG_INVALID, CONFIG_MISSING, CONFIG_NOT_TOML
from oracle.config.gateway import Gateway, GatewayKey
from oracle.config.sections import Config, InputFetch, Log, Operator, Settlement, Spending

__all__ = [
    "DEFAULT_PATH",
    "Config",
    "Gateway",
    "GatewayKey",
    "InputFetch",
    "Log",
    "Operator",
    "Settlement",
    "Spending",
    "load",
    "parse",
]

M = TypeVar("M", bound=BaseModel)
DEFAULT_PATH: Final = Path("oracle.toml")


def load(path: Path) -> Config:
    """Read and check a configuration file. Relative paths in it are relative to the file.

    Raises ORC-CONFIG-001 … 003, the last with one line per wrong option.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CONFIG_MISSING(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CONFIG_NOT_TOML(f"{path}: not UTF-8") from None
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CONFIG_NOT_TOML(f"{path}: {error}") from None
    return parse(document, base=path.parent)


def parse(document: Mapping[str, object], *, base: Path = Path()) -> Config:
    """Check a configuration that is already decoded. Values are never repeated in errors: one may be a secret."""
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        lines = (f"{_place(item['loc'])}: {_finding(item)}" for item in error.errors())
        raise CONFIG_INVALID("\n  " + "\n  ".join(lines)) from None
    return _anchored(config, base)


def _place(location: tuple[int | str, ...]) -> str:
    """Where an option stands in the file. Pydantic puts the kind of a provider between its name and its options."""
    if location[:1] in (("providers",), ("sources",)):
        location = location[:2] + location[3:]
    return ".".join(map(str, location)) or "file"


def _finding(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        meant = difflib.get_close_matches(str(item["loc"][-1]), set(_names(Config)), 1)
        return "no such option" + (f"; is {meant[0]} meant?" if meant else "")
    if item["type"] == "union_tag_invalid":
        # The message of pydantic would repeat the value.
        return f"kind is none of {item['ctx']['expected_tags']}"
    return str(item["msg"]).removeprefix("Value error, ")


def _names(annotation: Any) -> Iterable[str]:
    """Every option's name in a model, and in the models inside it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield name
            yield from _names(field.annotation)
    for inner in get_args(annotation):
        yield from _names(inner)


def _anchored(config: Config, base: Path) -> Config:
    """Relative paths are relative to the file, wherever the daemon was started."""
    url = config.database.url
    if url.startswith("sqlite:///"):
        url = f"sqlite:///{_path(url.removeprefix('sqlite:///'), base).absolute()}"
    return config.model_copy(
        update={
            "operator": _with_paths(config.operator, base),
            "providers": {name: _with_paths(provider, base) for name, provider in config.providers.items()},
            "sources": {name: _with_paths(source, base) for name, source in config.sources.items()},
            "database": config.database.model_copy(update={"url": url}),
            "gateway": _with_paths(config.gateway, base).model_copy(
                update={"keys": {name: _with_paths(key, base) for name, key in config.gateway.keys.items()}}
            ),
        }
    )


def _with_paths(section: M, base: Path) -> M:
    return section.model_copy(
        update={name: _path(str(value), base) for name, value in section if isinstance(value, Path)}
    )


def _path(text: str, base: Path) -> Path:
    return base / Path(os.path.expandvars(text)).expanduser()
