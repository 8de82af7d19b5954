"""The job definition as the strict validator of the hosts reads it: unknown keys are refused (§3.1 to §3.6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Refusal = dict[str, Any]
"""`{"path": "$input.ops[0].args.image", "expected": "string"}`, the form of §7.5."""

_Check = Callable[[Any, str], list[Refusal]]


def validate(definition: Any) -> list[Refusal]:
    """What is wrong with a definition; empty where nothing is."""
    refusals = _DEFINITION(definition, "$input")
    return refusals or _unique_ids(definition)


def _unique_ids(definition: Mapping[str, Any]) -> list[Refusal]:
    seen: set[str] = set()
    refusals = []
    for n, operation in enumerate(definition["ops"]):
        if operation["id"] in seen or re.search(r"\s", operation["id"]):
            refusals.append({"path": f"$input.ops[{n}].id", "expected": "a unique id without spaces"})
        seen.add(operation["id"])
    return refusals


def _text(value: Any, path: str) -> list[Refusal]:
    return [] if isinstance(value, str) else [{"path": path, "expected": "string"}]


def _number(value: Any, path: str) -> list[Refusal]:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return [] if good else [{"path": path, "expected": "number"}]


def _flag(value: Any, path: str) -> list[Refusal]:
    return [] if isinstance(value, bool) else [{"path": path, "expected": "boolean"}]


def _literal(*allowed: str) -> _Check:
    expected = " | ".join(f'"{item}"' for item in allowed)

    def check(value: Any, path: str) -> list[Refusal]:
        return [] if value in allowed else [{"path": path, "expected": expected}]

    return check


def _array(item: _Check, *, least: int = 0) -> _Check:
    def check(value: Any, path: str) -> list[Refusal]:
        if not isinstance(value, list) or len(value) < least:
            return [{"path": path, "expected": "Array"}]
        return [refusal for n, entry in enumerate(value) for refusal in item(entry, f"{path}[{n}]")]

    return check


def _map(item: _Check) -> _Check:
    def check(value: Any, path: str) -> list[Refusal]:
        if not isinstance(value, dict):
            return [{"path": path, "expected": "object"}]
        return [refusal for name, entry in value.items() for refusal in item(entry, f"{path}.{name}")]

    return check


def _object(required: Mapping[str, _Check], optional: Mapping[str, _Check] | None = None) -> _Check:
    known = {**required, **(optional or {})}

    def check(value: Any, path: str) -> list[Refusal]:
        if not isinstance(value, dict):
            return [{"path": path, "expected": "object"}]
        refusals = [{"path": f"{path}.{name}", "expected": "undefined"} for name in value if name not in known]
        for name, item in known.items():
            if name in value or name in required:
                refusals += item(value.get(name), f"{path}.{name}")
        return refusals

    return check


def _either(expected: str, *checks: _Check) -> _Check:
    def check(value: Any, path: str) -> list[Refusal]:
        return [] if any(not one(value, path) for one in checks) else [{"path": path, "expected": expected}]

    return check


def _anything(value: Any, path: str) -> list[Refusal]:
    return []


_SCALAR = _either("string | number", _text, _number)
_META = _map(_either("(string | number | Array | object)", _SCALAR, _array(_SCALAR), _map(_SCALAR)))
_TEXT_OR_TEXTS = _either("(Array<string> | string)", _text, _array(_text))
_HEALTH_CHECK = _either(
    "(HttpHealthCheck | WebSocketHealthCheck)",
    _object(
        {
            "type": _literal("http"),
            "path": _text,
            "method": _literal("GET", "POST", "PUT", "DELETE"),
            "expected_status": _number,
            "continuous": _flag,
        },
        {"headers": _map(_text), "body": _anything},
    ),
    _object({"type": _literal("websocket"), "expected_response": _text, "continuous": _flag}),
)
_PORT = _either(
    "(ExposedPort | number | string)",
    _number,
    _text,
    _object(
        {"port": _SCALAR},
        {
            "type": _literal("api", "web", "websocket", "webapi", "none"),
            "health_checks": _array(_HEALTH_CHECK),
        },
    ),
    _object({"__spread__": _text}, {"chunked": _anything}),
)
_RESOURCE = _either(
    "Resource",
    _object(
        {"type": _literal("S3"), "target": _text},
        {
            "url": _text,
            "files": _array(_text),
            "bucket": _text,
            "buckets": _array(_object({"url": _text}, {"files": _array(_text)})),
            "allowWrite": _flag,
            "IAM": _object({"REGION": _text, "ACCESS_KEY_ID": _text, "SECRET_ACCESS_KEY": _text}),
        },
    ),
    _object(
        {"type": _literal("HF"), "repo": _text, "target": _text},
        {"revision": _text, "files": _array(_text), "accessToken": _text},
    ),
    _object({"type": _literal("Ollama"), "model": _text}, {"target": _text}),
)
_RUN = _object(
    {"image": _text},
    {
        "cmd": _TEXT_OR_TEXTS,
        "entrypoint": _TEXT_OR_TEXTS,
        "env": _map(_text),
        "gpu": _flag,
        "work_dir": _text,
        "volumes": _array(_object({"name": _text, "dest": _text})),
        "expose": _either("(Array<number | ExposedPort> | number | string)", _PORT, _array(_PORT)),
        "private": _flag,
        "resources": _array(_RESOURCE),
        "authentication": _object(
            {}, {"docker": _object({}, {"username": _text, "password": _text, "email": _text, "server": _text})}
        ),
        "restart_policy": _either(
            "RestartPolicy",
            _literal("no", "always", "unless-stopped", "on-failure"),
            _object({"policy": _literal("on-failure"), "restart_tries": _number}),
        ),
        "aliases": _TEXT_OR_TEXTS,
    },
)
_RESULT = _either(
    "(OperationResult | string)",
    _text,
    _object({"regex": _text, "logType": _array(_literal("stdin", "stdout", "stderr", "nodeerr"))}),
)
_EXECUTION = _object(
    {}, {"group": _text, "depends_on": _array(_text), "stop_if_dependent_stops": _flag, "timeout": _number}
)
_OPERATION_REST = {"results": _map(_RESULT), "execution": _EXECUTION}


def _operation(value: Any, path: str) -> list[Refusal]:
    kinds = {"container/run": _RUN, "container/create-volume": _object({"name": _text})}
    kind = value.get("type") if isinstance(value, dict) else None
    arguments = kinds.get(kind) if isinstance(kind, str) else None
    if arguments is None:
        return [{"path": f"{path}.type", "expected": '"container/run" | "container/create-volume"'}]
    return _object({"type": _anything, "id": _text, "args": arguments}, _OPERATION_REST)(value, path)


_LOGISTICS_END = _object({"type": _literal("api", "api-listen"), "args": _map(_anything)})
_DEFINITION = _object(
    {"version": _literal("0.1"), "type": _literal("container"), "ops": _array(_operation)},
    {
        "meta": _META,
        "global": _object(
            {},
            {
                "image": _text,
                "gpu": _flag,
                "entrypoint": _TEXT_OR_TEXTS,
                "env": _map(_text),
                "work_dir": _text,
                "variables": _map(_text),
            },
        ),
        "logistics": _object({}, {"send": _LOGISTICS_END, "receive": _LOGISTICS_END}),
        "deployment_id": _text,
        "ssh": _object({"public_keys": _array(_text)}),
    },
)
