"""The job definition of one inference: built from a template, and checked before anything is paid. Pure.

The script is a constant; whatever comes from a user travels in `env`, the request body as base64, so nothing is quoted
into a shell and no `%%` can reach the host's interpolation. Source: specs/nosana.md §3.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import orjson

from oracle.core.compute import IdempotencyKey, Task
from oracle.providers import errors
from oracle.providers.openai.wire import Dictation, chat_body

Engine = Literal["vllm", "llamacpp"]

TRIGGER: Final = "inference-oracle"
OPERATION: Final = "inference"

# Linux: MAX_ARG_STRLEN, for `NAME=value` and its closing zero byte. A larger one fails when the container is started.
LONGEST_VARIABLE_BYTES: Final = 131_071

_SERVE: Final[Mapping[Engine, str]] = {
    "vllm": 'vllm serve "$ORACLE_MODEL" --served-model-name "$ORACLE_MODEL" --generation-config vllm '
    "--host 127.0.0.1 --port 8000 >/tmp/server.log 2>&1 & server=$!",
    "llamacpp": '/app/llama-server -hf "$ORACLE_MODEL" --alias "$ORACLE_MODEL" --parallel 1 '
    "--host 127.0.0.1 --port 8000 >/tmp/server.log 2>&1 & server=$!",
}

# Hosts lose lines of a burst (§3.8): every part goes out twice and slowly, and the end three times with a checksum.
_SCRIPT: Final = r"""set -eu
{serve}
until curl -fsS -o /dev/null http://127.0.0.1:8000/health 2>/dev/null; do kill -0 $server || {{ tail -n 40 /tmp/server.log >&2; exit 70; }}; sleep 1; done
printf %s "$ORACLE_BODY" | base64 -d >/tmp/body.json
status=$(curl -sS --max-time "$ORACLE_MAX_SECONDS" -o /tmp/answer -w '%{{http_code}}' -H 'Content-Type: application/json' --data-binary @/tmp/body.json http://127.0.0.1:8000/v1/chat/completions)
base64 -w 480 /tmp/answer >/tmp/answer.b64
total=$(wc -l </tmp/answer.b64)
digest=$(sha256sum </tmp/answer | cut -d' ' -f1)
for pass in 1 2; do n=0; while IFS= read -r part; do n=$((n+1)); printf 'ORACLE_PART %s %s %s\n' "$n" "$total" "$part"; sleep 0.02; done </tmp/answer.b64; done
for pass in 1 2 3; do printf 'ORACLE_END %s %s %s\n' "$status" "$total" "$digest"; sleep 0.2; done
test "$status" = 200"""  # noqa: E501

_SAMPLING: Final[Mapping[Engine, Mapping[str, Any]]] = {
    "vllm": {"top_k": -1, "min_p": 0, "repetition_penalty": 1},
    "llamacpp": {"top_k": 0, "min_p": 0, "repeat_penalty": 1, "cache_prompt": False},
}

_MODEL: Final = re.compile(r"[A-Za-z0-9][\w.\-/:@]{0,254}")
_IMAGE: Final = re.compile(r"[a-z0-9][\w.\-/:@]{0,254}")


def build(task: Task, key: IdempotencyKey, *, engine: Engine, image: str, min_vram_gb: int) -> bytes:
    """The exact bytes to pin: compact JSON, key order kept, no floats, so that their CID is known (§1.6).

    The key in `meta` makes the document, and with it the CID, unique to one purchase, and finds the job again (§6.5).
    Raises ORC-PROVIDER-024 or 025.
    """
    check_names(task.model, image)
    body = chat_body(task, Dictation(extra=_SAMPLING[engine]), stream=False)
    encoded = base64.b64encode(orjson.dumps(body)).decode()
    if len("ORACLE_BODY=") + len(encoded) >= LONGEST_VARIABLE_BYTES:
        raise errors.INPUT_TOO_LARGE(f"{len(encoded)} bytes as base64")
    definition = {
        "version": "0.1",
        "type": "container",
        "meta": {"trigger": TRIGGER, "task": key, "system_requirements": {"required_vram": min_vram_gb}},
        "ops": [
            {
                "type": "container/run",
                "id": OPERATION,
                "args": {
                    "image": image,
                    "gpu": True,
                    # Both images have an entrypoint of their own, which would take the script for its arguments.
                    "entrypoint": ["/bin/sh", "-c"],
                    "cmd": [_SCRIPT.format(serve=_SERVE[engine])],
                    "env": {
                        "ORACLE_MODEL": task.model,
                        "ORACLE_BODY": encoded,
                        "ORACLE_MAX_SECONDS": str(math.ceil(task.timeout_seconds)),
                    },
                },
                # No `$`: entries keep their line end, before which JavaScript's `$` does not match (§3.6).
                "results": {
                    "part": {"regex": r"^ORACLE_PART \d+ \d+ \S+", "logType": ["stdout"]},
                    "end": {"regex": r"^ORACLE_END \d+ \d+ [0-9a-f]{64}", "logType": ["stdout"]},
                },
            }
        ],
    }
    validate(definition)
    return json.dumps(definition, separators=(",", ":"), ensure_ascii=False).encode()


def check_names(model: str, image: str) -> None:
    """Raise ORC-PROVIDER-025 for a model or an image that is no name of one."""
    if not _MODEL.fullmatch(model) or not _IMAGE.fullmatch(image):
        raise errors.DEFINITION_INVALID(f"model {model[:80]!r} on image {image[:80]!r}")


def key_of(definition: Any) -> str | None:
    """The idempotency key in a definition of ours; None for any other. REST hands it out as an object or as text."""
    if isinstance(definition, str | bytes):
        try:
            definition = json.loads(definition)
        except (ValueError, RecursionError):
            return None
    meta = definition.get("meta") if isinstance(definition, dict) else None
    if not isinstance(meta, dict) or meta.get("trigger") != TRIGGER:
        return None
    task = meta.get("task")
    return task if isinstance(task, str) else None


def validate(definition: Mapping[str, Any]) -> None:
    """Raise ORC-PROVIDER-025 for what the strict validator of hosts refuses, or would run as something else (§3)."""
    _only(definition, {"version", "type", "meta", "global", "ops"}, "definition")
    _require(definition.get("version") == "0.1" and definition.get("type") == "container", "version and type")
    _meta(definition.get("meta", {}))
    operations = definition.get("ops")
    _require(isinstance(operations, list) and len(operations) > 0, "ops")
    seen: set[str] = set()
    for operation in operations or []:
        _operation(operation)
        _require(operation["id"] not in seen, f"id {operation['id']!r} twice")
        seen.add(operation["id"])
    _require("%%" not in json.dumps(definition), "`%%` anywhere: hosts would expand it")


def _operation(operation: Mapping[str, Any]) -> None:
    _only(operation, {"type", "id", "args", "results", "execution"}, "operation")
    name = operation.get("id")
    _require(isinstance(name, str) and name != "" and " " not in name, "operation id")
    _require(operation.get("type") == "container/run", f"type of {name}")
    args = operation.get("args", {})
    _only(args, {"image", "gpu", "cmd", "entrypoint", "env", "work_dir", "expose"}, f"args of {name}")
    _require(isinstance(args.get("image"), str) and args["image"] != "", f"image of {name}")
    _require(isinstance(args.get("gpu", False), bool), f"gpu of {name}")
    for command in ("cmd", "entrypoint"):
        _require(_is_command(args.get(command, "")), f"{command} of {name}")
    env = args.get("env", {})
    _require(isinstance(env, dict) and all(isinstance(x, str) for pair in env.items() for x in pair), f"env of {name}")
    for variable, value in env.items():
        _require(len(f"{variable}={value}".encode()) < LONGEST_VARIABLE_BYTES, f"env {variable} of {name}: too long")
    for result in operation.get("results", {}).values():
        _require(isinstance(result, dict) and set(result) == {"regex", "logType"}, f"results of {name}")


def _meta(meta: Any) -> None:
    """Strings, numbers, lists of those and one level of maps; booleans and deeper nesting are refused (§3.1)."""
    _require(isinstance(meta, dict), "meta")
    for name, value in meta.items():
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        plain = all(isinstance(item, str | int) and not isinstance(item, bool) for item in inner)
        _require(plain, f"meta.{name}")


def _is_command(command: Any) -> bool:
    return isinstance(command, str) or (isinstance(command, list) and all(isinstance(word, str) for word in command))


def _only(value: Any, allowed: set[str], what: str) -> None:
    _require(isinstance(value, dict), what)
    _require(set(value) <= allowed, f"{what}: unknown {', '.join(sorted(set(value) - allowed))}")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise errors.DEFINITION_INVALID(what)
