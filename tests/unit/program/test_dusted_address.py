"""Anybody can send lamports to an address before its request exists, and must not be able to block the request so.

From 1.2.2 on Anchor makes such an account with a system instruction that clusters may not have: hence the exact pin.
"""

from __future__ import annotations

import pytest
from deployed_oracle import FEE_LAMPORTS, TERMS, Deployment
from solders.pubkey import Pubkey

from oracle.chain.program.layout import decode_request


@pytest.mark.parametrize("dust_lamports", [890_880, 50_000_000])
def test_dust_on_its_address_does_not_block_a_request(dust_lamports: int) -> None:
    oracle, request = with_dust(dust_lamports)
    oracle.submit(0)
    account = oracle.vm.account(request)
    assert account is not None
    assert account.lamports == max(dust_lamports, oracle.vm.minimum_balance(len(account.data))) + FEE_LAMPORTS
    assert decode_request(request, bytes(account.data)).header.fee_lamports == FEE_LAMPORTS


@pytest.mark.parametrize("dust_lamports", [890_880, 50_000_000])
def test_dust_goes_to_the_payer_with_the_close_and_never_to_the_operator(dust_lamports: int) -> None:
    oracle, request = with_dust(dust_lamports)
    oracle.submit(0)
    before = balance(oracle, oracle.operator_keys.pubkey())
    recorded = oracle.succeed(oracle.operator_keys, oracle.record(request))
    assert balance(oracle, oracle.operator_keys.pubkey()) - before == FEE_LAMPORTS - recorded.fee_lamports

    oracle.wait(1)
    left, before = balance(oracle, request), balance(oracle, oracle.requester.pubkey())
    closed = oracle.succeed(oracle.requester, oracle.close(request))
    assert balance(oracle, oracle.requester.pubkey()) - before == left - closed.fee_lamports
    assert oracle.vm.account(request) is None


def with_dust(lamports: int) -> tuple[Deployment, Pubkey]:
    oracle = Deployment(TERMS)
    oracle.create_queue()
    oracle.add_operator()
    request = oracle.request(0)
    oracle.vm.airdrop(request, lamports)
    return oracle, request


def balance(oracle: Deployment, address: Pubkey) -> int:
    account = oracle.vm.account(address)
    return account.lamports if account else 0
