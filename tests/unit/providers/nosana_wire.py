"""A clock, answers and documents for tests of the Nosana adapter. Payloads are those of specs/nosana.md §7."""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import orjson
from provider_wire import COMPLETION, answer

from oracle.core.compute import IdempotencyKey, Message, Task
from oracle.providers.http import Http
from oracle.providers.nosana.api import NosanaApi
from oracle.providers.nosana.cid import cid_v0
from oracle.providers.nosana.compute import NosanaCompute, Terms
from oracle.providers.nosana.look_up import LookUp
from oracle.providers.nosana.market_place import MarketPlace
from oracle.providers.nosana.markets import Wanted
from oracle.providers.nosana.purchase import Purchase
from oracle.providers.nosana.templates import built_in
from oracle.providers.pace import Pace
from oracle.providers.pricing import FixedRates

KEY = IdempotencyKey("5f0c2f8e-2a41-4f7e-9a9f-0d3c1b2a4e5f")
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TASK = Task(MODEL, (Message("user", "What is six times seven?"),), max_output_tokens=32, seed=7)
MARKET = "7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq"
OTHER_MARKET = "Dcwz62TisNbWuto6KJM2EGYGVKnHbdZGVGmgLASzsXy8"
JOB = "3ogUn1GNXoASaRbxPNeVJnVv5rG4EPBtmQmX61jVorUe"
PROJECT = "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF"
NOW = 1_785_000_000

# §7.3
BOUGHT = {
    "tx": "2YcoEGf3yzAr4k5zXtwEZh9wYW351SsuS4sGJB8bd4FZ8rUXnLVy6w3xWpQC6L2psnTQ4wCMSwV1eCGBPh8apqVn",
    "job": JOB,
    "run": "3WTypo2uYrwMHJ5yFFwUPX6T25n39PwNwke7pz22P4Ut",
    "credits": {
        "costUSD": 0.048,
        "creditsUsed": 48,
        "reservationId": "e578ab6f-8a7b-48c0-a4b0-0869f074227d",
        "project": PROJECT,
    },
}

# §7.8, and the same as another, cheaper market.
MARKETS: list[dict[str, Any]] = [
    {
        "address": OTHER_MARKET,
        "slug": "nvidia-4090-community",
        "name": "NVIDIA 4090 Community",
        "sft": "HLuwMuBQgJt9QzR64VuqKod5wxZkCogryK4CFqH2id43",
        "type": "COMMUNITY",
        "usd_reward_per_hour": 0.218175,
        "nos_reward_per_second": 0.000196,
        "nos_job_price_per_second": 0.0002156,
        "network_fee_percentage": 10,
        "gpu_types": ["NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090"],
        "required_images": [],
        "client": False,
        "lowest_vram": 24,
    },
    {
        "address": MARKET,
        "slug": "nvidia-3060",
        "name": "NVIDIA 3060",
        "type": "PREMIUM",
        "usd_reward_per_hour": 0.0436,
        "nos_job_price_per_second": 0.000048,
        "network_fee_percentage": 10,
        "gpu_types": ["NVIDIA GeForce RTX 3060"],
        "lowest_vram": 8,
    },
]


def job(**changes: Any) -> dict[str, Any]:
    """A running job as REST tells it (§7.4)."""
    return {
        "id": 47675178,
        "address": JOB,
        "ipfsJob": "QmSMXKpPP9P4yuGuR1pdgfY7dYpGNcdY5mmFLeRKryc9oq",
        "ipfsResult": None,
        "market": MARKET,
        "node": "2Zqh2jyHWKtqxGy4zMjicNRFq6EPa5JMkhxKTkyVP2yJ",
        "payer": "credFgXCGH3JFUT6WEKF6tJitxrXhSCM2VEqF7GE6pt",
        "price": 48,
        "project": PROJECT,
        "state": 1,
        "type": "inference-oracle",
        "jobDefinition": None,
        "jobResult": None,
        "jobStatus": None,
        "timeEnd": 0,
        "timeStart": NOW,
        "timeout": 3600,
        "usdRewardPerHour": 0.04796,
        "listedAt": NOW - 10,
    } | changes


def queued(**changes: Any) -> dict[str, Any]:
    return job(state=0, timeStart=0, node="1" * 32, type=None) | changes


def completed(document: Any, **changes: Any) -> dict[str, Any]:
    cid = cid_v0(orjson.dumps(document))
    return job(state=2, ipfsResult=cid, timeEnd=NOW + 120, jobStatus="success") | changes


def printed(content: bytes, status: int = 200, *, width: int = 480) -> tuple[list[str], list[str]]:
    """What the job's script prints for an answer of the model server: its parts twice, its end three times."""
    encoded = base64.b64encode(content).decode()
    pieces = [encoded[at : at + width] for at in range(0, len(encoded), width)]
    parts = [f"ORACLE_PART {number} {len(pieces)} {piece}" for number, piece in enumerate(pieces, 1)]
    end = f"ORACLE_END {status} {len(pieces)} {hashlib.sha256(content).hexdigest()}"
    return parts * 2, [end] * 3


