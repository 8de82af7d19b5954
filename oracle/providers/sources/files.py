"""Data that the operator has collected: `files/NAME` is a .json or .jsonl file of one directory."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, Final

import orjson

from oracle.core.compute import Dataset
from oracle.core.dataquery import FIELDS, RESOURCE_UNKNOWN, DataQuery, check_params, whole
from oracle.providers.errors import SETTINGS_INVALID
from oracle.providers.sources.errors import DATA_NOT_FOUND, DATA_TOO_LARGE
from oracle.providers.sources.normal import Misfit, dataset

FILE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.(json|jsonl)")
LIMIT: Final = "limit"
MAX_RECORDS: Final = 10_000


class Files:
    """Whatever JSON lies there is taken as the operator's own word, in the order of the file."""

    def __init__(self, network: str, directory: Path | None, *, max_bytes: int, max_file_bytes: int) -> None:
        self._network = network
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes

    def check(self, query: DataQuery) -> None:
        """Raise ORC-DATA-002 or 003 unless the query names a file that might be there."""
        _, *names = query.path
        if self._directory is None or len(names) != 1 or not FILE.fullmatch(names[0]):
            raise RESOURCE_UNKNOWN(f"{self._network} serves no such files")
        jsonl = names[0].endswith(".jsonl")
        check_params(query, optional=(LIMIT, FIELDS) if jsonl else ())
        whole(query, LIMIT, least=1, most=MAX_RECORDS, default=MAX_RECORDS)

    def probe(self) -> None:
        """Raise ORC-PROVIDER-022 where the directory is set and is none."""
        if self._directory is not None and not self._directory.is_dir():
            raise SETTINGS_INVALID(f"{self._network}: files is not a directory")

    async def fetch(self, query: DataQuery) -> Dataset:
        """Raises ORC-DATA-004 where the file is not there, or is not what its name says."""
        self.check(query)
        name = query.path[1]
        raw = await asyncio.to_thread(self._read, name)
        try:
            value = {"records": _records(raw, query)} if name.endswith(".jsonl") else orjson.loads(raw)
            return dataset(value, f"{self._network}:files/{name}", self._max_bytes)
        except (orjson.JSONDecodeError, Misfit):
            raise DATA_NOT_FOUND(f"{name} is not the JSON that its name promises") from None

    def _read(self, name: str) -> bytes:
        assert self._directory is not None
        path = self._directory / name
        try:
            # A link could lead out of the directory, to a key for instance.
            if path.is_symlink() or not path.is_file():
                raise DATA_NOT_FOUND(name)
            with path.open("rb") as file:
                raw = file.read(self._max_file_bytes + 1)
        except OSError as error:
            raise DATA_NOT_FOUND(f"{name}: {type(error).__name__}") from None
        if len(raw) > self._max_file_bytes:
            raise DATA_TOO_LARGE(f"{name}: more than {self._max_file_bytes:,} bytes")
        return raw


def _records(raw: bytes, query: DataQuery) -> list[Any]:
    """The first `limit` lines; of objects, the wanted fields."""
    limit = whole(query, LIMIT, least=1, most=MAX_RECORDS, default=MAX_RECORDS)
    lines = [line for line in raw.split(b"\n") if line.strip()]
    records = [orjson.loads(line) for line in lines[:limit]]
    wanted = query.get(FIELDS)
    if wanted is None:
        return records
    names = set(wanted.split(","))
    return [
        {name: value for name, value in one.items() if name in names} if isinstance(one, dict) else one
        for one in records
    ]
