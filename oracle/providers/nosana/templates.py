"""What runs inside the container of a job: templates of job definitions, by name or from a file. Pure but for reading.

Every template takes the request from `ORACLE_BODY` and prints its answer in parts with a checksum, which the host
extracts into the results of the operation: so what it came to is told by the operation, and never by the state of the
job. A chat template's answer is the completion of its server; a text template's is the name of the model, a line end,
and the text, under the HTTP status 000, which is none. Source: specs/nosana.md §3.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from oracle.providers import errors
from oracle.providers.nosana import schema

TemplateName = Literal["vllm", "llamacpp", "ollama", "container", "jupyter"]

OPERATION: Final = "inference"
_IMAGE: Final = re.compile(r"[a-z0-9][\w.\-/:@]{0,254}")

IMAGES: Final[Mapping[TemplateName, str]] = {
    "vllm": "docker.io/vllm/vllm-openai:v0.9.2",
    "llamacpp": "ghcr.io/ggml-org/llama.cpp:server-cuda",
    "ollama": "docker.io/ollama/ollama:0.9.6",
    "jupyter": "docker.io/nosana/pytorch-jupyter:2.0.0",
}
# What a server would otherwise take from its own defaults or the model's files (openai_compatible.md §6).
_SAMPLING: Final[Mapping[str, Mapping[str, Any]]] = {
    "vllm": {"top_k": -1, "min_p": 0, "repetition_penalty": 1},
    "llamacpp": {"top_k": 0, "min_p": 0, "repeat_penalty": 1, "cache_prompt": False},
}

_CURL: Final = r"""until curl -fsS -o /dev/null http://127.0.0.1:8000/health 2>/dev/null; do kill -0 $server || { tail -n 40 /tmp/server.log >&2; exit 70; }; sleep 1; done
printf %s "$ORACLE_BODY" | base64 -d >/tmp/body.json
status=$(curl -sS --max-time "$ORACLE_MAX_SECONDS" -o /tmp/answer -w '%{http_code}' -H 'Content-Type: application/json' --data-binary @/tmp/body.json http://127.0.0.1:8000/v1/chat/completions)"""  # noqa: E501

# The image has no curl, so bash speaks HTTP/1.0 itself: its answer is not chunked, and ends with the connection.
_OLLAMA: Final = r"""ollama serve >/tmp/server.log 2>&1 & server=$!
until ollama list >/dev/null 2>&1; do kill -0 $server || { tail -n 40 /tmp/server.log >&2; exit 70; }; sleep 1; done
ollama pull "$ORACLE_MODEL" >/tmp/pull.log 2>&1 || { tail -n 5 /tmp/pull.log >&2; exit 71; }
printf %s "$ORACLE_BODY" | base64 -d >/tmp/body.json
length=$(wc -c </tmp/body.json)
exec 3<>/dev/tcp/127.0.0.1/8000
{ printf 'POST /v1/chat/completions HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %s\r\n\r\n' "$length"; cat /tmp/body.json; } >&3
timeout "$ORACLE_MAX_SECONDS" cat <&3 >/tmp/response
status=$(head -n 1 /tmp/response | cut -d' ' -f2)
sed '1,/^\r$/d' /tmp/response >/tmp/answer"""  # noqa: E501

_CONTAINER: Final = r"""printf %s "$ORACLE_BODY" | base64 -d >/tmp/body.json
timeout "$ORACLE_MAX_SECONDS" /bin/sh -c "$ORACLE_COMMAND" </tmp/body.json >/tmp/text 2>/tmp/error.log || { tail -n 40 /tmp/error.log >&2; exit 72; }"""  # noqa: E501

_JUPYTER: Final = r"""printf %s "$ORACLE_BODY" | base64 -d >/tmp/body.json
printf %s "$ORACLE_NOTEBOOK" | base64 -d >/tmp/job.ipynb
timeout "$ORACLE_MAX_SECONDS" jupyter nbconvert --to notebook --execute --ExecutePreprocessor.timeout=-1 --output /tmp/done.ipynb /tmp/job.ipynb >/tmp/jupyter.log 2>&1 || { tail -n 40 /tmp/jupyter.log >&2; exit 72; }"""  # noqa: E501

_TEXT: Final = r"""{ printf '%s\n' "$ORACLE_MODEL"; cat /tmp/text; } >/tmp/answer
status=000"""

# Hosts lose lines of a burst (§3.8): every part goes out twice and slowly, and the end three times with a checksum.
_PRINT: Final = r"""base64 -w 480 /tmp/answer >/tmp/answer.b64
total=$(wc -l </tmp/answer.b64)
digest=$(sha256sum </tmp/answer | cut -d' ' -f1)
for pass in 1 2; do n=0; while IFS= read -r part; do n=$((n+1)); printf 'ORACLE_PART %s %s %s\n' "$n" "$total" "$part"; sleep 0.02; done </tmp/answer.b64; done
for pass in 1 2 3; do printf 'ORACLE_END %s %s %s\n' "$status" "$total" "$digest"; sleep 0.2; done"""  # noqa: E501

_SCRIPTS: Final[Mapping[TemplateName, tuple[str, ...]]] = {
    "vllm": (
        'vllm serve "$ORACLE_MODEL" --served-model-name "$ORACLE_MODEL" --generation-config vllm '
        "--host 127.0.0.1 --port 8000 >/tmp/server.log 2>&1 & server=$!",
        _CURL,
        _PRINT,
        'test "$status" = 200',
    ),
    "llamacpp": (
        '/app/llama-server -hf "$ORACLE_MODEL" --alias "$ORACLE_MODEL" --parallel 1 '
        "--host 127.0.0.1 --port 8000 >/tmp/server.log 2>&1 & server=$!",
        _CURL,
        _PRINT,
        'test "$status" = 200',
    ),
    "ollama": (_OLLAMA, _PRINT, 'test "$status" = 200'),
    "container": (_CONTAINER, _TEXT, _PRINT),
    "jupyter": (_JUPYTER, _TEXT, _PRINT),
}

RESULTS: Final[Mapping[str, Any]] = {
    # No `$`: entries keep their line end, before which JavaScript's `$` does not match (§3.6).
    "part": {"regex": r"^ORACLE_PART \d+ \d+ \S+", "logType": ["stdout"]},
    "end": {"regex": r"^ORACLE_END \d+ \d+ [0-9a-f]{64}", "logType": ["stdout"]},
}


@dataclass(frozen=True, slots=True)
class Template:
    """A valid definition without a request. `sampling` are fields that its server needs in every request."""

    document: Mapping[str, Any]
    sampling: Mapping[str, Any] = field(default_factory=dict)


def built_in(
    name: TemplateName, *, image: str | None = None, command: str | None = None, notebook: bytes | None = None
) -> Template:
    """One of the templates that are shipped. Raises ORC-PROVIDER-022 or 025.

    `command`, of `container`, reads the chat request as JSON from its input and prints the answer. `notebook`, of
    `jupyter`, reads it from `/tmp/body.json` and writes the answer to `/tmp/text`.
    """
    env = {}
    if (name == "container") != (command is not None):
        raise errors.SETTINGS_INVALID("`command` goes with the template `container`, and is needed there")
    if (name == "jupyter") != (notebook is not None):
        raise errors.SETTINGS_INVALID("`notebook` goes with the template `jupyter`, and is needed there")
    if image is None and name not in IMAGES:
        raise errors.SETTINGS_INVALID(f"the template `{name}` needs an `image`")
    if image is not None:
        check_image(image)
    if command is not None:
        env["ORACLE_COMMAND"] = command
    if notebook is not None:
        env["ORACLE_NOTEBOOK"] = base64.b64encode(notebook).decode()
    if name == "ollama":
        env["OLLAMA_HOST"] = "127.0.0.1:8000"
    shell = "/bin/bash" if name == "ollama" else "/bin/sh"
    args = {
        "image": image or IMAGES[name],
        "gpu": True,
        # Most images have an entrypoint of their own, which would take the script for its arguments.
        "entrypoint": [shell, "-c"],
        "cmd": ["\n".join(["set -eu", *_SCRIPTS[name]])],
        "env": env,
    }
    document = {
        "version": "0.1",
        "type": "container",
        "ops": [{"type": "container/run", "id": OPERATION, "args": args, "results": dict(RESULTS)}],
    }
    schema.validate(document)
    return Template(document, _SAMPLING.get(name, {}))


def check_image(image: str) -> None:
    """Raise ORC-PROVIDER-025 for what is no name of an image."""
    if not _IMAGE.fullmatch(image):
        raise errors.DEFINITION_INVALID(f"image {image[:80]!r}")


def from_file(path: Path) -> Template:
    """An operator's own definition. Its operation `inference` gets the request, and prints the answer as the shipped
    templates do. Raises ORC-PROVIDER-022 or 025."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        shipped = ", ".join(get_args(TemplateName))
        raise errors.SETTINGS_INVALID(
            f"template {path}: none of {shipped}, and no file of JSON ({type(error).__name__})"
        ) from None
    if not isinstance(document, dict):
        raise errors.DEFINITION_INVALID(f"template {path}: no object")
    schema.validate(document)
    mine = [operation for operation in document["ops"] if operation["id"] == OPERATION]
    if not mine or mine[0]["type"] != "container/run":
        raise errors.DEFINITION_INVALID(f"template {path}: no container/run with the id {OPERATION!r}")
    if mine[0].get("results", RESULTS) != RESULTS:
        raise errors.DEFINITION_INVALID(f"template {path}: the results of {OPERATION!r} are the oracle's own")
    return Template(document)
