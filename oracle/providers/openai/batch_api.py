"""The calls of the batch API: files, batches, and the list of them. Source: specs/openai_compatible.md §4."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.http import MIB, Http
from oracle.providers.openai import wire
from oracle.providers.openai.batch_wire import ENDPOINT, Batch, metadata, read_batch, upload

_PAGE: Final = 20
_SECONDS: Final = 25.0
_FILE_BYTES: Final = 200 * MIB
_ID: Final = re.compile(r"[\w.-]{1,128}", re.ASCII)


class BatchApi:
    """`http` leads to `/v1` and is closed with it."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def upload(self, content: bytes, private: Sequence[str]) -> str:
        """The id of a new file. It buys nothing, so it may be repeated."""
        body, kind = upload(content)
        answer = await self._http.call(
            "POST",
            "files",
            content=body,
            headers={"Content-Type": kind},
            repeatable=True,
            seconds=_SECONDS,
            private=private,
        )
        file = self._http.json(answer, repeatable=True)
        found = file.get("id") if isinstance(file, dict) else None
        if not isinstance(found, str) or not _ID.fullmatch(found):
            raise self._http.unreadable("no id of the file", repeatable=True)
        return found

    async def create(self, file: str, keys: Sequence[str]) -> Batch:
        """A new batch. There is no idempotency: a 5xx may have made one, so it is as unclear as no answer."""
        body = {
            "input_file_id": file,
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "metadata": metadata(keys),
        }
        try:
            answer = await self._http.call("POST", "batches", json=body, repeatable=False, seconds=_SECONDS)
        except OracleError as error:
            if error.error is errors.UNAVAILABLE:
                raise errors.NO_ANSWER(error.detail) from None
            raise
        batch = read_batch(self._http.json(answer, repeatable=False))
        if batch is None or not _ID.fullmatch(batch.id):
            raise self._http.unreadable("no batch in the answer to its creation", repeatable=False)
        return batch

    async def batch(self, batch_id: str) -> Batch | None:
        """One batch; None where there is none of this id."""
        answer = await self._http.call("GET", f"batches/{batch_id}", repeatable=True, seconds=_SECONDS, expect=(404,))
        if answer.status == 404:
            return None
        batch = read_batch(self._http.json(answer, repeatable=True))
        if batch is None:
            raise self._http.unreadable("not a batch", repeatable=True)
        return batch

    async def batches(self, after: str | None) -> tuple[list[Batch], bool]:
        """One page of the list behind `after`, and whether there are more. All of the page is readable."""
        params: dict[str, str | int] = {"limit": _PAGE} | ({"after": after} if after else {})
        answer = await self._http.call("GET", "batches", params=params, repeatable=True, seconds=_SECONDS)
        body = self._http.json(answer, repeatable=True)
        data = body.get("data") if isinstance(body, dict) else None
        found = [batch for batch in map(read_batch, data) if batch is not None] if isinstance(data, list) else []
        if not isinstance(data, list) or len(found) < len(data):
            # What is left out could be the very batch that is looked for.
            raise self._http.unreadable("not a list of batches", repeatable=True)
        more = body.get("has_more")
        return found, more if isinstance(more, bool) else len(data) >= _PAGE

    async def cancel(self, batch_id: str) -> None:
        """Ask for it. Which status a batch that has ended is answered with is not known (§4.2): look at it."""
        await self._http.call(
            "POST", f"batches/{batch_id}/cancel", repeatable=True, seconds=_SECONDS, expect=(400, 404, 409)
        )

    async def content(self, file: str) -> bytes:
        if not _ID.fullmatch(file):
            raise self._http.unreadable("a strange id of a file", repeatable=True)
        answer = await self._http.call(
            "GET", f"files/{file}/content", repeatable=True, seconds=_SECONDS, more_bytes=_FILE_BYTES
        )
        return answer.content

    async def models(self) -> Sequence[str]:
        answer = await self._http.call("GET", "models", repeatable=True, seconds=_SECONDS)
        names = wire.read_models(self._http.json(answer, repeatable=True))
        if names is None:
            raise self._http.unreadable("no list of models", repeatable=True)
        return names

    async def close(self) -> None:
        await self._http.close()
