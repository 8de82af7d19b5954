"""solana-py's client works over our endpoints, and none of its panics gets through."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from anchorpy import Idl, Program, Provider, Wallet
from anchorpy.error import AccountDoesNotExistError
from rpc_wire import Node, NodeError, http_answer, in_context, pool_of
from solana.rpc.types import TxOpts
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.program import idl
from oracle.chain.rpc import errors
from oracle.chain.rpc.errors import RpcError
from oracle.chain.rpc.solana_py import solana_client
from oracle.core.errors import OracleError

SIGNATURE = Signature.new_unique()


async def test_its_calls_are_made_through_the_pool() -> None:
    node = Node(getBalance=in_context(7, 2**64 - 1), sendTransaction=str(SIGNATURE), getBlockHeight=3)
    solana = await solana_client(pool_of(node).client)
    balance = await solana.get_balance(Pubkey.new_unique())
    assert (balance.value, balance.context.slot) == (2**64 - 1, 7)
    sent = await solana.send_raw_transaction(b"tx", TxOpts(skip_preflight=True, skip_confirmation=True))
    assert sent.value == SIGNATURE
    assert (await solana.get_block_height()).value == 3
    assert node.asked("getGenesisHash") == 1
    await solana.close()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (NodeError(-32005, "busy"), errors.RATE_LIMITED),
        (
            NodeError(-32002, "Simulation failed", {"err": {"InstructionError": [0, "BorshIoError"]}, "logs": []}),
            errors.PREFLIGHT_FAILED,
        ),
        (NodeError(-32002, "Simulation failed"), errors.PREFLIGHT_FAILED),
        (NodeError(-32002, "Simulation failed", {"err": "InventedIn2030"}), errors.PREFLIGHT_FAILED),
        (http_answer(200, text="<html>"), errors.SEND_UNCERTAIN),
        ("not a signature", errors.SEND_UNCERTAIN),
    ],
)
async def test_what_makes_solders_panic_is_a_coded_error(answer: Any, code: Any) -> None:
    solana = await solana_client(pool_of(Node(sendTransaction=answer)).client)
    with pytest.raises(OracleError) as raised:
        await solana.send_raw_transaction(b"tx", TxOpts(skip_preflight=True, skip_confirmation=True))
    assert raised.value.error is code
    if isinstance(answer, NodeError):
        assert isinstance(raised.value, RpcError)
        assert raised.value.data == answer.body.get("data")


async def test_anchorpy_looks_for_accounts_over_it() -> None:
    node, address = Node(getAccountInfo=in_context(7, None)), Pubkey.new_unique()
    connection = await solana_client(pool_of(node).client)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # anchorpy's enums still pass attrs an old argument
        described = Idl.from_json(json.dumps(idl.to_legacy(idl.built_in())))
        program = Program(described, idl.program_id(), Provider(connection, Wallet(Keypair())))
    with pytest.raises(AccountDoesNotExistError):
        await program.account["Queue"].fetch(address)
    assert node.calls[-1][1][0] == str(address)
