"""What the operator's wallet holds: NOS for deposits, lamports for rent, and what it has staked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

from oracle.core.purchase import ChainView
from oracle.providers import errors
from oracle.providers.nosana import program
from oracle.providers.nosana.program import Program

# Three signatures, a priority fee, and what must stay for the account to exist.
_FEES_LAMPORTS: Final = 1_000_000
LEAST_LAMPORTS: Final = program.JOB_RENT_LAMPORTS + program.RUN_RENT_LAMPORTS + _FEES_LAMPORTS
"""What one listing may take: the rent of its accounts comes back when they are closed (§2.6)."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a wallet holds. Staked NOS pay for nothing; the layout that they are read by is unverified."""

    micro_nos: int
    staked_micro_nos: int
    lamports: int


async def holdings(view: ChainView, jobs_program: Program, owner: Pubkey) -> Holdings:
    addresses = [owner, jobs_program.nos_account(owner), jobs_program.stake_account(owner)]
    wallet, tokens, stake = await view.accounts(addresses)
    return Holdings(
        0 if tokens is None else program.read_micro_nos(tokens.data),
        0 if stake is None else program.read_staked_micro_nos(stake.data),
        0 if wallet is None else wallet.lamports,
    )


async def check(view: ChainView, jobs_program: Program, owner: Pubkey, deposit_micro_nos: int) -> None:
    """Raises ORC-PROVIDER-009 where the wallet cannot pay a deposit with the network fee, or the rent.

    Before anything is intended, for it says more than a program's refusal would.
    """
    wallet, tokens = await view.accounts([owner, jobs_program.nos_account(owner)])
    held = 0 if tokens is None else program.read_micro_nos(tokens.data)
    if held < deposit_micro_nos:
        raise errors.OUT_OF_CREDIT(f"{held / 1e6:g} NOS held, {deposit_micro_nos / 1e6:g} asked as deposit")
    lamports = 0 if wallet is None else wallet.lamports
    if lamports < LEAST_LAMPORTS:
        raise errors.OUT_OF_CREDIT(f"{lamports} lamports held, {LEAST_LAMPORTS} may be needed to list a job")
