"""The envelope of answers that tell at which slot they are true."""

from typing import Any

API_VERSION = "2.2.0"
"""The Agave release whose runtime LiteSVM of solders 0.26 embeds."""


def in_context(slot: int, value: Any) -> dict[str, Any]:
    return {"context": {"slot": slot, "apiVersion": API_VERSION}, "value": value}
