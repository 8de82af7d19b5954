"""The job definition of an inference that both the emulator and a real Nosana host can execute."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
VLLM_IMAGE = "docker.io/vllm/vllm-openai:v0.9.2"
LLAMA_CPP_IMAGE = "ghcr.io/ggml-org/llama.cpp:server-cuda"
VLLM_SERVER = (
    'vllm serve "$ORACLE_MODEL" --served-model-name "$ORACLE_MODEL" --generation-config vllm'
    " --host 127.0.0.1 --port 8000 >/tmp/server.log 2>&1 & server=$!"
)
LLAMA_CPP_SERVER = (
    '/app/llama-server -hf "$ORACLE_MODEL" --alias "$ORACLE_MODEL" --parallel 1'
    " --host 127.0.0.1 --port 8000 >/tmp/server.log 2>&1 & server=$!"
)
_SCRIPT = r"""
set -eu
@SERVER@
until curl -fsS -o /dev/null http://127.0.0.1:8000/health 2>/dev/null; do kill -0 $server || { tail -n 40 /tmp/server.log >&2; exit 70; }; sleep 1; done
printf %s "$ORACLE_BODY" | base64 -d >/tmp/body.json
status=$(curl -sS --max-time "$ORACLE_MAX_SECONDS" -o /tmp/answer -w '%{http_code}' -H 'Content-Type: application/json' --data-binary @/tmp/body.json http://127.0.0.1:8000/v1/chat/completions)
base64 -w 480 /tmp/answer >/tmp/answer.b64
total=$(wc -l </tmp/answer.b64)
digest=$(sha256sum </tmp/answer | cut -d' ' -f1)
for pass in 1 2; do n=0; while IFS= read -r part; do n=$((n+1)); printf 'ORACLE_PART %s %s %s\n' "$n" "$total" "$part"; sleep 0.02; done </tmp/answer.b64; done
for pass in 1 2 3; do printf 'ORACLE_END %s %s %s\n' "$status" "$total" "$digest"; sleep 0.2; done
test "$status" = 200
"""  # noqa: E501  a line of the script is one statement


SPEC_EXAMPLE: dict[str, Any] = {
    "version": "0.1",
    "type": "container",
    "meta": {"trigger": "python", "task_id": "task-0001"},
    "ops": [
        {
            "type": "container/run",
            "id": "main",
            "args": {
                "image": "docker.io/library/python:3.12-slim",
                "cmd": ["python", "-c", "print('RESULT 42')"],
                "gpu": True,
            },
            "results": {"answer": {"regex": "^RESULT (\\S+)", "logType": ["stdout"]}},
        }
    ],
}
"""nosana.md §7.2."""


def script(server: str = VLLM_SERVER) -> str:
    return _SCRIPT.strip().replace("@SERVER@", server)


def chat(prompt: str = "What is the capital of France?", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": REPOSITORY, "messages": messages, "max_tokens": 64, "temperature": 0, "seed": 0, **more}


def environment(body: Any = None) -> dict[str, str]:
    encoded = base64.b64encode(json.dumps(chat() if body is None else body).encode()).decode()
    return {"ORACLE_MODEL": REPOSITORY, "ORACLE_BODY": encoded, "ORACLE_MAX_SECONDS": "30"}


def inference(task: str = "task-1", body: Any = None, **arguments: Any) -> dict[str, Any]:
    """A whole definition; `arguments` replace those of its one operation."""
    run = {
        "image": VLLM_IMAGE,
        "gpu": True,
        "entrypoint": ["/bin/sh", "-c"],
        "cmd": [script()],
        "env": environment(body),
        **arguments,
    }
    results = {
        "part": {"regex": r"^ORACLE_PART \d+ \d+ \S+", "logType": ["stdout"]},
        "end": {"regex": r"^ORACLE_END \d+ \d+ [0-9a-f]{64}", "logType": ["stdout"]},
    }
    return {
        "version": "0.1",
        "type": "container",
        "meta": {"trigger": "inference-oracle", "task": task},
        "ops": [{"type": "container/run", "id": "inference", "args": run, "results": results}],
    }


def answer_in(results: dict[str, list[str]]) -> bytes | None:
    """The bytes that the model server answered, or None where they are incomplete or do not match their digest."""
    if not results["end"]:
        return None
    _, status, total, digest = results["end"][-1].split()
    parts = {int(line.split()[1]): line.split()[3] for line in results["part"]}
    if status != "200" or set(parts) != set(range(1, int(total) + 1)):
        return None
    answer = base64.b64decode("".join(parts[n] for n in sorted(parts)))
    return answer if hashlib.sha256(answer).hexdigest() == digest else None
