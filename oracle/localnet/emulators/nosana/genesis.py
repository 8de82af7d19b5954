"""What Nosana has on chain before anybody buys: the Jobs program, the NOS token, the markets with their vaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from solders.account import Account
from solders.pubkey import Pubkey
from solders.token import ID as TOKEN_PROGRAM
from solders.token.state import Mint, TokenAccount, TokenAccountState

from oracle import resources
from oracle.localnet.chain import Chain
from oracle.localnet.emulators.nosana import jobs_program
from oracle.localnet.emulators.nosana.jobs_program import NOS_MINT, PROGRAM, MarketAccount
from oracle.localnet.emulators.nosana.markets import MARKETS, Market

ADMIN: Final = Pubkey.from_string("AdmMVMMU3po5BP3bVWsF9GgN6NNEfpfxpTDGTzjgb72S")
JOB_EXPIRATION_SECONDS: Final = 86_400
SUPPLY_MICRO_NOS: Final = 100_000_000 * jobs_program.MICRO_NOS
DECIMALS: Final = 6


def place(
    chain: Chain, markets: Sequence[Market] = MARKETS, *, job_expiration_seconds: int = JOB_EXPIRATION_SECONDS
) -> None:
    """Everything at its address on mainnet. What is there already, as in a chain that is continued, stays."""
    chain.load_program(PROGRAM, resources.bytecode(jobs_program.NAME).read_bytes())
    if chain.account(NOS_MINT) is None:
        _put(chain, NOS_MINT, bytes(Mint(ADMIN, SUPPLY_MICRO_NOS, DECIMALS, True, None)), TOKEN_PROGRAM)
    for market in markets:
        address = Pubkey.from_string(market.address)
        if chain.account(address) is None:
            _open(chain, address, market.price_micro_nos_per_second, job_expiration_seconds)


def grant_nos(chain: Chain, owner: Pubkey, micro_nos: int) -> None:
    """NOS out of nothing, on the token account of `owner`, which is made for it."""
    address = jobs_program.nos_account(owner)
    account = chain.account(address)
    held = 0 if account is None else TokenAccount.from_bytes(account.data).amount
    _put(chain, address, _token_account(owner, held + micro_nos), TOKEN_PROGRAM)


def _open(chain: Chain, address: Pubkey, price: int, job_expiration_seconds: int) -> None:
    vault, bump = jobs_program.vault_of(address)
    # The default timeout of a live market (§2.3); a job brings its own.
    market = MarketAccount(ADMIN, job_expiration_seconds, price, 7200, vault, bump)
    _put(chain, address, jobs_program.write_market(market), PROGRAM)
    _put(chain, vault, _token_account(vault, 0), TOKEN_PROGRAM)


def _token_account(owner: Pubkey, micro_nos: int) -> bytes:
    return bytes(TokenAccount(NOS_MINT, owner, micro_nos, None, TokenAccountState.Initialized, None, 0, None))


def _put(chain: Chain, address: Pubkey, data: bytes, owner: Pubkey) -> None:
    chain.set_account(address, Account(chain.vm.minimum_balance(len(data)), data, owner))
