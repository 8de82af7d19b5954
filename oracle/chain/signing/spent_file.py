"""The daily allowance of a signing server: a small file, replaced as a whole."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path

from oracle.core.errors import ErrorCode, OracleError
from oracle.core.spending import Day, Spend, set_aside

SPENT_FILE_UNUSABLE = ErrorCode(
    "ORC-SIGNER-013",
    "The record of what was spent cannot be used",
    "The signing server's file is not writable, is held by another server, or is damaged.",
    "Give the server a file of its own. A damaged one may be removed once you know that the day's spending was right.",
)


class SpentFile:
    """Implements `SetAside` for one process at a time. Raises ORC-SIGNER-013."""

    def __init__(self, path: Path, cap: Spend) -> None:
        self._path = path
        self._cap = cap
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SPENT_FILE_UNUSABLE(f"{path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise SPENT_FILE_UNUSABLE(f"{path}: {error.strerror}") from None
        try:
            self._day = self._read()
        except OracleError:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._lock)

    async def __call__(self, today: int, least: Spend, most: Spend) -> Spend:
        day, granted = set_aside(self._day, today, least, most, self._cap)
        await asyncio.to_thread(self._write, day)
        self._day = day
        return granted

    def _read(self) -> Day | None:
        try:
            value = json.loads(self._path.read_text())
            return Day(int(value["day"]), Spend(int(value["lamports"]), int(value["micro_nos"])))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            # To begin at nothing would open the day again to whoever can damage the file.
            raise SPENT_FILE_UNUSABLE(f"{self._path}: {type(error).__name__}") from None

    def _write(self, day: Day) -> None:
        new = self._path.with_suffix(self._path.suffix + ".new")
        value = {"day": day.number, "lamports": day.spent.lamports, "micro_nos": day.spent.micro_nos}
        try:
            with new.open("w") as file:
                json.dump(value, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise SPENT_FILE_UNUSABLE(f"{self._path}: {error.strerror}") from None
