"""What a value of the configuration may be. No message repeats the value: it may be a secret."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from solders.hash import Hash, ParseHashError
from solders.pubkey import Pubkey


def _address(value: str) -> str:
    try:
        return str(Pubkey.from_string(value))
    except ValueError:
        raise ValueError("not a base58 address of 32 bytes") from None


def _genesis(value: str) -> str:
    try:
        return str(Hash.from_string(value))
    except (ValueError, ParseHashError):
        raise ValueError("not a base58 hash of 32 bytes") from None


def _once(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise ValueError("an address stands there twice")
    return values


def _web(value: SecretStr) -> SecretStr:
    _host_of(value.get_secret_value(), ("http", "https"))
    return value


def _private_web(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    _host_of(url, ("http", "https"))
    if urlsplit(url).scheme == "http" and not _is_loopback(urlsplit(url).hostname or ""):
        raise ValueError("expected https://, since http:// is for this machine only")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _socket(value: SecretStr) -> SecretStr:
    _host_of(value.get_secret_value(), ("ws", "wss"))
    return value


def _base_uri(value: str) -> str:
    _host_of(value, ("http", "https"))
    if len(value) > 128 or not value.isascii() or not value.isprintable() or set(value) & set(" ?#@"):
        raise ValueError("at most 128 printable ASCII characters, without spaces, user name, query and fragment")
    return value


def _host_of(url: str, schemes: tuple[str, ...]) -> None:
    expected = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(url)
        known = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"expected {expected} and a host")


def _database(url: str) -> str:
    path = url.removeprefix("sqlite:///")
    if path != url and (not path or path == ":memory:"):
        raise ValueError("a database in memory would forget what it has paid for: give it a file")
    if not url.startswith(("sqlite:///", "postgresql://", "postgresql+asyncpg://")):
        raise ValueError("expected sqlite:///PATH or postgresql+asyncpg://…")
    return url


def without_secrets(url: str) -> str:
    """A database URL as it may be shown: no user, no password, no query."""
    scheme, _, rest = url.partition("://")
    return url if scheme == "sqlite" else f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _filled(value: object) -> object:
    """`${NAME}` becomes the environment variable: keys and passwords inside a URL need not stand in the file."""

    def look_up(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise ValueError(f"environment variable {match[1]} is not set") from None

    return re.sub(r"\$\{(\w+)\}", look_up, value) if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(_address)]
Addresses = Annotated[list[Address], AfterValidator(_once)]
GenesisHash = Annotated[str, AfterValidator(_genesis)]
WebUrl = Annotated[SecretStr, BeforeValidator(_filled), AfterValidator(_web)]
PrivateWebUrl = Annotated[SecretStr, BeforeValidator(_filled), AfterValidator(_private_web)]
SocketUrl = Annotated[SecretStr, BeforeValidator(_filled), AfterValidator(_socket)]
DatabaseUrl = Annotated[str, BeforeValidator(_filled), AfterValidator(_database)]
BaseUri = Annotated[str, AfterValidator(_base_uri)]
