"""Options that several commands share, and what they lead to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain import signer
from oracle.chain.program import idl
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import connect
from oracle.config import DEFAULT_PATH, Config, load

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="ORACLE_CONFIG", help="Configuration file.", show_default=True)
]
UrlOption = Annotated[
    str, typer.Option("--url", "-u", envvar="ORACLE_RPC_URL", help="RPC endpoint of the cluster, or devnet or mainnet.")
]
KeypairOption = Annotated[
    Path, typer.Option("--keypair", "-k", envvar="ORACLE_KEYPAIR", help="Keypair file that signs and pays.")
]
ProgramOption = Annotated[
    str | None, typer.Option("--program", help="Program address, if not the one of the shipped IDL.")
]

CONFIG = DEFAULT_PATH
LOCALNET = "http://127.0.0.1:8899"
KEYPAIR = Path("~/.config/solana/id.json")
_NAMED = {
    "localnet": LOCALNET,
    "devnet": "https://api.devnet.solana.com",
    "testnet": "https://api.testnet.solana.com",
    "mainnet": "https://api.mainnet-beta.solana.com",
}


@asynccontextmanager
async def cluster(url: str) -> AsyncIterator[Client]:
    client = connect(_NAMED.get(url, url))
    try:
        yield client
    finally:
        await client.close()


def keypair(path: Path) -> Keypair:
    """The requester's or authority's own key. Raises ORC-SIGNER-001 … 003."""
    return signer.read_keypair(path.expanduser())


def program(named: str | None) -> Pubkey:
    return idl.program_id() if named is None else address(named, "--program")


def address(text: str, option: str) -> Pubkey:
    """A base58 address; wrong usage where it is none."""
    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an address", param_hint=option) from None


def configuration(path: Path) -> Config:
    return load(path)
