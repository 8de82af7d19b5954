"""Which changes of an account's balance and size a cluster allows: the rent states of Agave (`svm-rent-collector`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from solders.account import Account
from solders.pubkey import Pubkey

INCINERATOR = Pubkey.from_string("1nc1nerator11111111111111111111111111111111")

MinimumBalance = Callable[[int], int]
"""From a data length in bytes to the rent-exempt minimum in lamports."""


def transition_allowed(before: Account | None, after: Account | None, minimum_balance: MinimumBalance) -> bool:
    """Whether an account may go from one state to the other in one transaction.

    An account may always end empty or rent-exempt. It may stay below the rent-exempt minimum only if it was there
    before, keeps its size and is not credited. `None` is an account that does not exist.
    """
    if after is None or after.lamports == 0 or after.lamports >= minimum_balance(len(after.data)):
        return True
    if before is None or before.lamports == 0 or before.lamports >= minimum_balance(len(before.data)):
        return False
    return len(after.data) == len(before.data) and after.lamports <= before.lamports


def first_violation(
    addresses: Sequence[Pubkey],
    writable: Sequence[bool],
    before: Sequence[Account | None],
    after: Sequence[Account | None],
    minimum_balance: MinimumBalance,
) -> int | None:
    """Index of the first writable account that a transaction leaves in a forbidden rent state, in message order.

    `before` is the state after the fee was taken and before the first instruction ran, as on a cluster.
    """
    for index, address in enumerate(addresses):
        if not writable[index] or address == INCINERATOR:
            continue
        if not transition_allowed(before[index], after[index], minimum_balance):
            return index
    return None