def document(content: bytes | None = None, http_status: int = 200, **changes: Any) -> dict[str, Any]:
    """A result document (§7.5) whose operation is changed by `exitCode=1` or `diagnostics__reason__jobExpired=True`."""
    body = content if content is not None else orjson.dumps({**COMPLETION, "model": MODEL})
    parts, ends = printed(body, http_status)
    result: dict[str, Any] = {
        "status": "success",
        "startTime": NOW * 1000,
        "endTime": (NOW + 120) * 1000,
        "opStates": [
            {
                "operationId": "inference",
                "group": "inference",
                "providerId": "c0ffee000001",
                "status": "success" if http_status == 200 else "failed",
                "startTime": NOW * 1000,
                "endTime": (NOW + 119) * 1000,
                "exitCode": 0 if http_status == 200 else 1,
                "logs": [
                    {"type": "stdout", "log": line + "\n", "timestamp": "2026-07-25T17:21:58.500000000Z"}
                    for line in parts + ends
                ],
                "errors": [],
                "results": {"part": parts, "end": ends},
                "diagnostics": {"reason": {"hostShutDown": False, "jobStopped": False, "jobExpired": False}},
            }
        ],
    }
    result = copy.deepcopy(result)
    for path, value in changes.items():
        *way, last = path.split("__")
        target = result["opStates"][0]
        for step in way:
            target = target.setdefault(step, {})
        target[last] = value
    return result


class Network:
    """Routes requests by method and path to replies, records them, and pins and serves documents as IPFS does.

    A reply is a JSON value, a function of the request, an exception, or a list of those, used up one by one.
    """

    def __init__(self, **routes: Any) -> None:
        self.requests: list[httpx.Request] = []
        self.pinned: dict[str, bytes] = {}
        self.routes: dict[str, Any] = {
            "GET /markets/": MARKETS,
            "GET /jobs/count": {"total": 0, "byState": {"QUEUED": 0, "RUNNING": 0, "COMPLETED": 0, "STOPPED": 0}},
            "POST /jobs/list": BOUGHT,
            "POST /pinning/pinJSONToIPFS": self._pin,
            **routes,
        }

    def keep(self, content: Any) -> str:
        """Put a document on IPFS."""
        raw = content if isinstance(content, bytes) else orjson.dumps(content)
        cid = cid_v0(raw)
        self.pinned[cid] = raw
        return cid

    def calls(self, route: str) -> list[httpx.Request]:
        return [request for request in self.requests if f"{request.method} {request.url.path}" == route]

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path.startswith("/ipfs/"):
            content = self.pinned.get(request.url.path.removeprefix("/ipfs/"))
            return httpx.Response(404, content=b"<html>") if content is None else httpx.Response(200, content=content)
        reply = self.routes.get(f"{request.method} {request.url.path}", answer({"message": "Not Found"}, 404))
        if isinstance(reply, list) and reply and isinstance(reply[0], Reply):
            reply = (reply.pop(0) if len(reply) > 1 else reply[0]).what
        if isinstance(reply, Exception):
            raise reply
        if callable(reply):
            return reply(request)
        return httpx.Response(200, content=orjson.dumps(reply))

    def _pin(self, request: httpx.Request) -> httpx.Response:
        cid = self.keep(request.content)
        return httpx.Response(200, json={"IpfsHash": cid, "PinSize": len(request.content), "Timestamp": "x"})


class Reply:
    """One reply of several."""

    def __init__(self, what: Any) -> None:
        self.what = what


def in_turn(*replies: Any) -> list[Reply]:
    return [Reply(reply) for reply in replies]


class Clock:
    """Wall and monotonic time in one, which only sleeping and `advance` move."""

    def __init__(self) -> None:
        self.seconds = float(NOW)
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.seconds += seconds


def api_of(network: Network) -> NosanaApi:
    def http(base_url: str, **headers: str) -> Http:
        return Http("nosana", base_url, pace=Pace(), headers=headers, transport=httpx.MockTransport(network.answer))

    return NosanaApi(
        http("https://api.nosana.example", Authorization="Bearer nos_test_key"),
        http("https://pin.example", Authorization="Bearer test-pinata-jwt"),
        http("https://gateway.example"),
        listing=Pace(),
    )


WANTED = Wanted(max_usd_per_hour=Decimal("0.5"), min_vram_gb=8, max_queued_jobs=5)


def compute_of(
    network: Network, clock: Clock, *, project: str | None = None, wanted: Wanted = WANTED, **terms: Any
) -> NosanaCompute:
    api = api_of(network)
    seconds: Callable[[], float] = clock
    return NosanaCompute(
        "nosana",
        api,
        Terms(**({"template": built_in("vllm")} | terms)),
        MarketPlace(api, wanted, clock=seconds),
        LookUp(api, api_key="nos_test_key", project=project, clock=seconds, now=seconds),
        Purchase(api, clock=seconds, now=seconds, sleep=clock.sleep),
        rates=FixedRates(sol_usd=Decimal(100)),
        clock=seconds,
        now=seconds,
        sleep=clock.sleep,
    )
