"""`Source` for web data in the name of Grass, which has no public demand API (depin_data.md §3).

    data://grass/search?q=WORDS                          limit=, max_age=SECONDS, fields=
    data://grass/page?url=ADDRESS                        max_age=, fields=
    data://grass/files/NAME                              of .jsonl files: limit=, fields=

What answers is not Grass, but a service or a directory of the operator. Should Grass open an API one day, it is to be
one more implementation of `WebContext`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from oracle.core.compute import Dataset
from oracle.core.dataquery import FIELDS, PARAMETER_INVALID, RESOURCE_UNKNOWN, DataQuery, check_params, fields, whole
from oracle.providers.http import Http
from oracle.providers.pricing import NO_RATES, Rates, usd_to_lamports
from oracle.providers.sources.errors import DATA_NOT_FOUND
from oracle.providers.sources.files import LIMIT, Files
from oracle.providers.sources.normal import Fit, Misfit, dataset, each, only, prose, record, text

MAX_AGE: Final = "max_age"
MOST_DOCUMENTS: Final = 100
YEAR_SECONDS: Final = 365 * 86_400
DOCUMENT: Final = ("url", "title", "text", "collected_at")

Documents = list[dict[str, Any]]


class WebContext(Protocol):
    """Who collects web pages. Documents have `url`, `title`, `text` and `collected_at`, the best first.

    `max_age_seconds` None takes them as old as they are. Raises ORC-DATA-004 where a page is not to be had.
    """

    origin: str

    async def search(self, words: str, limit: int, max_age_seconds: int | None) -> Documents: ...

    async def page(self, url: str, max_age_seconds: int | None) -> Documents: ...

    async def close(self) -> None: ...


class Endpoint:
    """A service of the operator's own: `GET /search?q=&limit=` and `GET /page?url=`, as the how-to defines them."""

    def __init__(
        self, http: Http, *, origin: str, max_document_characters: int = 4_000, seconds: float = 20.0, is_free: bool
    ) -> None:
        self.origin = origin
        self._http = http
        self._seconds = seconds
        self._is_free = is_free
        self._documents = _documents(max_document_characters)

    async def search(self, words: str, limit: int, max_age_seconds: int | None) -> Documents:
        return (await self._get("search", {"q": words, "limit": limit}, max_age_seconds))[:limit]

    async def page(self, url: str, max_age_seconds: int | None) -> Documents:
        return (await self._get("page", {"url": url}, max_age_seconds))[:1]

    async def close(self) -> None:
        await self._http.close()

    async def _get(self, path: str, params: Mapping[str, str | int], max_age_seconds: int | None) -> Documents:
        age = {} if max_age_seconds is None else {MAX_AGE: max_age_seconds}
        answer = await self._http.call(
            "GET", path, params={**params, **age}, repeatable=self._is_free, seconds=self._seconds, expect=(404,)
        )
        if answer.status == 404:
            raise DATA_NOT_FOUND(f"/{path}: HTTP 404")
        try:
            documents: Documents = self._documents(self._http.json(answer, repeatable=self._is_free))["documents"]
        except Misfit as misfit:
            raise self._http.unreadable(f"/{path}: {misfit}", repeatable=self._is_free) from None
        return documents


class Grass:
    """Implements `Source`. `web` is None where the operator serves files only."""

    def __init__(
        self,
        name: str,
        web: WebContext | None,
        files: Files,
        *,
        max_bytes: int = 16_384,
        usd_per_fetch: Decimal = Decimal(0),
        rates: Rates = NO_RATES,
    ) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self._web = web
        self._files = files
        self._usd_per_fetch = usd_per_fetch
        self._rates = rates

    def cost_lamports(self, query: DataQuery) -> int:
        if query.path[0] == "files":
            self._files.check(query)
            return 0
        self._check(query)
        return usd_to_lamports(self._usd_per_fetch, self._rates)

    async def fetch(self, query: DataQuery) -> Dataset:
        if query.path[0] == "files":
            return await self._files.fetch(query)
        web = self._check(query)
        wanted = fields(query, DOCUMENT)
        max_age = whole(query, MAX_AGE, least=1, most=YEAR_SECONDS, default=0) or None
        if query.path == ("search",):
            limit = whole(query, LIMIT, least=1, most=MOST_DOCUMENTS, default=5)
            documents = await web.search(query.get("q") or "", limit, max_age)
        else:
            documents = await web.page(query.get("url") or "", max_age)
        return dataset({"documents": only(documents, wanted)}, f"{web.origin}/{query.path[0]}", self.max_bytes)

    async def probe(self) -> str:
        """A call of the service may cost something, so it is not called."""
        self._files.probe()
        return "no network, but a service or files of yours" if self._web else "no network, but files of yours"

    async def close(self) -> None:
        if self._web is not None:
            await self._web.close()

    def _check(self, query: DataQuery) -> WebContext:
        """Raise ORC-DATA-002 or 003 unless it is one of the queries above, and somebody is there to ask."""
        match query.path:
            case ("search",) if self._web is not None:
                check_params(query, required=("q",), optional=(LIMIT, MAX_AGE, FIELDS))
                whole(query, LIMIT, least=1, most=MOST_DOCUMENTS, default=5)
            case ("page",) if self._web is not None:
                check_params(query, required=("url",), optional=(MAX_AGE, FIELDS))
                _check_url(query.get("url") or "")
            case _:
                raise RESOURCE_UNKNOWN(f"{'/'.join(query.path)} is nothing that {query.network} is asked here")
        whole(query, MAX_AGE, least=1, most=YEAR_SECONDS, default=0)
        fields(query, DOCUMENT)
        return self._web


def _check_url(url: str) -> None:
    """It goes to the operator's service, which fetches for strangers: it must guard its own network."""
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("https", "http") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        is_web = False
    if not is_web:
        raise PARAMETER_INVALID("url is the address of a web page, without a user name")


def _documents(max_characters: int) -> Fit:
    """The order is the service's own: it says which document fits best."""
    fields = {"url": text(2_048), "title": text(2_048), "text": prose(max_characters), "collected_at": text()}
    return record({"documents": each(record(fields, required=("url", "text")))}, required=("documents",))
