"""What the embedded chain remembers, in SQLite: account versions by slot, blocks, transactions and who they mention.

Every slot is one database transaction. A process that is killed loses the slot it was building and nothing else, as a
cluster drops a block that nobody saw.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
from solders.account import Account
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (seed BLOB NOT NULL, first_available_block INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS blocks (
  slot INTEGER PRIMARY KEY, parent_slot INTEGER NOT NULL, height INTEGER NOT NULL,
  blockhash BLOB NOT NULL UNIQUE, previous_blockhash BLOB NOT NULL, unix_timestamp INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
  address BLOB NOT NULL, slot INTEGER NOT NULL, lamports INTEGER NOT NULL, owner BLOB NOT NULL,
  executable INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (address, slot));
CREATE INDEX IF NOT EXISTS accounts_by_owner ON accounts (owner);
CREATE INDEX IF NOT EXISTS accounts_by_slot ON accounts (slot);
CREATE TABLE IF NOT EXISTS transactions (
  signature BLOB PRIMARY KEY, slot INTEGER NOT NULL, position INTEGER NOT NULL, wire BLOB NOT NULL,
  err BLOB NOT NULL, meta BLOB NOT NULL, UNIQUE (slot, position));
CREATE TABLE IF NOT EXISTS mentions (
  address BLOB NOT NULL, slot INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (address, slot, position))
  WITHOUT ROWID;
"""

_VERSION = "address, lamports, owner, executable, data"
# The version of an account that a bank at a slot sees. A version without lamports marks an account that is gone.
_SEEN = "slot = (SELECT max(slot) FROM accounts newest WHERE newest.address = accounts.address AND newest.slot <= ?)"


@dataclass(frozen=True, slots=True)
class Block:
    """A closed block. `height` counts blocks, `slot` counts time; they part where slots were skipped or dropped."""

    slot: int
    parent_slot: int
    height: int
    blockhash: Hash
    previous_blockhash: Hash
    unix_timestamp: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened in one minute, the last slot of which is `slot`."""

    slot: int
    slots: int
    transactions: int


@dataclass(frozen=True, slots=True)
class Record:
    """A transaction in a block. `err` and `meta` are as the RPC prints them; `position` is its place in the block."""

    signature: Signature
    slot: int
    position: int
    wire: bytes
    err: Any
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """What `getProgramAccounts` may ask of an account's data: its size, or some bytes at an offset."""

    data_size: int | None = None
    offset: int = 0
    content: bytes = b""

    def matches(self, data: bytes) -> bool:
        if self.data_size is not None:
            return len(data) == self.data_size
        end = self.offset + len(self.content)
        return len(data) >= end and data[self.offset : end] == self.content


