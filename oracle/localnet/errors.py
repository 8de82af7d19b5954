"""The ways in which the embedded chain refuses its operator. What it refuses a client is a JSON-RPC error."""

from oracle.core.errors import ErrorCode

PROGRAM_UNLOADABLE = ErrorCode(
    "ORC-LOCALNET-001",
    "Program cannot be loaded",
    "The bytes are not an ELF that the virtual machine accepts: a wrong file, a truncated one, or SBPF version 3.",
    "Build the program with `anchor build` (or `make program`) and pass the `.so` under target/deploy.",
)
TRANSACTION_TOO_LARGE = ErrorCode(
    "ORC-LOCALNET-002",
    "Transaction too large",
    "A serialised transaction is longer than the 1,232 bytes that a cluster accepts in one packet.",
    "Put fewer instructions into it, or use an address lookup table.",
)
