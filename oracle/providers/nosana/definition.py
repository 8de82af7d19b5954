"""The job definition of one inference: a template with the request in it, checked before anything is paid. Pure.

The script is a constant; whatever comes from a user travels in `env`, the request body as base64, so nothing is quoted
into a shell and no `%%` can reach the host's interpolation. Source: specs/nosana.md §3.
"""

from __future__ import annotations

import base64
import copy
import json
import math
import re
from typing import Any, Final

import orjson

from oracle.core.compute import IdempotencyKey, Task
from oracle.providers import errors
from oracle.providers.nosana import schema
from oracle.providers.nosana.templates import OPERATION, RESULTS, Template
from oracle.providers.openai.wire import Dictation, chat_body

TRIGGER: Final = "inference-oracle"

_MODEL: Final = re.compile(r"[A-Za-z0-9][\w.\-/:@]{0,254}")


def build(task: Task, key: IdempotencyKey, template: Template, *, min_vram_gb: int) -> bytes:
    """The exact bytes to pin: compact JSON, key order kept, so that their CID is known (§1.6).

    The key in `meta` makes the document, and with it the CID, unique to one purchase, and finds the job again (§6.5).
    Raises ORC-PROVIDER-024 or 025.
    """
    check_model(task.model)
    body = chat_body(task, Dictation(extra=template.sampling), stream=False)
    encoded = base64.b64encode(orjson.dumps(body)).decode()
    if len("ORACLE_BODY=") + len(encoded) >= schema.LONGEST_VARIABLE_BYTES:
        raise errors.INPUT_TOO_LARGE(f"{len(encoded)} bytes as base64")
    definition: dict[str, Any] = copy.deepcopy(dict(template.document))
    requirements = {"system_requirements": {"required_vram": min_vram_gb}}
    definition["meta"] = {**requirements, **(definition.get("meta") or {}), "trigger": TRIGGER, "task": key}
    operation = next(one for one in definition["ops"] if one["id"] == OPERATION)
    operation["results"] = dict(RESULTS)
    operation["args"]["env"] = {
        **(operation["args"].get("env") or {}),
        "ORACLE_MODEL": task.model,
        "ORACLE_BODY": encoded,
        "ORACLE_MAX_SECONDS": str(math.ceil(task.timeout_seconds)),
    }
    schema.validate(definition)
    return json.dumps(definition, separators=(",", ":"), ensure_ascii=False).encode()


def check_model(model: str) -> None:
    """Raise ORC-PROVIDER-025 for what is no name of a model."""
    if not _MODEL.fullmatch(model):
        raise errors.DEFINITION_INVALID(f"model {model[:80]!r}")


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
