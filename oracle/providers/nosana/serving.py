"""The job definition of an inference server that stays up: a script that starts it, and a port that is exposed. Pure.

The server's own log never reaches the container's output, which lies on IPFS in the end: it may quote prompts. Only
where the server dies before it serves are its last lines printed, for by then it has seen none. Source: specs/nosana.md
§1.7, §3.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from oracle.providers.nosana import definition, schema, templates
from oracle.providers.rented.landlord import Naming

Engine = Literal["vllm", "llamacpp", "ollama"]

OPERATION: Final = "server"
PORT: Final = 8000

_CURL: Final = (
    "until curl -fsS -o /dev/null http://127.0.0.1:8000/health 2>/dev/null; do kill -0 $server || "
    "{ tail -n 40 /tmp/server.log >&2; exit 70; }; sleep 1; done"
)
_SCRIPTS: Final[Mapping[Engine, tuple[str, ...]]] = {
    "vllm": (
        'vllm serve "$ORACLE_MODEL" --served-model-name "$ORACLE_MODEL" --generation-config vllm '
        "--host 0.0.0.0 --port 8000 >/tmp/server.log 2>&1 & server=$!",
        _CURL,
    ),
    "llamacpp": (
        '/app/llama-server -hf "$ORACLE_MODEL" --alias "$ORACLE_MODEL" --no-slots '
        "--host 0.0.0.0 --port 8000 >/tmp/server.log 2>&1 & server=$!",
        _CURL,
    ),
    # Its image has no curl, and its own client waits as well.
    "ollama": (
        "ollama serve >/tmp/server.log 2>&1 & server=$!",
        "until ollama list >/dev/null 2>&1; do kill -0 $server || { tail -n 40 /tmp/server.log >&2; exit 70; }; "
        "sleep 1; done",
        'ollama pull "$ORACLE_MODEL" >/tmp/pull.log 2>&1 || { tail -n 5 /tmp/pull.log >&2; exit 71; }',
    ),
}
# Where each engine reads the key that it wants of its callers; Ollama wants none.
_KEY_NAMES: Final[Mapping[Engine, str]] = {"vllm": "VLLM_API_KEY", "llamacpp": "LLAMA_API_KEY"}


@dataclass(frozen=True, slots=True)
class Blueprint:
    """An inference server. `model` is what it loads, and the name it answers to."""

    engine: Engine
    image: str
    model: str
    min_vram_gb: int
    replicas: int = 1

    def definition(self, name: str, api_key: str) -> dict[str, Any]:
        """What runs in the deployment of this name. Raises ORC-PROVIDER-025."""
        definition.check_model(self.model)
        templates.check_image(self.image)
        env = {"ORACLE_MODEL": self.model}
        if self.engine in _KEY_NAMES:
            env[_KEY_NAMES[self.engine]] = key_of(name, api_key)
        if self.engine == "ollama":
            env["OLLAMA_HOST"] = f"0.0.0.0:{PORT}"
        document = {
            "version": "0.1",
            "type": "container",
            "meta": {
                "trigger": definition.TRIGGER,
                "server": name,
                "system_requirements": {"required_vram": self.min_vram_gb},
            },
            "ops": [
                {
                    "type": "container/run",
                    "id": OPERATION,
                    "args": {
                        "image": self.image,
                        "gpu": True,
                        "entrypoint": ["/bin/sh", "-c"],
                        "cmd": ["\n".join(["set -eu", *_SCRIPTS[self.engine], 'wait "$server"'])],
                        "env": env,
                        "expose": PORT,
                    },
                }
            ],
        }
        schema.validate(document)
        return document

    def naming(self, prefix: str, provider: str, api_key: str) -> Naming:
        """Another name for whatever would not be the same server, and for each account."""
        account = hashlib.sha256(api_key.encode()).hexdigest()
        document = self.definition("", api_key)
        what = json.dumps([document, self.replicas, account], sort_keys=True)
        mine = re.sub(r"[^a-z0-9]+", "-", provider.lower()).strip("-")
        return Naming(f"{prefix}-{mine}", hashlib.sha256(what.encode()).hexdigest()[:8])


def key_of(name: str, api_key: str) -> str:
    """The key of the server of this name: known again after a crash, and kept nowhere.

    It is in the definition, which is public: it keeps out those who come by, and nobody who looks.
    """
    return hmac.new(api_key.encode(), f"deployment {name}".encode(), hashlib.sha256).hexdigest()
