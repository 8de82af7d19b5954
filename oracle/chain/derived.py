"""Keys that belong to one purchase, derived from the operator's key, so that nothing secret has to be stored.

An account that a purchase creates needs a key that signs for it once. A random key would have to be written down before
it is used, and be kept as a secret; one that is derived is the same after a crash, after a lost database and on another
machine, so that a program that refuses to create an account twice refuses a second purchase too.

The secret is the hash of a signature of the operator's key over a fixed text, which is no transaction: 0xff begins an
off-chain message. Whoever has the operator's key has these keys; nobody else can derive them. Seeds as Nosana's users
make them (specs/nosana.md §6.3): HMAC-SHA256(secret, label ‖ 0 ‖ purchase ‖ 0 ‖ epoch).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Final

from solders.keypair import Keypair

from oracle.chain.signer import Signer
from oracle.core.errors import ErrorCode

SIGNER_NOT_DETERMINISTIC = ErrorCode(
    "ORC-SIGNER-004",
    "Signer does not sign the same twice",
    "Keys of purchases are derived from a signature of the operator's key, and the signer makes another one each time.",
    "Use a signer that signs as RFC 8032 says, as a keypair file does; or buy nothing at providers paid on chain.",
)

TEXT: Final = b"\xffinference oracle: keys of purchases, version 1"
_EPOCH: Final = b"0"


class DerivedKeys:
    """Keypairs by label and purchase. Like the `Signer` that it holds, it never shows a secret."""

    __slots__ = ("__secret", "_lock", "_signer")

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._lock = asyncio.Lock()
        self.__secret: bytes | None = None

    async def keypair(self, label: str, purchase: str) -> Keypair:
        """Raises ORC-SIGNER-004."""
        return Keypair.from_seed(seed(await self._secret(), label, purchase))

    async def _secret(self) -> bytes:
        async with self._lock:
            if self.__secret is None:
                await self._signer.ready()
                first, second = [await self._signer.sign(TEXT) for _ in range(2)]
                if first != second:
                    raise SIGNER_NOT_DETERMINISTIC(f"operator {self._signer.public_key}")
                self.__secret = hashlib.sha256(first).digest()
            return self.__secret

    def __repr__(self) -> str:
        return f"DerivedKeys({self._signer.public_key})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("derived keys are not pickled: they hold a secret")


def seed(secret: bytes, label: str, purchase: str) -> bytes:
    """The ed25519 seed, 32 bytes."""
    return hmac.new(secret, b"\0".join((label.encode(), purchase.encode(), _EPOCH)), hashlib.sha256).digest()
