"""A key in Google Cloud KMS: `getPublicKey` and `asymmetricSign` of its REST API v1, with google-auth in a thread.

A key version of algorithm EC_SIGN_ED25519 signs the message itself, given as `data`, and not a digest. The checksums
that the API offers are left out: the signature is verified, which says more.
Source: docs.cloud.google.com/kms/docs/reference/rest/v1, …cryptoKeyVersions.asymmetricSign and .getPublicKey.
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any, Final

from solders.pubkey import Pubkey

from oracle.chain.signing.errors import EXTRA_MISSING, KEY_UNSUITABLE, SIGNER_REFUSES, SIGNER_UNAVAILABLE, SPKI_PREFIX

TIMEOUT_SECONDS: Final = 3.0
_SCOPE: Final = "https://www.googleapis.com/auth/cloudkms"
_VERSION: Final = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+/cryptoKeyVersions/\d+")


class GcpKms:
    """A backend over one key version. Credentials are the application default ones."""

    def __init__(self, version: str, endpoint: str) -> None:
        try:
            import google.auth
            from google.auth.exceptions import GoogleAuthError
            from google.auth.transport.requests import AuthorizedSession
        except ImportError:
            raise EXTRA_MISSING("gcp") from None
        if not _VERSION.fullmatch(version):
            raise SIGNER_REFUSES(f"{version!r} is not projects/…/cryptoKeyVersions/N")
        self._version = version
        self._url = f"{endpoint.rstrip('/')}/v1/{version}"
        try:
            credentials, _ = google.auth.default(scopes=[_SCOPE])
        except (GoogleAuthError, OSError, ValueError) as error:
            raise SIGNER_REFUSES(f"no application default credentials: {type(error).__name__}") from None
        self._session: Any = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]

    @property
    def name(self) -> str:
        return f"Google Cloud KMS {self._version}"

    async def public_key(self) -> Pubkey:
        answer = await asyncio.to_thread(self._call, "GET", f"{self._url}/publicKey", None)
        try:
            body = "".join(line for line in str(answer.get("pem")).splitlines() if not line.startswith("-----"))
            encoded = base64.b64decode(body, validate=True)
        except ValueError:
            encoded = b""
        if not encoded.startswith(SPKI_PREFIX) or len(encoded) != len(SPKI_PREFIX) + 32:
            raise KEY_UNSUITABLE(f"{self.name}: {answer.get('algorithm')}")
        return Pubkey.from_bytes(encoded[len(SPKI_PREFIX) :])

    async def sign(self, message: bytes, micro_nos: int) -> bytes:
        asked = {"data": base64.b64encode(message).decode()}
        answer = await asyncio.to_thread(self._call, "POST", f"{self._url}:asymmetricSign", asked)
        try:
            return base64.b64decode(str(answer.get("signature")), validate=True)
        except ValueError:
            return b""

    async def close(self) -> None:
        await asyncio.to_thread(self._session.close)

    def _call(self, method: str, url: str, body: dict[str, str] | None) -> dict[str, Any]:
        from google.auth.exceptions import GoogleAuthError, TransportError
        from requests.exceptions import RequestException

        try:
            response = self._session.request(
                method, url, json=body, timeout=TIMEOUT_SECONDS, max_allowed_time=TIMEOUT_SECONDS, allow_redirects=False
            )
            answer = response.json()
        except (TransportError, RequestException, ValueError) as error:  # what is no JSON among them
            raise SIGNER_UNAVAILABLE(f"{self.name}: {type(error).__name__}") from None
        except GoogleAuthError as error:
            retry = getattr(error, "retryable", False)
            raise (SIGNER_UNAVAILABLE if retry else SIGNER_REFUSES)(f"{self.name}: {type(error).__name__}") from None
        if response.status_code == 200 and isinstance(answer, dict):
            return answer
        told = answer.get("error") if isinstance(answer, dict) else None
        words = f"{told.get('status')}: {told.get('message')}" if isinstance(told, dict) else "no reason given"
        may_pass = response.status_code == 429 or response.status_code >= 500
        detail = f"{self.name}: HTTP {response.status_code} {words}"[:300]
        raise (SIGNER_UNAVAILABLE if may_pass else SIGNER_REFUSES)(detail)
