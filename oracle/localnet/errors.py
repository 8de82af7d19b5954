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
FORK_TOO_DEEP = ErrorCode(
    "ORC-LOCALNET-003",
    "Fork too deep",
    "A test asked to drop slots that are confirmed; a cluster does not take those back.",
    "Drop fewer slots, or give the chain a longer `confirmed_lag_slots`.",
)
PORTS_TAKEN = ErrorCode(
    "ORC-LOCALNET-004",
    "Ports taken",
    "A chain listens on two neighbouring ports, and another process has one of them.",
    "Stop that process, or choose another port.",
)
PORT_TAKEN = ErrorCode(
    "ORC-LOCALNET-005",
    "Port taken",
    "The emulator's port is taken by another process.",
    "Choose another port, or 0 for any free one.",
)
