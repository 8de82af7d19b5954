"""Methods that read accounts."""

from __future__ import annotations

from typing import Any

from oracle.localnet.chain import Chain
from oracle.localnet.rpc import encoding
from oracle.localnet.rpc.context import in_context
from oracle.localnet.rpc.errors import invalid_params
from oracle.localnet.rpc.params import Params

MAX_MULTIPLE_ACCOUNTS = 100


def get_balance(chain: Chain, params: Params) -> Any:
    address, options = params.pubkey(0), params.options(1)
    slot = options.bank_slot(chain)
    account = chain.account(address, options.commitment())
    return in_context(slot, account.lamports if account else 0)


def get_account_info(chain: Chain, params: Params) -> Any:
    address, options = params.pubkey(0), params.options(1)
    shape = options.account_encoding(), options.data_slice()
    slot = options.bank_slot(chain)
    account = chain.account(address, options.commitment())
    return in_context(slot, encoding.account(account, *shape) if account else None)


def get_multiple_accounts(chain: Chain, params: Params) -> Any:
    addresses, options = params.pubkeys(0), params.options(1)
    if len(addresses) > MAX_MULTIPLE_ACCOUNTS:
        raise invalid_params(f"Too many inputs provided; max {MAX_MULTIPLE_ACCOUNTS}")
    shape = options.account_encoding("base64"), options.data_slice()
    slot = options.bank_slot(chain)
    found = [chain.account(address, options.commitment()) for address in addresses]
    return in_context(slot, [encoding.account(account, *shape) if account else None for account in found])


def get_program_accounts(chain: Chain, params: Params) -> Any:
    program, options = params.pubkey(0), params.options(1)
    shape, filters = (options.account_encoding(), options.data_slice()), options.filters()
    slot = options.bank_slot(chain)
    found = [
        {"pubkey": str(address), "account": encoding.account(account, *shape)}
        for address, account in chain.ledger.accounts_of(program, slot, filters)
    ]
    return in_context(slot, found) if options.flag("withContext") else found


def get_minimum_balance_for_rent_exemption(chain: Chain, params: Params) -> Any:
    return chain.vm.minimum_balance(params.integer(0))


METHODS = {
    "getBalance": get_balance,
    "getAccountInfo": get_account_info,
    "getMultipleAccounts": get_multiple_accounts,
    "getProgramAccounts": get_program_accounts,
    "getMinimumBalanceForRentExemption": get_minimum_balance_for_rent_exemption,
}
