"""A certificate authority that lives as long as a test: X.509 (RFC 5280) with Ed25519 (RFC 8410), written by hand.

No library of the environment writes certificates, and a machine need not have the `openssl` command.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from solders.keypair import Keypair

SEQUENCE, SET, INTEGER, BITS, OCTETS, OID, UTF8, TIME, BOOLEAN = 0x30, 0x31, 0x02, 0x03, 0x04, 0x06, 0x0C, 0x18, 0x01
ED25519, COMMON_NAME = b"\x2b\x65\x70", b"\x55\x04\x03"
SUBJECT_KEY, KEY_USAGE, ALTERNATIVE_NAME, CONSTRAINTS, AUTHORITY_KEY = (
    b"\x55\x1d" + bytes([last]) for last in (0x0E, 0x0F, 0x11, 0x13, 0x23)
)


class ThrowawayCA:
    """Signs certificates for servers of tests; `trusting` gives clients that believe it and nobody else."""

    def __init__(self, directory: Path, name: str = "throwaway test authority") -> None:
        self._directory = directory
        self._key = Keypair()
        self._name = _name(name)
        constraints = _extension(CONSTRAINTS, _der(SEQUENCE, _der(BOOLEAN, b"\xff")), critical=True)
        usage = _extension(KEY_USAGE, _der(BITS, b"\x02\x04"), critical=True)
        self.pem = _pem("CERTIFICATE", self._certificate(self._key, self._name, constraints, usage, days=1))

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.pem)

    def server(self, *hosts: str, days: int = 1) -> ssl.SSLContext:
        """The context of a server with a certificate for `hosts`, names or addresses; expired where `days` < 0."""
        key = Keypair()
        names = _extension(ALTERNATIVE_NAME, _der(SEQUENCE, *map(_alternative, hosts)))
        certificate = self._certificate(key, _name(hosts[0]), names, days=days)
        algorithm = _der(SEQUENCE, _der(OID, ED25519))
        secret = _der(SEQUENCE, _der(INTEGER, b"\0"), algorithm, _der(OCTETS, _der(OCTETS, key.secret())))
        file = self._directory / f"{hosts[0].replace(':', '_')}-{days}.pem"
        file.write_text(_pem("CERTIFICATE", certificate) + _pem("PRIVATE KEY", secret))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _certificate(self, key: Keypair, subject: bytes, *extensions: bytes, days: int) -> bytes:
        algorithm = _der(SEQUENCE, _der(OID, ED25519))
        public = bytes(key.pubkey())
        now = datetime.now(UTC)
        validity = _der(
            SEQUENCE, _time(now - timedelta(days=abs(days))), _time(now + timedelta(days=days, seconds=-60))
        )
        ours = _extension(SUBJECT_KEY, _der(OCTETS, _id(public)))
        issuers = _extension(AUTHORITY_KEY, _der(SEQUENCE, _der(0x80, _id(bytes(self._key.pubkey())))))
        body = _der(
            SEQUENCE,
            _der(0xA0, _der(INTEGER, b"\x02")),
            _der(INTEGER, b"\x01" + public[:8]),
            algorithm,
            self._name,
            validity,
            subject,
            _der(SEQUENCE, algorithm, _der(BITS, b"\0" + public)),
            _der(0xA3, _der(SEQUENCE, *extensions, ours, issuers)),
        )
        return _der(SEQUENCE, body, algorithm, _der(BITS, b"\0" + bytes(self._key.sign_message(body))))


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _name(text: str) -> bytes:
    return _der(SEQUENCE, _der(SET, _der(SEQUENCE, _der(OID, COMMON_NAME), _der(UTF8, text.encode()))))


def _time(moment: datetime) -> bytes:
    return _der(TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _id(public: bytes) -> bytes:
    return hashlib.sha256(public).digest()[:20]


def _alternative(host: str) -> bytes:
    try:
        return _der(0x87, ipaddress.ip_address(host).packed)
    except ValueError:
        return _der(0x82, host.encode())


def _extension(oid: bytes, value: bytes, *, critical: bool = False) -> bytes:
    flag = _der(BOOLEAN, b"\xff") if critical else b""
    return _der(SEQUENCE, _der(OID, oid), flag, _der(OCTETS, value))


def _pem(kind: str, der: bytes) -> str:
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(der).decode()}-----END {kind}-----\n"
