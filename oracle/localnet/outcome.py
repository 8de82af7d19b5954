"""What became of one transaction in the virtual machine."""

from __future__ import annotations

from dataclasses import dataclass

from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction_metadata import InnerInstruction

from oracle.localnet.message import NO_ACCOUNTS, Accounts
from oracle.localnet.transaction_error import TransactionError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one transaction, or would have become of it.

    `err` is `None`, or the transaction error as the RPC prints it, for example
    `{"InstructionError": [0, {"Custom": 6000}]}`. `included` says whether a cluster would have put the transaction into
    a block: only then has it a status, and has paid `fee_lamports`. `inner_instructions` has one list per instruction.
    `before` and `after` are the states of `accounts.keys`, in that order, `None` where there is no account.
    """

    err: TransactionError | None
    included: bool
    logs: tuple[str, ...] = ()
    units_consumed: int = 0
    return_data: tuple[Pubkey, bytes] | None = None
    inner_instructions: tuple[tuple[InnerInstruction, ...], ...] = ()
    fee_lamports: int = 0
    accounts: Accounts = NO_ACCOUNTS
    before: tuple[Account | None, ...] = ()
    after: tuple[Account | None, ...] = ()

    @property
    def ok(self) -> bool:
        return self.err is None

    @property
    def custom_error(self) -> int | None:
        """The program's own error code (6000 and up for Anchor programs), if that is why it failed."""
        match self.err:
            case {"InstructionError": [_, {"Custom": int(code)}]}:
                return code
            case _:
                return None

    @property
    def pre_balances(self) -> list[int]:
        """Lamports of each account before the transaction and its fee."""
        return [account.lamports if account else 0 for account in self.before]

    @property
    def post_balances(self) -> list[int]:
        return [account.lamports if account else 0 for account in self.after]

    @property
    def changed(self) -> dict[Pubkey, Account | None]:
        """The accounts that are not what they were, with their new state."""
        states = zip(self.accounts.keys, self.before, self.after, strict=True)
        return {key: after for key, before, after in states if before != after}
