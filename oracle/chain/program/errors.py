"""The binding's own error codes (ORC-CHAIN-1xx), and the names of the refusals that the program logs as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from oracle.chain.program.anchor_errors import ANCHOR_ERRORS
from oracle.core.errors import ErrorCode

ACCOUNT_OF_ANOTHER_KIND: Final = ErrorCode(
    "ORC-CHAIN-101",
    "Not the expected kind of account",
    "The address names another account than the one that was asked for, or the program id is not the oracle's.",
    "Check the address, and `program_id` in the configuration.",
)
ACCOUNT_VERSION_UNKNOWN: Final = ErrorCode(
    "ORC-CHAIN-102",
    "Unknown account version",
    "The program was upgraded to an account layout that this release does not know.",
    "Upgrade the oracle.",
)
ACCOUNT_MALFORMED: Final = ErrorCode(
    "ORC-CHAIN-103",
    "Malformed account",
    "The RPC endpoint sent part of an account, or bytes that the program cannot have written.",
    "Compare with another endpoint; if they agree, report it with the account's address.",
)
BODY_MALFORMED: Final = ErrorCode(
    "ORC-CHAIN-104",
    "Malformed request body",
    "The bytes are not the borsh encoding of a request body.",
    "Compare with another endpoint; if they agree, report it with the request's address.",
)
VALUE_UNENCODABLE: Final = ErrorCode(
    "ORC-CHAIN-105",
    "A value does not fit the program's format",
    "A number is out of its range, a hash is not 32 bytes, or a text or list is too long.",
    "Correct the value that the message names.",
)
IDL_UNUSABLE: Final = ErrorCode(
    "ORC-CHAIN-106",
    "The IDL cannot be used",
    "The file is not an Anchor IDL 0.1.0, or it uses what anchorpy cannot express (generics, tuple structs, 256-bit"
    " integers, custom discriminators, padded zero-copy types).",
    "Build the IDL with Anchor 0.30 or newer, and keep accounts and arguments plain borsh.",
)
CODEC_DISAGREES: Final = ErrorCode(
    "ORC-CHAIN-107",
    "The codec disagrees with the IDL",
    "The IDL in use is not the one this release was written for.",
    "Install the oracle again, or use the IDL and the program of the same release.",
)
MAPPING_INVALID: Final = ErrorCode(
    "ORC-CHAIN-108",
    "The program mapping is invalid",
    "`[program.mapping]` names something that its IDL does not have, or a field of an unsuitable type.",
    "Correct the entry that the message names.",
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A custom error number with its name and message. `name` is `Custom<code>` where nobody has named it."""

    code: int
    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name} ({self.code}): {self.message}"


# What a CPI into the system program fails with (solana-system-interface, `SystemError`): it reaches us as our own code.
_SYSTEM_ERRORS: Final = {
    0: ("AccountAlreadyInUse", "an account with this address already exists"),
    1: ("ResultWithNegativeLamports", "the payer does not hold enough lamports"),
    2: ("InvalidProgramId", "a program cannot be assigned to this account"),
    3: ("InvalidAccountDataLength", "the account cannot hold so much data"),
    4: ("MaxSeedLengthExceeded", "a seed is too long"),
    5: ("AddressWithSeedMismatch", "the address does not match the seed"),
}


def explain(code: int) -> Refusal:
    """The refusal behind custom error `code` of the built-in program, of Anchor, or of the system program."""
    known = _program_errors().get(code) or ANCHOR_ERRORS.get(code) or _SYSTEM_ERRORS.get(code)
    name, message = known or (f"Custom{code}", "an error that neither the program's IDL nor Anchor names")
    return Refusal(code, name, message)


def code_of(name: str) -> int:
    """The number of the program's or Anchor's error `name`. Raises `KeyError` if there is none: names are constants."""
    for table in (_program_errors(), ANCHOR_ERRORS):
        for code, (known, _) in table.items():
            if known == name:
                return code
    raise KeyError(name)


@cache
def _program_errors() -> dict[int, tuple[str, str]]:
    # Imported late: `idl` raises the codes of this module.
    from oracle.chain.program.idl import built_in

    return {error["code"]: (error["name"], error.get("msg", "")) for error in built_in()["errors"]}
