"""Nosana's deployments API, call by call, and what its answers mean. Source: specs/nosana.md §4.8, §7.10."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Literal
from urllib.parse import quote

from oracle.providers import errors
from oracle.providers.failures import quotable
from oracle.providers.http import Http

PAGE: Final = 100
READ_SECONDS: Final = 20.0
WRITE_SECONDS: Final = 30.0
_MOST_PAGES: Final = 100


class Status(StrEnum):
    DRAFT = "DRAFT"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    ERROR = "ERROR"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    ARCHIVED = "ARCHIVED"


@dataclass(frozen=True, slots=True)
class Deployment:
    """`status` is what was last asked for; whether a job runs is another question. `url` is of its first endpoint."""

    id: str
    name: str
    status: Status
    market: str
    replicas: int
    timeout_minutes: int
    created_at: float
    url: str | None


@dataclass(frozen=True, slots=True)
class DeploymentJob:
    """A job that a deployment listed. `started_at` is 0 until a host has taken it."""

    job: str
    state: str
    started_at: int

    @property
    def is_live(self) -> bool:
        return self.state in ("QUEUED", "RUNNING")


class DeploymentsApi:
    """`rest` is the gateway of all services."""

    def __init__(self, rest: Http) -> None:
        self._rest = rest

    async def create(
        self, name: str, market: str, definition: Mapping[str, Any], *, replicas: int, timeout_minutes: int
    ) -> str:
        """A draft: nothing runs, and nothing is charged, until it is started. Returns its id.

        There is no idempotency key. Raises `UNKNOWN` where the answer is lost.
        """
        body = {
            "name": name,
            "market": market,
            "replicas": replicas,
            "timeout": timeout_minutes,
            "strategy": "SIMPLE",
            "job_definition": definition,
        }
        answer = await self._rest.call("POST", "deployments/create", json=body, repeatable=False, seconds=WRITE_SECONDS)
        made = read_deployment(self._rest.json(answer, repeatable=False))
        if made is None:
            raise self._rest.unreadable("a deployment without its id", repeatable=False)
        return made.id

    async def all(self) -> list[Deployment]:
        """Every deployment of the account. Raises ORC-PROVIDER-036 where the pages do not add up."""
        found: dict[str, Deployment] = {}
        rows, cursor = 0, None
        for _ in range(_MOST_PAGES):
            params: dict[str, str | int] = {"limit": PAGE, "sort_order": "asc"}
            if cursor is not None:
                params["cursor"] = cursor
            body = await self._get("deployments", params)
            items = body.get("deployments") if isinstance(body, dict) else None
            pagination = body.get("pagination") if isinstance(body, dict) else None
            if not isinstance(items, list) or not isinstance(pagination, dict):
                raise self._rest.unreadable("no list of deployments", repeatable=True)
            read = [read_deployment(item) for item in items]
            if None in read:
                # It might be the one that is looked for.
                raise self._rest.unreadable("a deployment without id, name or status", repeatable=True)
            found |= {one.id: one for one in read if one is not None}
            rows += len(items)
            cursor = pagination.get("cursor_next")
            if cursor is None:
                total = pagination.get("total_items")
                if isinstance(total, int) and rows < total:
                    raise errors.LOOK_UP_INCOMPLETE(f"{rows} of {total} deployments were listed")
                return list(found.values())
        raise errors.LOOK_UP_INCOMPLETE(f"more than {rows} deployments")

    async def read(self, deployment_id: str) -> Deployment | None:
        """None where the account has no such deployment."""
        path = f"deployments/{quote(deployment_id, safe='')}"
        answer = await self._rest.call("GET", path, repeatable=True, seconds=READ_SECONDS, expect={404})
        body = self._rest.json(answer, repeatable=True)
        if answer.status == 404:
            # A proxy's page is not JSON, and proves nothing.
            return None
        deployment = read_deployment(body)
        if deployment is None:
            raise self._rest.unreadable("no deployment", repeatable=True)
        return deployment

    async def jobs(self, deployment_id: str) -> list[DeploymentJob]:
        """Its latest jobs, newest first."""
        body = await self._get(f"deployments/{quote(deployment_id, safe='')}/jobs", {"limit": 20})
        items = body.get("jobs") if isinstance(body, dict) else None
        if not isinstance(items, list):
            raise self._rest.unreadable("no list of jobs", repeatable=True)
        return [read_job(item) for item in items if isinstance(item, dict)]

    async def result(self, deployment_id: str, job: str) -> Any:
        """The result document of a job, with its logs; None where there is none yet."""
        body = await self._get(f"deployments/{quote(deployment_id, safe='')}/jobs/{quote(job, safe='')}", {})
        return body.get("jobResult") if isinstance(body, dict) else None

    async def complaint(self, deployment_id: str) -> str:
        """What its last event says went wrong; empty where that was none."""
        body = await self._get(f"deployments/{quote(deployment_id, safe='')}/events", {"limit": 10})
        items = body.get("events") if isinstance(body, dict) else None
        last = items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}
        kind = str(last.get("type", ""))
        return quotable(f"{kind} {last.get('message', '')}", ()) if kind.endswith("_ERROR") else ""

    async def act(self, deployment_id: str, action: Literal["start", "stop", "archive"]) -> None:
        """Whether it happened is for `read` to say: a lost answer raises, and the status tells."""
        await self._rest.call(
            "POST", f"deployments/{quote(deployment_id, safe='')}/{action}", repeatable=True, seconds=WRITE_SECONDS
        )

    async def close(self) -> None:
        await self._rest.close()

    async def _get(self, path: str, params: Mapping[str, str | int]) -> Any:
        answer = await self._rest.call("GET", path, params=params, repeatable=True, seconds=READ_SECONDS)
        return self._rest.json(answer, repeatable=True)


def read_deployment(item: Any) -> Deployment | None:
    """One deployment of any answer; None for what is none."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str) or not isinstance(item.get("name"), str):
        return None
    try:
        status = Status(item["status"])
    except (KeyError, ValueError):
        return None
    return Deployment(
        id=item["id"],
        name=item["name"],
        status=status,
        market=item["market"] if isinstance(item.get("market"), str) else "",
        replicas=_whole(item.get("replicas")) or 1,
        timeout_minutes=_whole(item.get("timeout")),
        created_at=_unix_seconds(item.get("created_at")),
        url=_first_url(item.get("endpoints")),
    )


def read_job(item: Mapping[str, Any]) -> DeploymentJob:
    return DeploymentJob(str(item.get("job", "")), str(item.get("state", "")), _whole(item.get("time_start")))


def _first_url(endpoints: Any) -> str | None:
    first = endpoints[0] if isinstance(endpoints, list) and endpoints else None
    url = first.get("url") if isinstance(first, dict) else None
    return url.rstrip("/") if isinstance(url, str) and url else None


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _unix_seconds(value: Any) -> float:
    """Of a time such as `2025-12-04T12:20:13.591Z`; 0 where it is none."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
