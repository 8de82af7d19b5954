"""The rent states of Agave, transition by transition (`svm-rent-collector/src/rent_state.rs`)."""

import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from oracle.localnet.rent import INCINERATOR, first_violation, transition_allowed

OWNER = Pubkey.from_bytes(bytes([7] * 32))


def minimum_balance(data_len: int) -> int:
    return (128 + data_len) * 6_960


def paying(lamports: int, data_len: int = 100) -> Account:
    return Account(lamports, bytes(data_len), OWNER)


EXEMPT = paying(minimum_balance(100))


@pytest.mark.parametrize("before", [None, EXEMPT, paying(5), paying(0)])
@pytest.mark.parametrize("after", [None, EXEMPT, paying(0), paying(minimum_balance(100) + 1)])
def test_an_account_may_always_end_empty_or_rent_exempt(before: Account | None, after: Account | None) -> None:
    assert transition_allowed(before, after, minimum_balance)


@pytest.mark.parametrize("before", [None, EXEMPT, paying(0)])
def test_no_account_may_become_rent_paying(before: Account | None) -> None:
    assert not transition_allowed(before, paying(minimum_balance(100) - 1), minimum_balance)


@pytest.mark.parametrize(
    ("after", "allowed"),
    [(paying(5), True), (paying(4), True), (paying(6), False), (paying(5, 101), False), (paying(5, 99), False)],
)
def test_a_rent_paying_account_may_shrink_in_lamports_but_not_grow_or_change_size(
    after: Account, allowed: bool
) -> None:
    assert transition_allowed(paying(5), after, minimum_balance) is allowed


def test_only_writable_accounts_other_than_the_incinerator_are_judged() -> None:
    keys = [Pubkey.new_unique(), INCINERATOR, Pubkey.new_unique()]
    after = [paying(5)] * 3
    assert first_violation(keys, [False, True, True], [None] * 3, after, minimum_balance) == 2
    assert first_violation(keys, [False, True, False], [None] * 3, after, minimum_balance) is None
