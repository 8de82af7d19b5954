"""What an emulator remembers: JSON records by kind and key, in memory or in a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson


class Records:
    """Records in the order of their first writing. Every write is on disk before the emulator answers."""

    def __init__(self, state_directory: Path | None, name: str) -> None:
        if state_directory is not None:
            state_directory.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(":memory:" if state_directory is None else state_directory / f"{name}.sqlite")
        self._file.isolation_level = None
        # A killed process loses nothing of what it has written; only a power cut may, and this is a test double.
        self._file.execute("PRAGMA synchronous=OFF")
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS records "
            "(n INTEGER PRIMARY KEY, kind TEXT, key TEXT, value BLOB, UNIQUE (kind, key))"
        )

    def put(self, kind: str, key: str, value: Any) -> None:
        self._file.execute(
            "INSERT INTO records (kind, key, value) VALUES (?, ?, ?) "
            "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
            (kind, key, value if isinstance(value, bytes) else orjson.dumps(value)),
        )

    def read(self, kind: str) -> Iterator[tuple[str, Any]]:
        for key, value in self._file.execute("SELECT key, value FROM records WHERE kind = ? ORDER BY n", (kind,)):
            yield key, orjson.loads(value)

    def raw(self, kind: str, key: str) -> bytes | None:
        """The bytes that were put, as they were put."""
        row = self._file.execute("SELECT value FROM records WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else bytes(row[0])

    def count(self, kind: str) -> int:
        return int(self._file.execute("SELECT COUNT(*) FROM records WHERE kind = ?", (kind,)).fetchone()[0])

    def close(self) -> None:
        self._file.close()
