"""`oracle verify`: is this answer the one that the chain recorded?"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from solana.rpc.commitment import Confirmed, Finalized
from solders.pubkey import Pubkey

from oracle.cli import options
from oracle.cli.errors import FILE_NOT_WRITTEN
from oracle.cli.options import LOCALNET, ProgramOption, UrlOption
from oracle.cli.output import JsonOption, print_json, say
from oracle.client.verify import Verification
from oracle.client.verify import verify as check_all
from oracle.core.text import harmless


def verify(
    request: Annotated[str, typer.Argument(help="Address of the request.")],
    url: UrlOption = LOCALNET,
    uri: Annotated[str | None, typer.Option(help="Operator's base URI, instead of the registered one.")] = None,
    finalized: Annotated[bool, typer.Option("--finalized", help="Believe only what can no longer change.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the verified output here.")] = None,
    program: ProgramOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch output and receipt, recompute their hashes and compare all with the chain. Exit status 0 means yes."""
    address = options.address(request, "REQUEST")
    result = asyncio.run(_verify(url, options.program(program), address, uri, finalized))
    if json:
        print_json(
            {
                "request": request,
                "verified": result.ok,
                "checks": [asdict(check) for check in result.checks],
                "output": result.output.decode(errors="replace") if result.ok and result.output is not None else None,
                "receipt": result.receipt,
            }
        )
    else:
        _show(result)
    if not result.ok:
        raise typer.Exit(1)
    if output is not None and result.output is not None:
        try:
            output.write_bytes(result.output)
        except OSError as error:
            raise FILE_NOT_WRITTEN(f"{output}: {error.strerror}") from None


def _show(result: Verification) -> None:
    width = max(len(check.name) for check in result.checks)
    for check in result.checks:
        mark = ("yes", "green") if check.ok else ("NO ", "bold red")
        say(Text.assemble(mark, f"  {check.name:<{width}}", (f"  {harmless(check.detail)}", "dim")))
    verdict = ("verified", "bold green") if result.ok else ("NOT verified", "bold red")
    say("")
    say(Text.assemble(verdict))


async def _verify(url: str, program_id: Pubkey, address: Pubkey, uri: str | None, finalized: bool) -> Verification:
    commitment = Finalized if finalized else Confirmed
    async with options.cluster(url) as rpc:
        return await check_all(rpc, program_id, address, base_uri=uri, commitment=commitment)
