"""Calls to Dispersed, and what its objects say. Source: specs/render.md §3 to §8."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final, Literal, TypeVar

from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.failures import error_of
from oracle.providers.http import Answer, Http
from oracle.providers.render.signing import canonical_body, canonical_query, signed_headers

_T = TypeVar("_T")

PAGE: Final = 50
_SECONDS: Final = 30.0
# A refused signature with a clock this far off is worth one more try by the server's clock (§8).
_CLOCK_OFF_SECONDS: Final = 60.0


class Phase(Enum):
    """Where a job or a run is. A status that nobody documents counts as live (§5)."""

    WAITING = "waiting"
    LIVE = "live"
    ENDING = "ending"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self in (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED)


# What goes into the path of a call, and the name or address that a prompt is sent to.
_ID: Final = re.compile(r"[\w-]{1,64}", re.ASCII)
_HOST: Final = re.compile(r"[\w.-]{1,253}", re.ASCII)

_PHASES: Final[Mapping[str, Phase]] = {
    "PENDING": Phase.WAITING,
    "ASSIGNED": Phase.WAITING,
    "CANCELLING": Phase.ENDING,
    "COMPLETED": Phase.COMPLETED,
    "FAILED": Phase.FAILED,
    "CANCELLED": Phase.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Job:
    """`created_at` in unix seconds; 0 where it is not said. `environment` is None where the object came without it."""

    uuid: str
    phase: Phase
    title: str
    description: str
    reason: str
    created_at: float
    environment: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Run:
    """One stay of a job on a node. `addresses` are the public ones, by the container's port."""

    uuid: str
    phase: Phase
    usd_per_hour: Decimal | None
    started_at: float | None
    seconds: float | None
    addresses: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Offer:
    """Hardware that can be had now, with one GPU or several."""

    usd_per_hour: Decimal
    gpu_count: int
    vram_gb: int
    gpu_name: str
    gpu_registry_uuid: str | None


class DispersedApi:
    """`http` is closed with it. Every call is signed for itself, as a nonce counts once."""

    def __init__(
        self,
        http: Http,
        public_key: str,
        secret_key: str,
        *,
        now: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._http = http
        self._public_key = public_key
        self._secret_key = secret_key
        self._now = now
        self._entropy = entropy
        self._clock_off = 0.0

    async def create(self, body: Mapping[str, Any], private: Sequence[str]) -> Job:
        """A new job. There is no idempotency, so what may have made one is as unclear as no answer: a 5xx (§8), and a
        refused signature of a key that is right, as after a repetition somewhere on the way that used up the nonce."""
        try:
            answer = await self._call("POST", "/v1/jobs", body=body, repeatable=False, private=private)
        except OracleError as error:
            if error.error is errors.UNAVAILABLE:
                raise errors.NO_ANSWER(error.detail) from None
            if error.error is errors.CREDENTIALS_REFUSED and await self._is_our_key_right():
                raise errors.NO_ANSWER(f"{error.detail}, of a key that is right") from None
            raise
        job = _job(self._http.json(answer, repeatable=False))
        if job is None:
            raise self._http.unreadable("no job in the answer to its creation", repeatable=False)
        return job

    async def _is_our_key_right(self) -> bool:
        try:
            await self.jobs(1)
        except OracleError as error:
            return error.error is not errors.CREDENTIALS_REFUSED
        return True

    async def jobs(self, page: int) -> tuple[list[Job], int]:
        """One page of the account's jobs, newest first, and how many there are in all. All of the page is readable."""
        return await self._list(
            "/v1/jobs", [("sort", "-created_at"), ("limit", PAGE), ("page", page)], _job, all_or_none=True
        )

    async def job(self, uuid: str) -> Job | None:
        """One job; None where the account has none of this id."""
        answer = await self._call("GET", f"/v1/jobs/{uuid}", expect=(404,))
        if answer.status == 404:
            return None
        job = _job(self._http.json(answer, repeatable=True))
        if job is None:
            raise self._http.unreadable("not a job", repeatable=True)
        return job

    async def cancel(self, uuid: str) -> bool:
        """Whether the wish was accepted. False where the job is not known or has ended: ask for it to learn which."""
        body = {"reason": "Cancelled by user"}
        answer = await self._call("PUT", f"/v1/jobs/{uuid}/cancel", body=body, expect=(404, 409))
        return answer.status not in (404, 409)

    async def runs(self, job: str) -> list[Run]:
        """The newest runs of a job, the newest first."""
        query: list[tuple[str, str | int]] = [("filter[job_uuid]", job), ("limit", PAGE), ("sort", "-created_at")]
        runs, _ = await self._list("/v1/job-runs", query, _run)
        return runs

    async def offers(self, *, min_vram_gb: int, min_ram_gb: int, min_storage_gb: int, regions: str) -> list[Offer]:
        """Hardware on offer. `regions` is a list with commas; empty means anywhere."""
        query: list[tuple[str, str | int]] = [
            ("filter[gpu_count]", 1),
            ("filter[min_vram_gb]", min_vram_gb),
            ("filter[min_ram_gb]", min_ram_gb),
            ("filter[min_storage_gb]", min_storage_gb),
            ("limit", PAGE),
        ]
        if regions:
            query.append(("filter[allowed_region_codes]", regions))
        offers, _ = await self._list("/v1/compute/offers", query, _offer)
        return offers

    async def close(self) -> None:
        await self._http.close()

    async def _list(
        self,
        path: str,
        query: Sequence[tuple[str, str | int]],
        read: Callable[[Any], _T | None],
        *,
        all_or_none: bool = False,
    ) -> tuple[list[_T], int]:
        """The readable items of a list, and the total that it states."""
        body = self._http.json(await self._call("GET", path, query=query), repeatable=True)
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list):
            raise self._http.unreadable(f"no list at {path}", repeatable=True)
        total = body.get("total")
        found = [item for item in map(read, data) if item is not None]
        if all_or_none and len(found) < len(data):
            # What is left out could be the very job that is looked for.
            raise self._http.unreadable(f"a strange item at {path}", repeatable=True)
        return found, total if isinstance(total, int) else len(data)

    async def _call(
        self,
        method: Literal["GET", "POST", "PUT"],
        path: str,
        *,
        query: Sequence[tuple[str, str | int]] = (),
        body: Mapping[str, Any] | None = None,
        repeatable: bool = True,
        expect: Collection[int] = (),
        private: Sequence[str] = (),
    ) -> Answer:
        """One call; one more where the signature was refused and the server's clock says that ours is off (§8)."""
        canonical = canonical_query(query)
        content = None if body is None else canonical_body(body)
        for is_last in (False, True):
            headers = signed_headers(
                self._public_key,
                self._secret_key,
                time_ms=int((self._now() + self._clock_off) * 1000),
                nonce=self._entropy(16).hex(),
                method=method,
                path=path,
                query=canonical,
                body=content or b"",
            )
            answer = await self._http.call(
                method,
                f"{path}?{canonical}" if canonical else path,
                repeatable=repeatable,
                content=content,
                headers=headers,
                seconds=_SECONDS,
                expect=(401, *expect),
                private=private,
            )
            if answer.status != 401 or is_last or not self._resynchronised(answer):
                break
        if answer.status == 401:
            raise error_of(401, answer.headers, answer.content, repeatable=repeatable, now=self._now())
        return answer

    def _resynchronised(self, answer: Answer) -> bool:
        """Whether the server's clock differs so much from the one that we signed by that another try is worth it."""
        try:
            theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        except (ValueError, OverflowError):
            return False
        off = theirs - self._now()
        if abs(off - self._clock_off) < _CLOCK_OFF_SECONDS:
            return False
        self._clock_off = off
        return True


