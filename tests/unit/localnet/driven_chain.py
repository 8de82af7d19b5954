"""A clock that the test drives, and transactions for a chain of its own."""

from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

SOL = 10**9
START = 1_700_000_000.0


class DrivenClock:
    """Unix time in seconds that stands still until it is told to pass."""

    def __init__(self) -> None:
        self.seconds = START

    def __call__(self) -> float:
        return self.seconds

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds


def pay(payer: Keypair, to: Pubkey, lamports: int, blockhash: Hash, *first: Instruction) -> VersionedTransaction:
    """A signed transfer, after any other instructions."""
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports))
    return VersionedTransaction(MessageV0.try_compile(payer.pubkey(), [*first, instruction], [], blockhash), [payer])
