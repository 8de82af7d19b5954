"""What runs in a container of IO Cloud: the command of each engine, the container's own key, and its name. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from oracle.providers.ionet.cloud_wire import Container
from oracle.providers.rented.landlord import Naming

Engine = Literal["vllm", "llamacpp"]

PORT: Final = 8080
IMAGES: Final[Mapping[Engine, str]] = {
    "vllm": "docker.io/vllm/vllm-openai:v0.9.2",
    "llamacpp": "ghcr.io/ggml-org/llama.cpp:server-cuda",
}
# Where each engine reads the key that it wants of its callers. Ollama knows none, so it is not among them: the address
# of a container is public, and strangers would compute on it.
_KEY_NAMES: Final[Mapping[Engine, str]] = {"vllm": "VLLM_API_KEY", "llamacpp": "LLAMA_API_KEY"}


@dataclass(frozen=True, slots=True)
class Blueprint:
    """An inference server: `model` is what it loads, and the name it answers to."""

    engine: Engine
    image: str
    model: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    huggingface_token: str | None = field(default=None, repr=False)

    @property
    def entrypoint(self) -> tuple[str, ...]:
        listen = ("--host", "0.0.0.0", "--port", str(PORT))
        if self.engine == "vllm":
            named = ("--served-model-name", self.model)
            # Else the files of a model decide how it samples where a request does not say.
            return ("vllm", "serve", self.model, *listen, *named, "--generation-config", "vllm", *self.arguments)
        named = ("--alias", self.model)
        # Its slots would show prompts.
        return ("/app/llama-server", "-hf", self.model, *listen, *named, *self.arguments, "--no-slots")

    def container(self, key: str) -> Container:
        secrets = {_KEY_NAMES[self.engine]: key}
        if self.huggingface_token is not None:
            secrets["HF_TOKEN"] = self.huggingface_token
        return Container(self.image, self.entrypoint, PORT, self.environment, secrets)

    def naming(self, prefix: str, provider: str, api_key: str) -> Naming:
        """Another name for whatever would not be the same server, and for each account: the key of a container
        follows from that of its account."""
        account = hashlib.sha256(api_key.encode()).hexdigest()
        what = json.dumps([self.image, self.entrypoint, dict(self.environment), account], sort_keys=True)
        mine = re.sub(r"[^a-z0-9]+", "-", provider.lower()).strip("-")
        return Naming(f"{prefix}-{mine}", hashlib.sha256(what.encode()).hexdigest()[:8])


def key_of(name: str, api_key: str) -> str:
    """The key of the container of this name: known again after a crash, and kept nowhere."""
    return hmac.new(api_key.encode(), f"container {name}".encode(), hashlib.sha256).hexdigest()