def _job(body: Any) -> Job | None:
    body = _bare(body)
    if not isinstance(body, dict) or not _ID.fullmatch(_text(body.get("uuid"))):
        return None
    return Job(
        uuid=body["uuid"],
        phase=_phase(body.get("status")),
        title=_text(body.get("title")),
        description=_text(body.get("description")),
        reason=_text(body.get("status_reason")),
        created_at=_iso_seconds(body.get("created_at")),
        environment=_environment(body.get("parameters")),
    )


def _environment(parameters: Any) -> Mapping[str, str] | None:
    inner = parameters.get("parameters") if isinstance(parameters, dict) else None
    env = inner.get("env") if isinstance(inner, dict) else None
    return env if isinstance(env, dict) else None


def _run(body: Any) -> Run | None:
    if not isinstance(body, dict) or not _ID.fullmatch(_text(body.get("uuid"))):
        return None
    started, lasted = body.get("started_at_ms"), body.get("duration_ms")
    urls = body.get("node_urls")
    addresses = {}
    for url in urls if isinstance(urls, list) else []:
        host, port = (url.get("hostname"), url.get("port")) if isinstance(url, dict) else (None, None)
        if _HOST.fullmatch(_text(host)) and isinstance(port, int) and 0 < port < 65536:
            scheme = "https" if url.get("tls") is True or url.get("protocol") == "https" else "http"
            addresses[_text(url.get("description"))] = f"{scheme}://{host}:{port}"
    return Run(
        uuid=body["uuid"],
        phase=_phase(body.get("status")),
        usd_per_hour=_decimal(body.get("hourly_rate_usd")),
        started_at=started / 1000 if isinstance(started, int | float) else None,
        seconds=lasted / 1000 if isinstance(lasted, int | float) else None,
        addresses=addresses,
    )


def _offer(body: Any) -> Offer | None:
    hardware = body.get("hardware_summary") if isinstance(body, dict) else None
    pricing = body.get("pricing") if isinstance(body, dict) else None
    if not isinstance(hardware, dict) or not isinstance(pricing, dict):
        return None
    rate, count = _decimal(pricing.get("hourly_rate_usd")), hardware.get("gpu_count")
    if rate is None or not isinstance(count, int):
        return None
    vram = hardware.get("min_gpu_vram_gib")
    return Offer(
        usd_per_hour=rate,
        gpu_count=count,
        vram_gb=int(vram) if isinstance(vram, int | float) else 0,
        gpu_name=_text(hardware.get("gpu_model_label")),
        gpu_registry_uuid=_text(hardware.get("gpu_registry_uuid")) or None,
    )


def _bare(body: Any) -> Any:
    """Single objects come bare; a client has also met them wrapped (§3)."""
    inner = body.get("data") if isinstance(body, dict) else None
    return inner if isinstance(inner, dict) else body


def _phase(status: Any) -> Phase:
    return _PHASES.get(status, Phase.LIVE) if isinstance(status, str) else Phase.LIVE


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and number >= 0 else None


def _iso_seconds(value: Any) -> float:
    try:
        return datetime.fromisoformat(_text(value)).timestamp()
    except ValueError:
        return 0.0
