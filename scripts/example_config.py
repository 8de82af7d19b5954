"""Writes oracle.example.toml from the models in the source: `python scripts/example_config.py`. A test compares."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Ge, Gt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from oracle.config.sections import Config, ModelSettings, RouteSettings
from oracle.providers.registry import ProviderSettings
from oracle.providers.sources.settings import SourceSettings

FILE = Path(__file__).resolve().parents[1] / "oracle.example.toml"

HEAD = """\
# Every option of the oracle with its default. Copy what you change into oracle.toml; `oracle config init` writes a
# minimal one, `oracle config check` checks it. A line that is commented out shows how an option is set that is not set
# by default. Relative paths are relative to the file. An unknown option is an error.
"""

# What options that are unset by default may look like.
SAMPLES: Mapping[str, Any] = {
    "websocket": "wss://rpc.example/${RPC_KEY}",
    "program_id": "11111111111111111111111111111111",
    "genesis_hash": "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG",
    "keypair": "operator-keypair.json",
    "keypair_env": "ORACLE_OPERATOR_KEY",
    "keypair_credential": "operator-key",
    "sol_usd": 150.0,
    "nos_usd": 0.5,
    "sol_usd_url": "https://prices.example/v1/simple?ids=solana,nosana&key=${RPC_KEY}",
    "nos_usd_url": "https://prices.example/v1/simple?ids=solana,nosana&key=${RPC_KEY}",
    "max_cost_lamports": 50_000,
    "allow_requesters": ["11111111111111111111111111111111"],
    "daily_budget_lamports": 1_000_000_000,
    "requester_daily_budget_lamports": 100_000_000,
    "request_budget_lamports": 10_000_000,
    "min_balance": 5.0,
    "hedge_after_seconds": 30.0,
    "api_key": "sk-…",
    "api_key_file": "api-key",
    "api_key_env": "PROVIDER_API_KEY",
    "public_key": "pk_0001",
    "secret_key": "sk_…",
    "secret_key_file": "render-secret-key",
    "secret_key_env": "RENDER_SECRET_KEY",
    "usage_url": "https://api.intelligence.io.solutions/v1/api-keys/sub-keys/me/usage",
    "requests_per_second": 5.0,
    "token_limit_field": "max_tokens",
    "reasoning_tag": "think",
    "directory": "models",
    "organization": "org-…",
    "pinata_jwt": "eyJ…",
    "pinata_jwt_file": "pinata-jwt",
    "pinata_jwt_env": "PINATA_JWT",
    "repository": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "hardware": [12, "gpu_1x_l40"],
    "huggingface_token_file": "huggingface-token",
    "huggingface_token_env": "HF_TOKEN",
    "image": "docker.io/vllm/vllm-openai:latest",
    "input_usd_per_million_tokens": 0.15,
    "output_usd_per_million_tokens": 0.6,
    "rpc_url": "https://api.mainnet-beta.solana.com",
    "files": "collected",
    "endpoint": "https://web-context.example",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "gateway.queue": "11111111111111111111111111111111",
    "gateway.keypair": "gateway-keypair.json",
    "gateway.keypair_env": "ORACLE_GATEWAY_KEYPAIR",
    "gateway.keypair_credential": "gateway-keypair",
    "sha256": "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90",
    "key_file": "alice-key",
    "key_env": "ORACLE_ALICE_KEY",
    "tokens_per_day": 1_000_000,
    "lamports_per_day": 10_000_000,
    "models": ["gpt-4o-mini"],
}
MODEL = "gpt-4o-mini"
CLIENT = "alice"


def page() -> str:
    blocks = [HEAD]
    for name, field in Config.model_fields.items():
        match name:
            case "providers":
                blocks += [_remark(field.description), *_providers()]
            case "sources":
                blocks += [_remark(field.description), *_sources()]
            case "models":
                blocks += [_remark(field.description), *_models()]
            case _:
                blocks.append(_section(name, field.annotation))
    return "\n".join(blocks)


def kinds() -> dict[str, type[BaseModel]]:
    """Each kind of provider, and its options."""
    union, *_ = get_args(ProviderSettings)
    return {get_args(model.model_fields["kind"].annotation)[0]: model for model in get_args(union)}


def _providers() -> Iterator[str]:
    for kind, model in kinds().items():
        yield _section(f"providers.{kind}", model)


def _sources() -> Iterator[str]:
    union, *_ = get_args(SourceSettings)
    for model in get_args(union):
        yield _section(f"sources.{get_args(model.model_fields['kind'].annotation)[0]}", model)


def _models() -> Iterator[str]:
    yield _section(f'models."{MODEL}"', ModelSettings)
    yield _section(f'models."{MODEL}".routes', RouteSettings, brackets="[[{}]]")


def _section(name: str, model: Any, *, about: str | None = None, brackets: str = "[{}]") -> str:
    lines = [_remark(about or model.__doc__), brackets.format(name) + "\n"]
    tables = []
    for option, field in sorted(model.model_fields.items(), key=lambda item: item[0] != "kind"):
        inner = _table_of(field.annotation)
        if inner is None:
            lines.append(_option(name, option, field))
        elif inner is not RouteSettings:
            table = CLIENT if option == "keys" else MODEL
            tables.append(_commented(_section(f'{name}.{option}."{table}"', inner, about=field.description)))
    return "".join(lines) + "".join(f"\n{table}" for table in tables)


def _option(section: str, name: str, field: FieldInfo) -> str:
    description = "Which network this is." if name == "kind" else field.description
    line = f"{name} = {_toml(_shown(section, name, field))}\n"
    if not field.is_required() and field.get_default(call_default_factory=True) is None:
        line = f"# {line}"
    return f"{_remark(description)}{line}"


def _shown(section: str, name: str, field: FieldInfo) -> Any:
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return _sample(section, name, field) if default is None else default


def _sample(section: str, name: str, field: FieldInfo) -> Any:
    if (sample := SAMPLES.get(f"{section}.{name}", SAMPLES.get(name))) is not None:
        return sample
    annotation = next((a for a in get_args(field.annotation) if a is not type(None)), field.annotation)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if annotation in (int, float, Decimal):
        bounds = [rule.ge if isinstance(rule, Ge) else rule.gt for rule in field.metadata if isinstance(rule, Ge | Gt)]
        return annotation(str(max([1, *bounds])))
    return "…"


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """The model of an option that is a table or an array of tables, where it is one."""
    arguments = get_args(annotation)
    if get_origin(annotation) in (dict, list, Union, UnionType) and arguments:
        return _table_of(arguments[-1])
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _toml(value: Any) -> str:
    match value:
        case SecretStr():
            return _toml(value.get_secret_value())
        case Enum():
            return _toml(value.value)
        case PurePath():
            return _toml(str(value))
        case bool():
            return str(value).lower()
        case int():
            return f"{value:_}" if value >= 10_000 else str(value)
        case float() | Decimal():
            return f"{int(value):_}.0" if value >= 10_000 and value % 1 == 0 else str(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            assert not value, "give a table of its own to what is not empty"
            return "{}"
    raise TypeError(f"no TOML for {value!r}")


def _remark(text: str | None) -> str:
    assert text, "an option has no description"
    text = " ".join(text.split())
    sentence = text if text.endswith(".") else f"{text}."
    return "".join(f"# {line}\n" for line in textwrap.wrap(sentence, 117, break_on_hyphens=False))


def _commented(block: str) -> str:
    return "".join(f"# {line}\n" for line in block.splitlines())


if __name__ == "__main__":
    FILE.write_text(page())
