"""Codes of the command line."""

from __future__ import annotations

from oracle.core.errors import ErrorCode

FILE_EXISTS = ErrorCode(
    "ORC-CLI-001",
    "File exists",
    "The file to be written is there already.",
    "Name another file, or delete this one first: nothing is overwritten.",
)
REQUEST_UNKNOWN = ErrorCode(
    "ORC-CLI-002",
    "This database does not know the request",
    "The operator's database has no row for the address.",
    "Is it the right --config? `oracle verify` looks at the chain instead.",
)
WALLET_MISSING = ErrorCode(
    "ORC-CLI-003",
    "No wallet",
    "The keypair file that signs and pays for this command does not exist or cannot be read.",
    "Name one with --keypair or ORACLE_KEYPAIR. `solana-keygen new` makes one; `oracle localnet` has one with money.",
)
FILE_NOT_WRITTEN = ErrorCode(
    "ORC-CLI-004",
    "File cannot be written",
    "The system refused to write the file.",
    "Name another file with --output, or mend the directory's permissions.",
)
REQUEST_OPEN = ErrorCode(
    "ORC-CLI-005",
    "The request is still open",
    "It may yet be answered: its deadline has not passed.",
    "Wait for its deadline, and run the command again.",
)
PROVIDER_UNKNOWN = ErrorCode(
    "ORC-CLI-008",
    "No such provider",
    "The configuration has no `[providers.NAME]` or `[sources.NAME]` section of this name.",
    "Is it the right --config? `oracle providers` lists those that there are.",
)
TRIAL_UNCONFIRMED = ErrorCode(
    "ORC-CLI-009",
    "Not confirmed",
    "The job would cost something, and nobody has said yes to that.",
    "Answer y when asked, or give --yes, best with --max-lamports.",
)
NO_SUCH_USER = ErrorCode(
    "ORC-CLI-006",
    "No such user",
    "This machine has no user of the name that was given.",
    "Name the user that the daemon runs as, or its number (`id -u`).",
)
OPTION_NOT_FOR_THIS = ErrorCode(
    "ORC-CLI-007",
    "The option means nothing here",
    "What was named has no use for the option, and to ignore it would be a surprise.",
    "Leave the option out, or name what it is for.",
)
