"""The operator's key: where it comes from, and the only object that may use it.

`str(Keypair)` of solders is the secret key itself, so a keypair never leaves this module: what the daemon passes
around is a `Signer`, whose repr shows the public key.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Final, Protocol

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.core.errors import ErrorCode

KEY_MISSING = ErrorCode(
    "ORC-SIGNER-001",
    "No operator key",
    "The configuration names no key, or the file, variable or credential that it names does not exist.",
    "Set operator.keypair, keypair_env or keypair_credential; `solana-keygen new` makes a key.",
)
KEY_INVALID = ErrorCode(
    "ORC-SIGNER-002",
    "Operator key cannot be read",
    "The content is neither a JSON array of 64 numbers nor a base58 secret key, or its two halves disagree.",
    "Point at the keypair file that `solana-keygen` wrote.",
)
KEY_EXPOSED = ErrorCode(
    "ORC-SIGNER-003",
    "Operator key is readable by others",
    "The keypair file may be read or written by its group or by everyone on this machine.",
    "Run `chmod 600` on the file, and consider the key known to whoever could read it.",
)


MAX_FILE_BYTES: Final = 65_536
"""A key is a thousandth of it: whatever is larger is something else, and need not be read to its end."""


class Signer(Protocol):
    """Signs transaction messages with one key. May be slow, as a remote one is: fetch the blockhash after `ready`."""

    @property
    def public_key(self) -> Pubkey: ...

    @property
    def trouble(self) -> str | None:
        """What keeps it from signing, as far as it knows; None while nothing does."""
        ...

    async def ready(self) -> None: ...

    async def sign(self, message: bytes, *, micro_nos: int = 0) -> bytes:
        """`micro_nos` is what the transaction takes in NOS tokens: the spend policy cannot read it from the bytes."""
        ...


class Closable(Signer, Protocol):
    """A signer that whoever opened it closes."""

    async def close(self) -> None: ...


class KeypairSigner:
    """A key held in this process."""

    __slots__ = ("__keypair", "__public_key")

    def __init__(self, keypair: Keypair) -> None:
        self.__keypair = keypair
        # solders derives it anew whenever it is asked, and it is asked for at every step of every request.
        self.__public_key = keypair.pubkey()

    @property
    def public_key(self) -> Pubkey:
        return self.__public_key

    @property
    def trouble(self) -> None:
        return None

    async def ready(self) -> None:
        return None

    async def sign(self, message: bytes, *, micro_nos: int = 0) -> bytes:
        return bytes(self.__keypair.sign_message(message))

    async def close(self) -> None:
        return None

    def __repr__(self) -> str:
        return f"KeypairSigner({self.public_key})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a signer is not pickled: it holds a secret")


def from_file(path: Path) -> KeypairSigner:
    """The key of a Solana CLI keypair file. Raises ORC-SIGNER-001 … 003."""
    return KeypairSigner(read_keypair(path))


def read_keypair(path: Path) -> Keypair:
    """The bare key of a file, for the requester's side. Raises ORC-SIGNER-001 … 003."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise KEY_MISSING(f"{path}: {error.strerror}") from None
    if mode & 0o077:
        raise KEY_EXPOSED(f"{path} has mode {mode:04o}")
    return _parse(content, str(path))


def from_environment(name: str) -> KeypairSigner:
    """The key in an environment variable. Raises ORC-SIGNER-001 or 002."""
    text = os.environ.get(name)
    if not text:
        raise KEY_MISSING(f"environment variable {name} is not set")
    return from_text(text, f"environment variable {name}")


def from_credential(name: str) -> KeypairSigner:
    """The key in a systemd credential (`LoadCredential=`). Raises ORC-SIGNER-001 or 002."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory is None:
        raise KEY_MISSING("CREDENTIALS_DIRECTORY is not set: not started by systemd with LoadCredential=")
    try:
        with (Path(directory) / name).open("rb") as file:
            content = file.read(MAX_FILE_BYTES)
    except OSError:
        raise KEY_MISSING(f"no systemd credential {name!r}") from None
    return KeypairSigner(_parse(content, f"credential {name}"))


def from_text(text: str, origin: str) -> KeypairSigner:
    """The key in `text`. `origin` names the place in errors, which never repeat the content."""
    return KeypairSigner(_parse(text.encode(errors="replace"), origin))


def _parse(content: bytes, origin: str) -> Keypair:
    try:
        text = content.decode("utf-8-sig").strip()
        if text.startswith("["):
            return Keypair.from_bytes(bytes(json.loads(text)))
        return Keypair.from_base58_string(text)
    except Exception:  # solders raises several types, whose messages may quote the key
        raise KEY_INVALID(origin) from None
