"""The options of the gateway and of its clients' keys."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, model_validator

from oracle.config.section import STRICT
from oracle.config.values import Address

# It stands in the ledger, in logs and in names that are derived from it.
KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class GatewayKey(BaseModel):
    """A client of the gateway, known by its key, and what it may use. A day begins at midnight UTC."""

    model_config = STRICT

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the key, as `printf %s "$KEY" | sha256sum` prints it: the key itself need not be here at all."""
    key_file: Annotated[Path | None, Field(strict=False)] = None
    """File that holds the key, such as a systemd credential, instead of `sha256`."""
    key_env: str | None = None
    """Name of an environment variable that holds the key, instead of `sha256`."""
    requests_per_minute: Annotated[int, Field(ge=1)] = 60
    """Calls within any minute; more are refused with 429."""
    concurrent: Annotated[int, Field(ge=1)] = 16
    """Calls under way at once; more are refused with 429."""
    tokens_per_day: Annotated[int, Field(ge=0)] | None = None
    """Tokens of prompts and answers in a day. A call under way counts with the most that it may use."""
    lamports_per_day: Annotated[int, Field(ge=0)] | None = None
    """What jobs and recordings may cost in a day. A call under way counts with its quote."""
    models: list[str] | None = None
    """Models that may be asked for; by default all of `[models]`."""
    private: bool = False
    """Prompts of this client never go where anyone could read them: not to Nosana, and not on chain."""
    record: bool = False
    """Answers may be recorded on chain, within `lamports_per_day`. The prompt is then public, too."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> GatewayKey:
        if sum(x is not None for x in (self.sha256, self.key_file, self.key_env)) > 1:
            raise ValueError("set only one of sha256, key_file and key_env")
        if self.record and self.private:
            raise ValueError("record puts prompts on chain, which private forbids")
        if self.record and self.lamports_per_day is None:
            raise ValueError("record spends lamports: set lamports_per_day")
        return self


class Gateway(BaseModel):
    """The OpenAI-compatible server of `oracle gateway`, in front of `[models]`."""

    model_config = STRICT

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` or `::` for all of them. It speaks HTTP: put a proxy with TLS before it."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8788
    """Port to listen on; 0 takes any free one."""
    default_output_tokens: Annotated[int, Field(ge=1)] = 1024
    """Most tokens of an answer where the client names no limit; `policy.max_output_tokens` is the most it may name."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_048_576
    """A larger request is refused with 413."""
    queue: Address | None = None
    """Queue on which answers are recorded, without claims; by default the first of `operator.queues`."""
    keypair: Annotated[Path | None, Field(strict=False)] = None
    """Keypair file of the key that asks for recordings and pays for them; without any there are no recordings."""
    keypair_env: str | None = None
    """Name of an environment variable that holds that key."""
    keypair_credential: str | None = None
    """Name of a systemd credential that holds that key."""
    record_fee_lamports: Annotated[int, Field(ge=0)] = 10_000
    """Fee of a recording, which the operator gets; at least the floor of the queue."""
    record_deadline_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Time for a recorded answer to be settled, within the bounds of the queue."""
    keys: dict[KeyName, GatewayKey] = {}
    """The clients, each as `[gateway.keys.NAME]`. Without any the gateway does not start."""

    @property
    def has_keypair(self) -> bool:
        return any(x is not None for x in (self.keypair, self.keypair_env, self.keypair_credential))

    def check(self, models: Container[str], queues: list[str]) -> None:
        """Raise ValueError where it does not agree with the rest of the configuration."""
        if sum(x is not None for x in (self.keypair, self.keypair_env, self.keypair_credential)) > 1:
            raise ValueError("gateway: set only one of keypair, keypair_env and keypair_credential")
        for name, key in self.keys.items():
            if unknown := [model for model in key.models or () if model not in models]:
                raise ValueError(f"gateway.keys.{name}: no [models] section for {', '.join(unknown)}")
            if key.record and not (self.has_keypair and queues):
                raise ValueError(f"gateway.keys.{name}: record needs gateway.keypair and a queue in operator.queues")
