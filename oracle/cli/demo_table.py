"""What the demo shows: requests as they move, and what became of them."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from oracle.cli.demo_scenes import Take
from oracle.core.lifecycle import ENDED, State
from oracle.core.request import Reason, Status


def progress(takes: list[Take]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("request", "scene", "state", "route"):
        table.add_column(column)
    for take in takes:
        style = "green" if take.state in (State.SETTLED,) else "yellow" if take.state in ENDED else "cyan"
        table.add_row(
            cut(str(take.submitted.address)), take.scene.title, Text(take.state, style=style), take.route or "-"
        )
    return table


def results(takes: list[Take]) -> Table:
    """The table at the end: one row a request. Hashes and addresses are cut; `--json` has them whole."""
    table = Table(
        title="What became of the requests",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        header_style="bold",
    )
    table.add_column("request", no_wrap=True)
    table.add_column("route", no_wrap=True)
    table.add_column("answer", overflow="fold")
    table.add_column("on chain", no_wrap=True)
    table.add_column("output hash\n= recomputed", no_wrap=True)
    table.add_column("fee paid,\nlamports", justify="right", no_wrap=True)
    table.add_column("time,\ns", justify="right", no_wrap=True)
    for take in takes:
        assert take.ended is not None
        header = take.ended.header
        on_chain = header.output_hash.hex()
        equal = "=" if on_chain == take.hash_recomputed else "≠"
        table.add_row(
            f"{take.scene.title}\n{cut(str(take.ended.address))}",
            take.route.replace(" → ", "\n→ ") or "-",
            take.answer or "-",
            Text(_status(take), style="bold red" if take.problems else "green"),
            f"{on_chain[:8]}…\n{equal} {take.hash_recomputed[:8]}…" if take.hash_recomputed else "-",
            f"{take.fee_paid_lamports or 0:,}",
            f"{take.seconds:.1f}" if take.seconds is not None else "-",
        )
    return table


def cut(address: str) -> str:
    return f"{address[:4]}…{address[-4:]}"


def _status(take: Take) -> str:
    assert take.ended is not None
    header = take.ended.header
    status = header.status.name.lower()
    if header.status is Status.REJECTED and header.reason in set(Reason):
        status += f"\n{Reason(header.reason).name.lower()}"
    if header.status is not Status.FULFILLED and not take.problems:
        status += "\nfee refunded"
    return status


def as_json(take: Take) -> dict[str, object]:
    assert take.ended is not None
    header = take.ended.header
    return {
        "request": str(take.ended.address),
        "scene": take.scene.title,
        "route": take.route,
        "answer": take.answer or None,
        "status": header.status.name.lower(),
        "reason": header.reason,
        "output_hash_on_chain": header.output_hash.hex(),
        "output_hash_recomputed": take.hash_recomputed or None,
        "verified": take.verified,
        "input_hash": take.input_hash or None,
        "input_origin": take.input_origin,
        "fee_paid_lamports": take.fee_paid_lamports,
        "seconds": take.seconds,
        "problems": take.problems,
    }
