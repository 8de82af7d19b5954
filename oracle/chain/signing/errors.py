"""What can go wrong with a key that another process or a service holds."""

from __future__ import annotations

from oracle.core.errors import ErrorCode, Verdict

SIGNER_UNAVAILABLE = ErrorCode(
    "ORC-SIGNER-005",
    "The signer does not answer",
    "The service or process that holds the key is out of reach, too slow, failing, or limits our rate.",
    "It is asked again, ever more slowly. If it stays: is the process up, the service well, the quota large enough?",
    Verdict.RETRY,
)
SIGNER_REFUSES = ErrorCode(
    "ORC-SIGNER-006",
    "The signer refuses",
    "Who holds the key answered that it will not sign: no permission, no such key, or the key is disabled.",
    "The detail has its own words. Correct the key's name, its state, or what this machine's identity may do with it.",
    Verdict.RETRY,
)
SIGNATURE_WRONG = ErrorCode(
    "ORC-SIGNER-007",
    "The signer's answer is wrong",
    "The signature does not verify with the public key that the signer gave at start, or is none at all.",
    "Nothing was sent. Does the name lead to another key or version by now? Restart the daemon if that is meant.",
    Verdict.RETRY,
)
KEY_UNSUITABLE = ErrorCode(
    "ORC-SIGNER-008",
    "Not an Ed25519 key",
    "The service holds a key of another kind: Solana has no other signatures than Ed25519.",
    "Make a key of spec ECC_NIST_EDWARDS25519 (AWS) or algorithm EC_SIGN_ED25519 (Google) for signing.",
)
EXTRA_MISSING = ErrorCode(
    "ORC-SIGNER-009",
    "A library for this signer is not installed",
    "The configuration names a remote signer whose client library is an optional extra.",
    "Install the oracle with the extra that the detail names.",
)
SIGNED_TOO_LATE = ErrorCode(
    "ORC-SIGNER-014",
    "The signer was too slow for the deadline",
    "When the signature came, a deadline in the transaction was nearer than the configured margin.",
    "Nothing was sent, and what is in time is signed anew. If it repeats, see the signer's latency.",
    Verdict.RETRY,
)
NO_SOCKET = ErrorCode(
    "ORC-SIGNER-015",
    "Not a signing socket",
    "What lies at operator.socket is no Unix socket.",
    "Is `oracle signer serve` up? Name in operator.socket the path that it prints.",
)
SOCKET_TAKEN = ErrorCode(
    "ORC-SIGNER-016",
    "The signing socket cannot be opened",
    "Another server listens at the path, something else lies there, or its directory cannot be written.",
    "Stop the other server, or name another path.",
)

# RFC 8410: a SubjectPublicKeyInfo of Ed25519 is this and the 32 bytes of the key.
SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
