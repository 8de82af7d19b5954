"""A key in AWS KMS: `GetPublicKey` and `Sign` of API 2014-11-01, through boto3 in a thread.

Ed25519 keys have the spec ECC_NIST_EDWARDS25519 and sign with ED25519_SHA_512, which takes the message itself
(MessageType RAW, at most 4,096 bytes) and gives the 64 bytes of RFC 8032 (docs.aws.amazon.com/kms, `Sign`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from solders.pubkey import Pubkey

from oracle.chain.signing.errors import EXTRA_MISSING, KEY_UNSUITABLE, SIGNER_REFUSES, SIGNER_UNAVAILABLE, SPKI_PREFIX
from oracle.core.errors import OracleError

CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 3.0

_MAY_PASS: Final = frozenset(
    {
        "ThrottlingException",
        "LimitExceededException",
        "KMSInternalException",
        "DependencyTimeoutException",
        "KeyUnavailableException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "InternalFailure",
        "RequestTimeout",
        "RequestTimeoutException",
    }
)


class AwsKms:
    """A backend over one key. Region and credentials are found as boto3 finds them."""

    def __init__(self, key: str) -> None:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise EXTRA_MISSING("aws") from None
        self._key = key
        config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"total_max_attempts": 1})
        try:
            self._client = boto3.session.Session().client("kms", config=config)
        except (BotoCoreError, ValueError) as error:
            raise SIGNER_REFUSES(f"{self.name}: {error}") from None

    @property
    def name(self) -> str:
        return f"AWS KMS {self._key}"

    async def public_key(self) -> Pubkey:
        encoded, answer = await self._call("PublicKey", lambda: self._client.get_public_key(KeyId=self._key))
        if not encoded.startswith(SPKI_PREFIX) or len(encoded) != len(SPKI_PREFIX) + 32:
            raise KEY_UNSUITABLE(f"{self.name}: {answer.get('KeySpec')}")
        return Pubkey.from_bytes(encoded[len(SPKI_PREFIX) :])

    async def sign(self, message: bytes, micro_nos: int) -> bytes:
        signature, _ = await self._call(
            "Signature",
            lambda: self._client.sign(
                KeyId=self._key, Message=message, MessageType="RAW", SigningAlgorithm="ED25519_SHA_512"
            ),
        )
        return signature

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def _call(self, expected: str, call: Callable[[], Any]) -> tuple[bytes, dict[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
        from botocore.parsers import ResponseParserError

        try:
            answer: dict[str, Any] = await asyncio.to_thread(call)
        except ClientError as error:
            raise self._refusal(error.response) from None
        except (HTTPClientError, ConnectionError, ResponseParserError) as error:
            raise SIGNER_UNAVAILABLE(f"{self.name}: {type(error).__name__}") from None
        except BotoCoreError as error:
            raise SIGNER_REFUSES(f"{self.name}: {error}") from None
        if expected not in answer:  # a proxy's page, with status 200
            raise SIGNER_UNAVAILABLE(f"{self.name}: no {expected} in its answer")
        return bytes(answer[expected]), answer

    def _refusal(self, response: Any) -> OracleError:
        told, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
        code, status = str(told.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
        detail = f"{self.name}: {code}: {told.get('Message', '')}"[:300]
        return (SIGNER_UNAVAILABLE if code in _MAY_PASS or status >= 500 or status == 429 else SIGNER_REFUSES)(detail)