class Ledger:
    """One SQLite database, in a file of `directory` or in memory. For one thread at a time."""

    def __init__(self, directory: Path | None) -> None:
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        path = ":memory:" if directory is None else str(directory / "ledger.sqlite")
        # The owner thread of a served chain is not the one that made it; there is never more than one at a time.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN IMMEDIATE")

    def close(self) -> None:
        """Keeps everything, the open slot included. May be called twice."""
        with contextlib.suppress(sqlite3.ProgrammingError):
            self.commit()
        self._db.close()

    def commit(self) -> None:
        self._db.execute("COMMIT")
        self._db.execute("BEGIN IMMEDIATE")

    def seed(self, otherwise: bytes) -> bytes:
        """The seed this ledger was begun with; `otherwise` begins it."""
        row = self._db.execute("SELECT seed FROM identity").fetchone()
        if row is None:
            self._db.execute("INSERT INTO identity (seed) VALUES (?)", (otherwise,))
            return otherwise
        return bytes(row[0])

    # Accounts

    def put_account(self, address: Pubkey, slot: int, account: Account | None) -> None:
        account = account or Account(0, b"", Pubkey.default())
        self._db.execute(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?)",
            (bytes(address), slot, account.lamports, bytes(account.owner), account.executable, account.data),
        )

    def override_account(self, address: Pubkey, account: Account | None, slots: Sequence[int]) -> None:
        """Replaces every version of an account by the same one at each of `slots`."""
        self._db.execute("DELETE FROM accounts WHERE address = ?", (bytes(address),))
        for slot in slots:
            self.put_account(address, slot, account)

    def account(self, address: Pubkey, slot: int) -> Account | None:
        """The account as of a slot."""
        row = self._db.execute(
            f"SELECT {_VERSION} FROM accounts WHERE address = ? AND slot <= ? ORDER BY slot DESC LIMIT 1",
            (bytes(address), slot),
        ).fetchone()
        return _account(row)[1] if row and row[1] else None

    def changed_since(self, address: Pubkey, slot: int) -> bool:
        """Whether there is a version of the account later than `slot`."""
        query = "SELECT 1 FROM accounts WHERE address = ? AND slot > ?"
        return self._db.execute(query, (bytes(address), slot)).fetchone() is not None

    def knows(self, address: Pubkey) -> bool:
        """Whether any version of the account is kept. What the VM has of its own, such as sysvars, is not."""
        return self._db.execute("SELECT 1 FROM accounts WHERE address = ?", (bytes(address),)).fetchone() is not None

    def accounts_of(self, owner: Pubkey, slot: int, filters: Sequence[Filter] = ()) -> Iterator[tuple[Pubkey, Account]]:
        """A program's accounts as of a slot, by address, that match every filter."""
        query = f"SELECT {_VERSION} FROM accounts WHERE owner = ? AND lamports > 0 AND {_SEEN}"
        values: list[Any] = [bytes(owner), slot]
        for wanted in filters:
            if wanted.data_size is not None:
                query += " AND length(data) = ?"
                values.append(wanted.data_size)
                continue
            query += " AND length(data) >= ?"
            values.append(wanted.offset + len(wanted.content))
            if wanted.content:  # a piece of nothing is NULL to SQLite, and equals nothing
                query += " AND substr(data, ?, ?) = ?"
                values += [wanted.offset + 1, len(wanted.content), wanted.content]
        for row in self._db.execute(f"{query} ORDER BY address", values):
            yield _account(row)

    def changes_in(self, slot: int) -> Iterator[tuple[Pubkey, Account]]:
        """What a slot left of every account it changed; without lamports where it left nothing."""
        for row in self._db.execute(f"SELECT {_VERSION} FROM accounts WHERE slot = ?", (slot,)):
            yield _account(row)

    def all_accounts(self, slot: int) -> Iterator[tuple[Pubkey, Account]]:
        for row in self._db.execute(f"SELECT {_VERSION} FROM accounts WHERE lamports > 0 AND {_SEEN}", (slot,)):
            yield _account(row)

    def forget_versions_before(self, slot: int) -> None:
        """Drops the versions that no bank can see any more once `slot` is the root."""
        self._db.execute(
            "DELETE FROM accounts WHERE slot < ? AND address IN (SELECT address FROM accounts WHERE slot = ?)",
            (slot, slot),
        )
        self._db.execute("DELETE FROM accounts WHERE slot = ? AND lamports = 0", (slot,))

    # Blocks

    def put_block(self, block: Block) -> None:
        self._db.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?)",
            (
                block.slot,
                block.parent_slot,
                block.height,
                bytes(block.blockhash),
                bytes(block.previous_blockhash),
                block.unix_timestamp,
            ),
        )

    def block(self, slot: int) -> Block | None:
        return _block(self._db.execute("SELECT * FROM blocks WHERE slot = ?", (slot,)).fetchone())

    def block_at_or_before(self, slot: int) -> Block | None:
        query = "SELECT * FROM blocks WHERE slot <= ? ORDER BY slot DESC LIMIT 1"
        return _block(self._db.execute(query, (slot,)).fetchone())

    def height_of(self, blockhash: Hash) -> int | None:
        row = self._db.execute("SELECT height FROM blocks WHERE blockhash = ?", (bytes(blockhash),)).fetchone()
        return int(row[0]) if row else None

    def block_slots(self, first: int, last: int) -> list[int]:
        """Slots with a block, both ends included."""
        query = "SELECT slot FROM blocks WHERE slot BETWEEN ? AND ? ORDER BY slot"
        return [row[0] for row in self._db.execute(query, (first, last))]

    def recent_blocks(self, last: int, count: int) -> list[Block]:
        """Newest first."""
        query = "SELECT * FROM blocks WHERE slot <= ? ORDER BY slot DESC LIMIT ?"
        return [Block(*_block_columns(row)) for row in self._db.execute(query, (last, count))]

    def samples(self, now: int, limit: int) -> list[Sample]:
        """Newest first; the minute that is not over, and the one the chain began in, are left out."""
        minutes = self._db.execute(
            "SELECT unix_timestamp / 60, max(slot) FROM blocks WHERE unix_timestamp / 60 BETWEEN ? AND ? GROUP BY 1"
            " ORDER BY 1",
            (now // 60 - limit - 1, now // 60 - 1),
        ).fetchall()
        query = "SELECT count(*) FROM transactions WHERE slot > ? AND slot <= ?"
        return [
            Sample(last, last - first, self._db.execute(query, (first, last)).fetchone()[0])
            for (_, first), (_, last) in pairwise(minutes)
        ][::-1]

    # Transactions

    def put_transaction(self, record: Record, mentioned: Sequence[Pubkey]) -> None:
        self._db.execute(
            "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?)",
            (
                bytes(record.signature),
                record.slot,
                record.position,
                record.wire,
                orjson.dumps(record.err),
                orjson.dumps(record.meta),
            ),
        )
        self._db.executemany(
            "INSERT INTO mentions VALUES (?, ?, ?)",
            [(bytes(address), record.slot, record.position) for address in mentioned],
        )

    def status(self, signature: Signature) -> tuple[int, Any] | None:
        """Slot and error of a transaction."""
        query = "SELECT slot, err FROM transactions WHERE signature = ?"
        row = self._db.execute(query, (bytes(signature),)).fetchone()
        return (row[0], orjson.loads(row[1])) if row else None

    def transaction(self, signature: Signature) -> Record | None:
        query = "SELECT * FROM transactions WHERE signature = ?"
        row = self._db.execute(query, (bytes(signature),)).fetchone()
        return _record(row) if row else None

    def transactions_in(self, slot: int) -> list[Record]:
        query = "SELECT * FROM transactions WHERE slot = ? ORDER BY position"
        return [_record(row) for row in self._db.execute(query, (slot,))]

    def transactions_after(self, slot: int) -> list[Record]:
        query = "SELECT * FROM transactions WHERE slot > ? ORDER BY slot, position"
        return [_record(row) for row in self._db.execute(query, (slot,))]

    def count_transactions(self, slot: int) -> int:
        """Transactions in blocks up to a slot."""
        return int(self._db.execute("SELECT count(*) FROM transactions WHERE slot <= ?", (slot,)).fetchone()[0])

    def mentioning(
        self, address: Pubkey, last_slot: int, before: Signature | None, until: Signature | None, limit: int
    ) -> list[Record]:
        """Transactions that name an address, newest first, between two signatures (both left out)."""
        query = (
            "SELECT t.* FROM mentions m JOIN transactions t ON t.slot = m.slot AND t.position = m.position"
            " WHERE m.address = ? AND m.slot <= ?"
        )
        values: list[Any] = [bytes(address), last_slot]
        for signature, comparison in ((before, "<"), (until, ">")):
            if signature is not None and (place := self._place(signature)) is not None:
                query += f" AND (m.slot, m.position) {comparison} (?, ?)"
                values += place
            elif signature is not None and signature is before:
                return []
        query += " ORDER BY m.slot DESC, m.position DESC LIMIT ?"
        return [_record(row) for row in self._db.execute(query, [*values, limit])]

    def mentions(self, address: Pubkey, record: Record) -> bool:
        query = "SELECT 1 FROM mentions WHERE address = ? AND slot = ? AND position = ?"
        return self._db.execute(query, (bytes(address), record.slot, record.position)).fetchone() is not None

    def _place(self, signature: Signature) -> tuple[int, int] | None:
        query = "SELECT slot, position FROM transactions WHERE signature = ?"
        row = self._db.execute(query, (bytes(signature),)).fetchone()
        return (row[0], row[1]) if row else None

    # Forks and pruning

    def first_available_block(self) -> int:
        """The first slot whose transactions are kept."""
        return int(self._db.execute("SELECT first_available_block FROM identity").fetchone()[0])

    def forget_transactions_before(self, slot: int) -> None:
        for table in ("transactions", "mentions"):
            self._db.execute(f"DELETE FROM {table} WHERE slot < ?", (slot,))
        self._db.execute("UPDATE identity SET first_available_block = ?", (slot,))

    def drop_after(self, slot: int) -> list[Pubkey]:
        """Forgets everything later than a slot; returns the addresses of accounts that it had changed."""
        rows = self._db.execute("SELECT DISTINCT address FROM accounts WHERE slot > ?", (slot,)).fetchall()
        for table in ("accounts", "blocks", "transactions", "mentions"):
            self._db.execute(f"DELETE FROM {table} WHERE slot > ?", (slot,))
        return [Pubkey.from_bytes(row[0]) for row in rows]


def _account(row: tuple[Any, ...]) -> tuple[Pubkey, Account]:
    address, lamports, owner, executable, data = row
    return Pubkey.from_bytes(address), Account(lamports, data, Pubkey.from_bytes(owner), bool(executable))


def _block(row: tuple[Any, ...] | None) -> Block | None:
    return Block(*_block_columns(row)) if row else None


def _block_columns(row: tuple[Any, ...]) -> tuple[int, int, int, Hash, Hash, int]:
    slot, parent_slot, height, blockhash, previous, unix_timestamp = row
    return slot, parent_slot, height, Hash.from_bytes(blockhash), Hash.from_bytes(previous), unix_timestamp


def _record(row: tuple[Any, ...]) -> Record:
    signature, slot, position, wire, err, meta = row
    return Record(Signature.from_bytes(signature), slot, position, wire, orjson.loads(err), orjson.loads(meta))
