"""The emulator as a whole: one address for the gateway, the pin and the IPFS gateway."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from oracle.localnet.emulators.faults import Fault, Faults, Wire, wire_kinds
from oracle.localnet.emulators.nosana.accounts import Account
from oracle.localnet.emulators.nosana.chain_host import ChainHost
from oracle.localnet.emulators.nosana.deployments import Deployments
from oracle.localnet.emulators.nosana.guard import Refused, refuse, unauthorized
from oracle.localnet.emulators.nosana.host import JOB_KINDS, Hosts
from oracle.localnet.emulators.nosana.markets import MARKETS, Market
from oracle.localnet.emulators.nosana.other import Other
from oracle.localnet.emulators.nosana.reads import JobReads, rate_limited
from oracle.localnet.emulators.nosana.timings import Timings
from oracle.localnet.emulators.nosana.world import World
from oracle.localnet.emulators.nosana.writes import JobWrites
from oracle.localnet.emulators.records import Records
from oracle.localnet.emulators.upstream import REPOSITORIES, ModelServer

PIN_TOKEN = "localnet-pinata"


class Nosana:
    """Give it to `server.serve`. Jobs are run on the OpenAI-compatible server at `model_url`.

    With an `rpc_url` a host works for the queues of that chain, too, where `genesis.place` has put the Jobs program;
    `host_waits` says whether it stands in a queue before jobs come (`chain_host`).

    `models` maps the repository that a job names to that server's name for the model. With a `state_directory` the
    books survive a restart, and what had not ended goes on.
    """

    def __init__(
        self,
        model_url: str,
        *,
        models: Mapping[str, str] = REPOSITORIES,
        accounts: Sequence[Account] = (Account(),),
        markets: Sequence[Market] = MARKETS,
        timings: Timings | None = None,
        pin_token: str = PIN_TOKEN,
        state_directory: Path | None = None,
        now: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        rpc_url: str | None = None,
        host_waits: bool = False,
    ) -> None:
        self.faults = Faults(wire_kinds(("job", JOB_KINDS)))
        self._world = World(
            accounts=tuple(accounts),
            markets=tuple(markets),
            models=ModelServer(model_url, models),
            timings=timings or Timings(),
            faults=self.faults,
            records=Records(state_directory, "nosana"),
            now=now,
            entropy=entropy,
        )
        self._hosts = Hosts(self._world)
        self._writes = JobWrites(self._world, self._hosts)
        self._deployments = Deployments(self._world, self._hosts, self._writes)
        self._pin_token = pin_token
        self._chain_host = None if rpc_url is None else ChainHost(self._world, rpc_url, waits=host_waits)

    def routes(self) -> ASGIApp:
        world = self._world
        routes = [
            *self._writes.routes(),
            *JobReads(world).routes(),
            *Other(world, self._pin_token).routes(),
            *self._deployments.routes(),
        ]
        app = Starlette(routes=routes, exception_handlers={Refused: _answer_of, 404: _not_found, 405: _not_found})
        app.router.redirect_slashes = False
        return app

    def canonical_path(self, path: str) -> str:
        """With and without `/api`, with and without a slash at the end (§1.3)."""
        without = path.removeprefix("/api") if path.startswith("/api/") else path
        return without.rstrip("/") or "/"

    def refusal(self, fault: Fault) -> Response:
        match fault.kind:
            case Wire.RATE_LIMIT:
                answer = rate_limited()
                if fault.retry_after is not None:
                    answer.headers["retry-after"] = fault.retry_after
                return answer
            case Wire.UNAUTHORIZED:
                return unauthorized().response
            case Wire.OUT_OF_CREDITS:
                text = fault.text or "Insufficient credits. Available: $0.000, Required: $1.047"
                return refuse(fault.status or 402, text).response
        return refuse(fault.status or 500, fault.text or "Internal server error").response

    def books(self) -> dict[str, Any]:
        """Accounts with their balance, all jobs, deployments and idempotency keys, how much is pinned."""
        world = self._world
        accounts = [
            {
                "user_id": account.user_id,
                "address": account.address,
                **{
                    f"{name}_micro_usd": amount
                    for name, amount in asdict(world.jobs.balance(account.user_id, account.assigned_micro_usd)).items()
                },
            }
            for account in world.accounts
        ]
        return {
            "accounts": accounts,
            "jobs": [{**asdict(job), "state": job.state.name} for job in world.jobs],
            "idempotency_keys": {
                key: {"user_id": record["user_id"], "dead": record["dead"]}
                for key, record in world.records.read("idempotency")
            },
            "deployments": self._deployments.as_json(),
            "pins": world.records.count("pin"),
        }

    async def start(self) -> None:
        self._hosts.start()
        if self._chain_host is not None:
            self._chain_host.start()

    async def close(self) -> None:
        if self._chain_host is not None:
            await self._chain_host.close()
        await self._hosts.close()
        await self._world.models.close()
        self._world.records.close()


async def _answer_of(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def _not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"message": "Not Found", "code": "NOT_FOUND"}, 404)
