"""A `World` whose virtual machine is a Surfpool: Agave's own runtime, behind its own RPC server."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from oracle_world import World
from solders.account import Account
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from oracle.localnet.message import accounts_of
from oracle.localnet.outcome import Outcome
from oracle.testing.surfpool import Surfpool

MOST_UNITS = 1_400_000


class SurfpoolWorld(World):
    """Each of its transactions carries a compute limit of its own: no two are the same, so none is a replay."""

    vm: SurfpoolMachine

    @classmethod
    def on(cls, surfpool: Surfpool) -> SurfpoolWorld:
        now = surfpool.call("surfnet_pauseClock")["absoluteSlot"]
        return cls(slot=now + 10, vm=SurfpoolMachine(surfpool))

    def message(self, *wanted: Instruction) -> MessageV0:
        distinct = set_compute_unit_limit(MOST_UNITS - self.number())
        return MessageV0.try_compile(self.payer.pubkey(), [distinct, *wanted], [], self.vm.blockhash())


@dataclass(frozen=True, slots=True)
class SurfpoolMachine:
    """A `Machine` over JSON-RPC. Surfpool executes a transaction when it is sent, so its record is there at once."""

    surfpool: Surfpool

    def blockhash(self) -> Hash:
        return Hash.from_string(self.surfpool.call("getLatestBlockhash")["value"]["blockhash"])

    def load_program(self, address: Pubkey, elf: bytes) -> None:
        self.surfpool.load_program(address, elf)

    def set_clock(self, slot: int, unix_timestamp: int) -> None:
        """Only the slot: the program reads no time."""
        self.surfpool.call("surfnet_timeTravel", {"absoluteSlot": slot})

    def account(self, address: Pubkey) -> Account | None:
        return self._accounts([address])[0]

    def _accounts(self, addresses: list[Pubkey]) -> list[Account | None]:
        options = {"encoding": "base64", "commitment": "processed"}
        found = self.surfpool.call("getMultipleAccounts", [str(address) for address in addresses], options)["value"]
        return [None if value is None or not value["lamports"] else _account(value) for value in found]

    def set_account(self, address: Pubkey, account: Account | None) -> None:
        account = account or Account(0, b"", Pubkey.default())
        self.surfpool.set_account(address, lamports=account.lamports, data=account.data, owner=str(account.owner))

    def airdrop(self, address: Pubkey, lamports: int) -> None:
        account = self.account(address) or Account(0, b"", Pubkey.default())
        self.set_account(address, Account(account.lamports + lamports, account.data, account.owner))

    def minimum_balance(self, data_len: int) -> int:
        return int(self.surfpool.call("getMinimumBalanceForRentExemption", data_len))

    def process(self, tx: VersionedTransaction) -> Outcome:
        accounts = accounts_of(tx.message, self.account)
        before = self._accounts(list(accounts.keys))
        options = {"encoding": "base64", "skipPreflight": True}
        signature = self.surfpool.call("sendTransaction", base64.b64encode(bytes(tx)).decode(), options)
        record = self.surfpool.call(
            "getTransaction", signature, {"maxSupportedTransactionVersion": 0, "commitment": "confirmed"}
        )
        assert record is not None, "the transaction did not land"
        meta = record["meta"]
        return Outcome(
            err=_without_the_limit(meta["err"]),
            included=True,
            logs=tuple(meta["logMessages"]),
            units_consumed=meta["computeUnitsConsumed"],
            fee_lamports=meta["fee"],
            accounts=accounts,
            before=tuple(before),
            after=tuple(self._accounts(list(accounts.keys))),
        )

    def simulate(self, tx: VersionedTransaction) -> Outcome:
        options = {"encoding": "base64", "sigVerify": True, "commitment": "processed"}
        value = self.surfpool.call("simulateTransaction", base64.b64encode(bytes(tx)).decode(), options)["value"]
        return Outcome(err=_without_the_limit(value["err"]), included=True, logs=tuple(value["logs"] or ()))


def _account(value: dict[str, Any]) -> Account:
    data = base64.b64decode(value["data"][0])
    return Account(value["lamports"], data, Pubkey.from_string(value["owner"]), value["executable"])


def _without_the_limit(error: Any) -> Any:
    """Counted as the test counts, which did not ask for the compute limit in front."""
    match error:
        case {"InstructionError": [int(at), what]}:
            return {"InstructionError": [at - 1, what]}
    return error
