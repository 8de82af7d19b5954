"""What `oracle submit` does with a question: on chain, to its end, checked, and closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import typer
from rich.status import Status as Spinner
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain.clock import SlotClock
from oracle.chain.rpc.client import Client
from oracle.cli import options
from oracle.cli.output import console, facts, lamports, print_json, say, stderr
from oracle.client import requests
from oracle.client.verify import Verification, verify
from oracle.core.errors import OracleError
from oracle.core.request import Body, Reason, Request, Status
from oracle.core.text import harmless

OVERDUE_SLOTS = 25
"""Past the deadline, this long is left to the daemon, which expires and closes at its own cost."""

SERVED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Ask:
    queue: Pubkey
    body: Body
    fee_lamports: int
    deadline_seconds: float
    wait: bool = True
    close: bool = True
    micro_lamports: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a question. `ended` is None where nobody waited for it."""

    address: Pubkey
    signature: str
    ended: Request | None = None
    result: Verification | None = None
    is_closed: bool = False
    left_open_because: str = ""

    @property
    def is_verified(self) -> bool:
        return self.result is not None and self.result.ok

    @property
    def answer(self) -> bytes | None:
        """Only what is verified is an answer."""
        return self.result.output if self.result is not None and self.result.ok else None


async def ask(what: Ask, url: str, program_id: Pubkey, wallet: Keypair, *, quiet: bool) -> Answered:
    """Submit, and unless told otherwise wait, verify and close. Raises what the requester's side raises."""
    async with options.cluster(url) as rpc:
        terms = (await requests.read_queue(rpc, program_id, what.queue)).terms
        ttl_slots = await slots_of(rpc, what.deadline_seconds)
        ttl_slots = min(max(ttl_slots, terms.min_deadline_slots), terms.max_deadline_slots)
        nonce = requests.draw_nonce()
        address = requests.address_of(program_id, what.queue, wallet.pubkey(), nonce, what.body)
        # Said before it is sent: whatever becomes of the sending, there it is found.
        _tell(quiet, f"Request {address}, fee {lamports(what.fee_lamports)}, {ttl_slots:,} slots to live")
        submitted = await requests.submit(
            rpc,
            program_id,
            queue=what.queue,
            requester=wallet,
            body=what.body,
            fee_lamports=what.fee_lamports,
            ttl_slots=ttl_slots,
            nonce=nonce,
            micro_lamports=what.micro_lamports,
        )
        answered = Answered(address, str(submitted.signature))
        if not what.wait:
            return answered
        with _spinner("waiting for the answer", quiet):
            ended = await _ended(rpc, program_id, wallet, answered, what)
        with _spinner("verifying", quiet):
            result = await _verified(rpc, program_id, ended)
        answered = replace(answered, ended=ended, result=result)
        return await _closed(rpc, program_id, wallet, answered) if what.close else answered


async def _ended(rpc: Client, program_id: Pubkey, wallet: Keypair, answered: Answered, what: Ask) -> Request:
    """The request at its end, which we bring about ourselves where nobody does."""
    patience_seconds = what.deadline_seconds * 2 + 60
    request = await requests.wait(
        rpc, answered.address, timeout_seconds=patience_seconds, overdue_slots=OVERDUE_SLOTS if what.close else None
    )
    if request.header.status.is_open:
        # Another may expire it in the same moment.
        with contextlib.suppress(OracleError):
            await requests.expire(rpc, program_id, answered.address, wallet)
        request = await requests.wait(rpc, answered.address, timeout_seconds=patience_seconds)
    return request


async def _verified(rpc: Client, program_id: Pubkey, ended: Request) -> Verification | None:
    if ended.header.status is not Status.FULFILLED:
        return None
    # The operator serves an output once it has seen the settlement confirmed, which may be a moment after us.
    until = asyncio.get_running_loop().time() + SERVED_SECONDS
    while True:
        result = await verify(rpc, program_id, ended.address)
        if result.output is not None or asyncio.get_running_loop().time() > until:
            return result
        await asyncio.sleep(0.5)


async def _closed(rpc: Client, program_id: Pubkey, wallet: Keypair, answered: Answered) -> Answered:
    """Closed, unless it is the evidence against an operator. What fails here takes nothing from the answer."""
    assert answered.ended is not None
    if answered.result is not None and not answered.result.ok:
        return replace(answered, left_open_because="it is the evidence of what was recorded")
    try:
        await requests.close(rpc, program_id, answered.ended, wallet)
    except OracleError as error:
        return replace(answered, left_open_because=str(error))
    return replace(answered, is_closed=True)


async def slots_of(rpc: Client, seconds: float) -> int:
    """Seconds in slots, by the slot time that the cluster has lately kept."""
    clock = SlotClock()
    clock.seed(await rpc.get_recent_performance_samples())
    return clock.slots(seconds)


def show(answered: Answered, json: bool) -> None:
    if json:
        _show_json(answered)
        return
    if answered.ended is None:
        say(f"Submitted; see what becomes of it with oracle verify {answered.address}", to=stderr)
        return
    if answered.answer is not None:
        _print_answer(answered.answer)
        say("", to=stderr)
    header = answered.ended.header
    status = header.status.name.lower() + (f" ({_reason(header.reason)})" if header.status is Status.REJECTED else "")
    summary = {"request": str(answered.address), "status": status, "verified": "yes" if answered.is_verified else "no"}
    if header.status is Status.FULFILLED:
        summary |= {"output hash": header.output_hash.hex(), "job hash": header.job_hash.hex()}
    if answered.result is not None and not answered.result.ok:
        failed = (check for check in answered.result.checks if not check.ok)
        summary |= {"failed": "; ".join(f"{check.name}: {check.detail}" for check in failed)}
    if answered.is_closed:
        summary |= {"closed": "yes, what was left is back"}
    elif answered.left_open_because:
        summary |= {"closed": f"no, {answered.left_open_because}; see oracle close {answered.address}"}
    facts("Result", summary, to=stderr)


def _print_answer(answer: bytes) -> None:
    """To a terminal without anything that would drive it; to a pipe or a file byte for byte."""
    if console.is_terminal:
        say(harmless(answer.decode(errors="replace"), keep="\n\t"))
    else:
        typer.echo(answer)


def _show_json(answered: Answered) -> None:
    document: dict[str, object] = {"request": str(answered.address), "signature": answered.signature}
    if answered.ended is not None:
        header, result = answered.ended.header, answered.result
        document |= {
            "status": header.status.name.lower(),
            "reason": _reason(header.reason) if header.status is Status.REJECTED else None,
            "answer": None if answered.answer is None else answered.answer.decode(errors="replace"),
            "verified": answered.is_verified,
            "output_hash": header.output_hash.hex(),
            "job_hash": header.job_hash.hex(),
            "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in result.checks] if result else [],
            "closed": answered.is_closed,
        }
    print_json(document)


def _reason(number: int) -> str:
    return Reason(number).name.lower() if number in set(Reason) else str(number)


def _tell(quiet: bool, line: str) -> None:
    if not quiet:
        say(line, to=stderr)


@contextlib.contextmanager
def _spinner(what: str, quiet: bool) -> Iterator[None]:
    if quiet or not stderr.is_terminal:
        yield
        return
    with Spinner(what, console=stderr):
        yield
