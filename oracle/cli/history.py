"""What is known of one request, gathered from the database and shown as a timeline."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

import oracle.pipeline.daemon  # noqa: F401  declares every code that a row may hold
from oracle.cli.errors import REQUEST_UNKNOWN
from oracle.cli.list_ import summary
from oracle.cli.output import console, facts, lamports, table
from oracle.core.errors import CATALOGUE
from oracle.core.request import Reason, Status
from oracle.store import attempts, journal, ledger, requests, settlements
from oracle.store.engine import Store
from oracle.store.rows import RequestRow


async def read(url: str, address: str) -> dict[str, Any]:
    """What the database at `url` knows. Raises ORC-CLI-002."""
    store = await Store.open(url)
    try:
        return await store.read(lambda c: _gather(c, address))
    finally:
        await store.close()


def _gather(c: Connection, address: str) -> dict[str, Any]:
    """One document of all that the database knows of the newest request at an address. Raises ORC-CLI-002."""
    row = requests.latest(c, address)
    if row is None:
        raise REQUEST_UNKNOWN(address)
    intents = settlements.of(c, row.id)
    return {
        "request": summary(row),
        "attempts": [attempt._asdict() for attempt in attempts.of(c, row.id)],
        "settlements": [
            {
                **intent._asdict(),
                "signatures": [
                    {"signature": s.signature, "state": s.state, "slot": s.slot, "error": s.error}
                    for s in settlements.signatures_of(c, intent.id)
                ],
            }
            for intent in intents
        ],
        "ledger": [entry._asdict() for entry in ledger.of(c, row.id)],
        "transaction_fees": [asdict(fee) for fee in ledger.transaction_fees(c, row.id)],
        "journal": [line._asdict() for line in journal.of(c, row.id)],
        "on_chain": Status(row.chain_status).name.lower(),
        "reject_reason": _reason(row),
    }


def _reason(row: RequestRow) -> str | None:
    if row.reject_reason is None:
        return None
    return Reason(row.reject_reason).name.lower() if row.reject_reason in set(Reason) else str(row.reject_reason)


def show(found: dict[str, Any]) -> None:
    row = found["request"]
    facts(
        f"Request {row['address']}",
        {
            "state": row["state"],
            "on chain": f"{found['on_chain']}, read at slot {row['chain_slot']}",
            "model": row["model"],
            "requester": row["requester"],
            "fee": lamports(row["fee_lamports"]),
            "created": f"slot {row['created_slot']}",
            "deadline": f"slot {row['deadline_slot']}",
            "output hash": row["output_sha256"] or "-",
            "job hash": row["job_hash"] or "-",
            **({"rejected for": found["reject_reason"]} if found["reject_reason"] else {}),
        },
    )
    _section(
        "Attempts",
        ("n", "provider", "model", "job", "state", "quoted", "cost", "error"),
        [
            (
                a["number"],
                a["provider"],
                a["model"],
                a["job_id"] or "-",
                a["state"],
                a["quoted_lamports"],
                "-" if a["cost_lamports"] is None else a["cost_lamports"],
                a["error_code"] or "",
            )
            for a in found["attempts"]
        ],
    )
    _section(
        "Settlements",
        ("kind", "state", "signature", "its state", "error"),
        [
            (s["kind"], s["state"], g["signature"], g["state"], s["error_code"] or "")
            for s in found["settlements"]
            for g in s["signatures"] or [{"signature": "-", "state": "-"}]
        ],
    )
    _section(
        "Money",
        ("kind", "lamports"),
        [
            *((entry["kind"], f"{entry['lamports']:,}") for entry in found["ledger"]),
            *((_shared(fee["settlements"]), f"{fee['lamports']:,}") for fee in found["transaction_fees"]),
        ],
    )
    _section(
        "Journal",
        ("when (UTC)", "slot", "event", "to", "code", "detail"),
        [
            (_time(j["at_ms"]), j["slot"] or "", j["event"], j["new_state"] or "", j["code"] or "", j["detail"] or "")
            for j in found["journal"]
        ],
    )
    if (code := row["error_code"]) and code in CATALOGUE:
        console.print()
        facts(
            "Last error", {code: CATALOGUE[code].title, "why": CATALOGUE[code].cause, "remedy": CATALOGUE[code].remedy}
        )


def _shared(count: int) -> str:
    return "tx_fee" if count == 1 else f"tx_fee, of {count} settlements together"


def _section(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if rows:
        console.print()
        console.print(table(title, columns, rows))


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
