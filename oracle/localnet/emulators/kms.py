"""AWS KMS and Google Cloud KMS as far as a key for Ed25519 signatures goes: their wire protocols on one server.

AWS: JSON 1.1, `POST /` with `X-Amz-Target: TrentService.GetPublicKey | Sign` (botocore's model of API 2014-11-01).
Google: REST v1, `GET /v1/NAME/publicKey` and `POST /v1/NAME:asymmetricSign`, and the token endpoint that service
accounts get their tokens from. Requests without a known access key or token are refused, as are other keys, algorithms
and message types than these services take for Ed25519.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from solders.keypair import Keypair
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ACCESS_KEY: Final = "AKIAEMULATOR"
TOKEN: Final = "ya29.emulator"
AWS_KEY: Final = "1234abcd-12ab-34cd-56ef-1234567890ab"
GCP_KEY: Final = "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"

_SPKI: Final = bytes.fromhex("302a300506032b6570032100")


@dataclass
class Kms:
    """One key, known to both services. `faults` are served first: an answer (status, body), seconds of silence, or a
    word: `wrong_signature`, `short_signature`, `html`."""

    keypair: Keypair = field(default_factory=Keypair)
    spec: str = "ECC_NIST_EDWARDS25519"
    faults: list[Any] = field(default_factory=list)
    signed: list[bytes] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens_given: int = 0

    @property
    def encoded_key(self) -> bytes:
        return _SPKI + bytes(self.keypair.pubkey())

    def app(self) -> Starlette:
        routes = [
            Route("/", self._aws, methods=["POST"]),
            Route("/token", self._token, methods=["POST"]),
            Route("/v1/{name:path}", self._gcp, methods=["GET", "POST"]),
        ]
        return Starlette(routes=routes)

    async def _aws(self, request: Request) -> Response:
        operation = request.headers.get("x-amz-target", "")
        self.asked.append(operation)
        known = (
            rf"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/\d{{8}}/[a-z0-9-]+/kms/aws4_request, .*Signature=[0-9a-f]{{64}}"
        )
        if not re.fullmatch(known, request.headers.get("authorization", "")):
            return _aws_error("UnrecognizedClientException", "The security token included in the request is invalid.")
        if (spoilt := await self._spoilt()) is not None:
            return spoilt
        asked = orjson.loads(await request.body())
        if asked.get("KeyId") not in (AWS_KEY, "alias/oracle"):
            return _aws_error("NotFoundException", f"Key {asked.get('KeyId')} does not exist")
        if operation == "TrentService.GetPublicKey":
            return _aws(
                {
                    "KeyId": AWS_KEY,
                    "PublicKey": base64.b64encode(self.encoded_key).decode(),
                    "KeySpec": self.spec,
                    "KeyUsage": "SIGN_VERIFY",
                    "SigningAlgorithms": ["ED25519_SHA_512", "ED25519_PH_SHA_512"],
                }
            )
        if operation != "TrentService.Sign":
            return _aws_error("UnknownOperationException", operation)
        message = base64.b64decode(asked["Message"], validate=True)
        if not 1 <= len(message) <= 4096:
            return _aws_error("ValidationException", "Message must have length between 1 and 4096")
        if (asked.get("SigningAlgorithm"), asked.get("MessageType", "RAW")) != ("ED25519_SHA_512", "RAW"):
            return _aws_error("InvalidKeyUsageException", "The algorithm does not go with the key or message type")
        return _aws({"KeyId": AWS_KEY, "Signature": self._signature(message), "SigningAlgorithm": "ED25519_SHA_512"})

    async def _token(self, request: Request) -> Response:
        form = dict(item.partition("=")[::2] for item in (await request.body()).decode().split("&"))
        if form.get("grant_type") != "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer" or "assertion" not in form:
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        self.tokens_given += 1
        return JSONResponse({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})

    async def _gcp(self, request: Request) -> Response:
        name, method = request.path_params["name"], request.method
        self.asked.append(f"{method} {name}")
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _gcp_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if (spoilt := await self._spoilt()) is not None:
            return spoilt
        if (method, name) == ("GET", f"{GCP_KEY}/publicKey"):
            body = base64.b64encode(self.encoded_key).decode()
            pem = f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"
            return JSONResponse({"pem": pem, "algorithm": "EC_SIGN_ED25519", "name": GCP_KEY})
        if (method, name) == ("POST", f"{GCP_KEY}:asymmetricSign"):
            asked = await request.json()
            if "data" not in asked or "digest" in asked:
                return _gcp_error(400, "INVALID_ARGUMENT", "The key signs data, not a digest.")
            message = base64.b64decode(asked["data"], validate=True)
            return JSONResponse({"signature": self._signature(message), "name": GCP_KEY})
        return _gcp_error(404, "NOT_FOUND", f"{name} not found.")

    def _signature(self, message: bytes) -> str:
        self.signed.append(message)
        word = self.faults.pop(0) if self.faults and isinstance(self.faults[0], str) else ""
        signer = Keypair() if word == "wrong_signature" else self.keypair
        signature = bytes(signer.sign_message(message))
        return base64.b64encode(signature[:63] if word == "short_signature" else signature).decode()

    async def _spoilt(self) -> Response | None:
        if not self.faults or (isinstance(self.faults[0], str) and self.faults[0] != "html"):
            return None
        fault = self.faults.pop(0)
        if fault == "html":
            return Response("<html>503</html>", 200, media_type="text/html")
        if isinstance(fault, int | float):
            await asyncio.sleep(fault)
            return None
        status, body = fault
        return Response(orjson.dumps(body), status, media_type="application/x-amz-json-1.1")


def aws_fault(code: str, status: int = 400) -> tuple[int, dict[str, str]]:
    return status, {"__type": code, "message": f"{code} by an emulator"}


def gcp_fault(status: int, word: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": status, "message": f"{word} by an emulator", "status": word}}


def _aws(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/x-amz-json-1.1")


def _aws_error(code: str, message: str) -> Response:
    return Response(orjson.dumps({"__type": code, "message": message}), 400, media_type="application/x-amz-json-1.1")


def _gcp_error(status: int, word: str, message: str) -> Response:
    return JSONResponse({"error": {"code": status, "message": message, "status": word}}, status)
