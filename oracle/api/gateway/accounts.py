"""What a client may know of itself: its models, what it has used, and how its recordings fare."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from oracle.api.gateway.errors import NOT_HERE, REQUEST_INVALID
from oracle.api.gateway.keys import Client
from oracle.core import routing
from oracle.core.budget import DAY_MS, day_began_ms
from oracle.core.errors import OracleError
from oracle.pipeline.context import Context
from oracle.store import calls, recordings, requests, settlements
from oracle.store.calls import Used


def models_of(context: Context, client: Client) -> list[str]:
    """The models that the client may ask for, by name."""
    allowed = client.settings.models
    return sorted(
        name
        for name in context.routes
        if (allowed is None or name in allowed) and _has_route(context, name, private=client.settings.private)
    )


async def usage_of(context: Context, client: Client, since: str | None) -> dict[str, Any]:
    """Use since a unix time in seconds, by default since midnight UTC, beside the limits of the day."""
    now_ms = context.clock.now_ms()
    today_ms = day_began_ms(now_ms)
    since_ms = today_ms if since is None else _milliseconds(since)

    def read(c: Connection) -> tuple[Used, Used, dict[str, Used]]:
        name = client.name
        return calls.used(c, name, today_ms), calls.used(c, name, since_ms), calls.used_by_model(c, name, since_ms)

    today, used, by_model = await context.store.read(read)
    limits = client.settings
    return {
        "object": "usage",
        "client": client.name,
        "since": since_ms // 1000,
        **_told(used),
        "models": {name: _told(each) for name, each in by_model.items()},
        "today": {"until": (today_ms + DAY_MS) // 1000, "under_way": client.under_way, **_told(today)},
        "limits": {
            "requests_per_minute": limits.requests_per_minute,
            "concurrent": limits.concurrent,
            "tokens_per_day": limits.tokens_per_day,
            "lamports_per_day": limits.lamports_per_day,
        },
    }


async def recording_of(context: Context, client: Client, address: str) -> dict[str, Any]:
    """How far the recording of an answer has come. Raises ORC-GATEWAY-016 where it is not one of this client's."""

    def read(c: Connection) -> dict[str, Any] | None:
        row = recordings.find(c, address)
        if row is None or calls.get(c, row.call_id).key != client.name:
            return None
        request = requests.latest(c, address)
        signature = None if row.signature_id is None else settlements.signature_by_id(c, row.signature_id).signature
        return {
            "object": "recording",
            "request": address,
            "call": row.call_id,
            "state": row.state,
            "request_state": None if request is None else request.state,
            "signature": signature,
            "output_hash": None if request is None else request.output_sha256,
            "job_hash": None if request is None else request.job_hash,
            "error": row.error_code,
        }

    found = await context.store.read(read)
    if found is None:
        raise NOT_HERE("no such recording")
    return found


def _has_route(context: Context, model: str, *, private: bool) -> bool:
    capabilities = {name: provider.capabilities for name, provider in context.providers.items()}
    try:
        return bool(routing.candidates(model, context.routes, capabilities, private=private, any_model=False))
    except OracleError:
        return False


def _milliseconds(since: str) -> int:
    if not since.isdecimal() or len(since) > 12:
        raise REQUEST_INVALID("`since` must be a unix time in seconds")
    return int(since) * 1000


def _told(used: Used) -> dict[str, int]:
    return {
        "calls": used.calls,
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "lamports": used.lamports,
    }
