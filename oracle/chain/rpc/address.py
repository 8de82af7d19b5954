"""Where an endpoint is. Its URL may carry an API key, so only the host is ever shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from oracle.chain.rpc.errors import BAD_URL

_SHORTEST_SECRET: Final = 8


@dataclass(frozen=True, slots=True)
class Address:
    """A URL split into what may be shown (`name`, `origin`) and what may not."""

    name: str
    """Host, and port where one is given."""
    origin: str = field(repr=False)
    url: str = field(repr=False)
    is_loopback: bool

    def scrub(self, text: str) -> str:
        """Take the secret parts of the URL out of a text from outside, such as an error message, and keep it short."""
        for secret in sorted(_secrets(self.url), key=len, reverse=True):
            text = text.replace(secret, "***")
        text = re.sub(r"[^\x20-\x7e]+", " ", text)
        return text if len(text) <= 300 else f"{text[:300]}…"


def address(url: str, schemes: tuple[str, ...] = ("http", "https")) -> Address:
    """Check and split `url`. Raises ORC-RPC-016, which does not show the URL either."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BAD_URL("it cannot be parsed") from None
    if parts.scheme not in schemes or not host:
        raise BAD_URL(f"expected {' or '.join(f'{scheme}://' for scheme in schemes)} and a host")
    shown = f"[{host}]" if ":" in host else host
    name = shown if port is None else f"{shown}:{port}"
    loopback = host in ("localhost", "::1") or host.startswith("127.")
    return Address(name, f"{parts.scheme}://{name}", url.strip(), loopback)


def _secrets(url: str) -> set[str]:
    parts = urlsplit(url)
    pieces = {parts.path, parts.query, *parts.path.split("/"), *(value for _, value in parse_qsl(parts.query))}
    pieces |= {parts.username or "", parts.password or ""}
    return {piece for piece in pieces if len(piece) >= _SHORTEST_SECRET}
