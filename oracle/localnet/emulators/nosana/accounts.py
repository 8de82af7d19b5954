"""Who may do what (§4.2)."""

from __future__ import annotations

from dataclasses import dataclass

SCOPES = (
    "credits:read",
    "inference:use",
    "jobs:read",
    "jobs:write",
    "deployments:read",
    "deployments:write",
    "wallet:sign",
    "api-keys:manage",
    "oauth-apps:manage",
)


@dataclass(frozen=True, slots=True)
class Account:
    """A user with one API key and prepaid credits. `address` becomes the `project` of the user's jobs.

    That the project is the user's `generatedAddress` is presumed, not known (§6.5).
    """

    api_key: str = "nos_localnet"
    user_id: str = "user-1"
    address: str = "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF"
    assigned_micro_usd: int = 10_000_000
    scopes: tuple[str, ...] = SCOPES

    def __post_init__(self) -> None:
        if not self.api_key.startswith("nos_"):
            raise ValueError("an API key starts with nos_")
