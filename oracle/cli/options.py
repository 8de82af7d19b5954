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
from oracle.chain.rpc.pool import EndpointConfig, Pool
from oracle.cli.errors import WALLET_MISSING
from oracle.config import DEFAULT_PATH, Config, load
from oracle.core.errors import OracleError

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="ORACLE_CONFIG", help="Configuration file.", show_default=True)
]
UrlOption = Annotated[
    str,
    typer.Option("--url", "-u", envvar="ORACLE_RPC_URL", help="RPC endpoint, or localnet, devnet, testnet or mainnet."),
]
KeypairOption = Annotated[
    Path, typer.Option("--keypair", "-k", envvar="ORACLE_KEYPAIR", help="Keypair file that signs and pays.")
]
ProgramOption = Annotated[
    str | None, typer.Option("--program", help="Program address, if not the one of the shipped IDL.")
]

PATIENCE_SECONDS = 4.0
"""With an endpoint that does not answer: a person waits, and may have mistyped it."""

CONFIG = DEFAULT_PATH
LOCALNET = "http://127.0.0.1:8899"
KEYPAIR = Path("~/.config/solana/id.json")
_NAMED = {
    "localnet": LOCALNET,
    "devnet": "https://api.devnet.solana.com",
    "testnet": "https://api.testnet.solana.com",
    "mainnet": "https://api.mainnet-beta.solana.com",
}


def endpoint(url: str) -> str:
    """The RPC endpoint that is meant by a name, or by itself."""
    return _NAMED.get(url, url)


@asynccontextmanager
async def cluster(url: str) -> AsyncIterator[Client]:
    client = Pool([EndpointConfig(endpoint(url))], patience_seconds=PATIENCE_SECONDS).client
    try:
        yield client
    finally:
        await client.close()


def keypair(path: Path) -> Keypair:
    """The requester's or authority's own key. Raises ORC-CLI-003 and ORC-SIGNER-002 or 003."""
    try:
        return signer.read_keypair(path.expanduser())
    except OracleError as error:
        if error.error is signer.KEY_MISSING:
            raise WALLET_MISSING(error.detail) from None
        raise


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
