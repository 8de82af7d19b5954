"""The container of one inference: the body that orders it, and how its task is read back from the job. No I/O.

It runs llama.cpp's own server image, which is steered by its environment alone, as Dispersed allows no command (§4).
The task travels in the environment too: so whoever finds the job after a crash can still ask its server.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from oracle.core.compute import IdempotencyKey, Message, Task
from oracle.providers import errors

TITLE: Final = "oracle-"
"""What the titles of our jobs begin with; behind it stands the key of the purchase."""

_TASK: Final = "ORACLE_TASK"
_EXPIRES: Final = "expires "
# Linux's MAX_ARG_STRLEN: one `NAME=value` with its final zero byte must fit, or exec fails.
_LONGEST_VARIABLE_BYTES: Final = 131_072
_SHORTEST_RUN_SECONDS: Final = 60
_MODEL: Final = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Terms:
    """What every job asks for. `models` are the names on offer; empty means any."""

    image: str = "ghcr.io/ggml-org/llama.cpp"
    tag: str = "server-cuda"
    port: int = 8080
    kind: Literal["BATCH", "PERSISTENT"] = "BATCH"
    environment: tuple[tuple[str, str], ...] = ()
    models: tuple[str, ...] = ()
    min_vram_gb: int = 8
    min_ram_gb: int = 16
    min_storage_gb: int = 40
    cpu_count: int = 4
    regions: tuple[str, ...] = ()
    max_queue_seconds: float = 600.0
    max_start_seconds: float = 1800.0
    expected_seconds: float = 600.0


def title_of(key: IdempotencyKey) -> str:
    return TITLE + key


def order(
    task: Task,
    key: IdempotencyKey,
    terms: Terms,
    *,
    gpu_registry_uuid: str | None,
    gpu_name: str,
    secret: str,
    now: float,
) -> dict[str, Any]:
    """The body that creates the job. All text is ASCII and all numbers are whole (§2). Raises ORC-PROVIDER-024 or 025.

    A BATCH job is ended by Dispersed itself once its time is over, whatever became of us.
    """
    if not _MODEL.fullmatch(task.model):
        raise errors.DEFINITION_INVALID(f"model {task.model[:80]!r} is no repository on Hugging Face")
    encoded = base64.b64encode(_written(task)).decode()
    if len(f"{_TASK}={encoded}") >= _LONGEST_VARIABLE_BYTES:
        raise errors.INPUT_TOO_LARGE(f"{len(encoded)} bytes as base64")
    run_seconds = max(_SHORTEST_RUN_SECONDS, math.ceil(task.timeout_seconds))
    gpu = {"gpu_registry_uuid": gpu_registry_uuid} if gpu_registry_uuid else {"gpu_name": gpu_name}
    environment = {
        "LLAMA_ARG_HF_REPO": task.model,
        "LLAMA_ARG_ALIAS": task.model,
        "LLAMA_ARG_HOST": "0.0.0.0",
        "LLAMA_ARG_PORT": str(terms.port),
        "LLAMA_ARG_N_GPU_LAYERS": "999",
        "LLAMA_ARG_N_PARALLEL": "1",
        **dict(terms.environment),
        "LLAMA_API_KEY": server_key(key, secret),
        _TASK: encoded,
    }
    return {
        "task": terms.kind,
        "title": title_of(key),
        "description": f"{_EXPIRES}{math.ceil(now + terms.max_queue_seconds + run_seconds)}",
        "cpu_count": terms.cpu_count,
        "gpu_count": 1,
        **gpu,
        "min_ram_gb": terms.min_ram_gb,
        "min_storage_gb": terms.min_storage_gb,
        "min_vram_gb": terms.min_vram_gb,
        "max_timeout_run_ms": run_seconds * 1000 if terms.kind == "BATCH" else None,
        "max_timeout_assign_ms": max(300_000, math.ceil(terms.max_queue_seconds * 1000)),
        "max_timeout_start_ms": max(120_000, math.ceil(terms.max_start_seconds * 1000)),
        "max_node_count": 1,
        # A retry of theirs would be a second inference.
        "max_retry_count": 0,
        "allowed_region_codes": list(terms.regions),
        "parameters": {
            "type": "docker",
            "parameters": {
                "image": terms.image,
                "tag": terms.tag,
                # Without 22 the addresses have been seen to stay empty.
                "ports": [22, terms.port],
                "allowed_ips": ["0.0.0.0/0"],
                "env": environment,
            },
        },
    }


def task_in(environment: Mapping[str, str] | None) -> Task | None:
    """The task of a job of ours; None where the environment does not hold one."""
    encoded = (environment or {}).get(_TASK)
    if not isinstance(encoded, str):
        return None
    try:
        fields = orjson.loads(base64.b64decode(encoded, validate=True))
        messages = tuple(Message(role, content) for role, content in fields.pop("messages"))
        return Task(messages=messages, **fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def key_in(title: str) -> IdempotencyKey | None:
    return IdempotencyKey(title.removeprefix(TITLE)) if title.startswith(TITLE) else None


def is_overdue(title: str, description: str, now: float) -> bool:
    """Whether a job of ours has outlived its own statement of when nobody can want it any longer."""
    said = description.removeprefix(_EXPIRES)
    return title.startswith(TITLE) and said.isdigit() and now > int(said)


def server_key(key: IdempotencyKey, secret: str) -> str:
    """The key that the container's server asks for: its own for each job, and the same after a restart."""
    return hmac.new(secret.encode(), f"container {key}".encode(), hashlib.sha256).hexdigest()


def _written(task: Task) -> bytes:
    return orjson.dumps(
        {
            "model": task.model,
            "messages": [[message.role, message.content] for message in task.messages],
            "max_output_tokens": task.max_output_tokens,
            "temperature": task.temperature,
            "seed": task.seed,
            "timeout_seconds": task.timeout_seconds,
        }
    )
