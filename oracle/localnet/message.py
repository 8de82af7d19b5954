"""Which accounts a message names, lookup tables included, and which of them it may write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from solders.account import Account
from solders.address_lookup_table_account import ID as LOOKUP_TABLE_PROGRAM
from solders.address_lookup_table_account import AddressLookupTable
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey

UPGRADEABLE_LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")

RESERVED = frozenset(
    Pubkey.from_string(address)
    for address in (
        "11111111111111111111111111111111",
        "AddressLookupTab1e1111111111111111111111111",
        "BPFLoader1111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "ComputeBudget111111111111111111111111111111",
        "Config1111111111111111111111111111111111111",
        "Ed25519SigVerify111111111111111111111111111",
        "Feature111111111111111111111111111111111111",
        "KeccakSecp256k11111111111111111111111111111",
        "LoaderV411111111111111111111111111111111111",
        "NativeLoader1111111111111111111111111111111",
        "Secp256r1SigVerify1111111111111111111111111",
        "Stake11111111111111111111111111111111111111",
        "StakeConfig11111111111111111111111111111111",
        "Sysvar1111111111111111111111111111111111111",
        "Sysvar1nstructions1111111111111111111111111",
        "SysvarC1ock11111111111111111111111111111111",
        "SysvarEpochRewards1111111111111111111111111",
        "SysvarEpochSchedu1e111111111111111111111111",
        "SysvarFees111111111111111111111111111111111",
        "SysvarLastRestartS1ot1111111111111111111111",
        "SysvarRecentB1ockHashes11111111111111111111",
        "SysvarRent111111111111111111111111111111111",
        "SysvarRewards111111111111111111111111111111",
        "SysvarS1otHashes111111111111111111111111111",
        "SysvarS1otHistory11111111111111111111111111",
        "SysvarStakeHistory1111111111111111111111111",
        "Vote111111111111111111111111111111111111111",
        "ZkE1Gama1Proof11111111111111111111111111111",
        "ZkTokenProof1111111111111111111111111111111",
    )
)
"""Sysvars and built-in programs: read-only in every transaction, whatever it says (`reserved_account_keys.rs`)."""

AnyMessage = Message | MessageV0


@dataclass(frozen=True, slots=True)
class Accounts:
    """All accounts of a message in its order: its own keys, then the looked-up writable ones, then the read-only."""

    keys: tuple[Pubkey, ...]
    writable: tuple[bool, ...]
    loaded_writable: tuple[Pubkey, ...] = ()
    loaded_readonly: tuple[Pubkey, ...] = ()

    def writable_keys(self) -> list[Pubkey]:
        return [key for key, writable in zip(self.keys, self.writable, strict=True) if writable]


NO_ACCOUNTS = Accounts((), ())


class UnreadableLookupTable(Exception):
    """A lookup table is missing or bad; `transaction_error` is such as "AddressLookupTableNotFound"."""

    def __init__(self, transaction_error: str) -> None:
        self.transaction_error = transaction_error
        super().__init__(transaction_error)


def accounts_of(message: AnyMessage, account: Callable[[Pubkey], Account | None]) -> Accounts:
    """The accounts of a message. Raises `UnreadableLookupTable` where a lookup table cannot be read."""
    own = message.account_keys
    loaded_writable, loaded_readonly = _loaded(message, account)
    keys = (*own, *loaded_writable, *loaded_readonly)
    writable = writable_flags(message, keys, len(loaded_writable))
    return Accounts(keys, tuple(writable), tuple(loaded_writable), tuple(loaded_readonly))


def writable_flags(message: AnyMessage, keys: Sequence[Pubkey], loaded_writable: int) -> list[bool]:
    """For each of a message's keys, looked-up ones included, whether it may be written."""
    own = len(message.account_keys)
    header = message.header
    last_writable_signer = header.num_required_signatures - header.num_readonly_signed_accounts
    last_writable = own - header.num_readonly_unsigned_accounts
    # A program that is called is never written, whatever the header says, unless the upgradeable loader is there.
    called = (
        set() if UPGRADEABLE_LOADER in keys else {instruction.program_id_index for instruction in message.instructions}
    )

    def asked(index: int) -> bool:
        if index >= own:
            return index < own + loaded_writable
        return index < last_writable_signer or header.num_required_signatures <= index < last_writable

    return [asked(index) and index not in called and key not in RESERVED for index, key in enumerate(keys)]


def _loaded(message: AnyMessage, account: Callable[[Pubkey], Account | None]) -> tuple[list[Pubkey], list[Pubkey]]:
    writable: list[Pubkey] = []
    readonly: list[Pubkey] = []
    if isinstance(message, MessageV0):
        for lookup in message.address_table_lookups:
            table = _table(account(lookup.account_key))
            try:
                writable += [table[index] for index in bytes(lookup.writable_indexes)]
                readonly += [table[index] for index in bytes(lookup.readonly_indexes)]
            except IndexError:
                raise UnreadableLookupTable("InvalidAddressLookupTableIndex") from None
    return writable, readonly


def _table(account: Account | None) -> list[Pubkey]:
    if account is None:
        raise UnreadableLookupTable("AddressLookupTableNotFound")
    if account.owner != LOOKUP_TABLE_PROGRAM:
        raise UnreadableLookupTable("InvalidAddressLookupTableOwner")
    try:
        return list(AddressLookupTable.deserialize(account.data).addresses)
    except ValueError:
        raise UnreadableLookupTable("InvalidAddressLookupTableData") from None
