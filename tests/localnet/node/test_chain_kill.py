"""A chain kept in a directory, and killed without warning."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.localnet.chain import Chain, Commitment

pytestmark = [pytest.mark.localnet, pytest.mark.chaos]

SOL = 10**9
TO = Pubkey.from_bytes(bytes([5] * 32))
PAYING = """
import sys, time
from pathlib import Path
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from oracle.localnet.chain import Chain, Commitment

chain = Chain(seed=bytes(32), now=time.time, directory=Path(sys.argv[1]))
payer, to = Keypair(), Pubkey.from_bytes(bytes([5] * 32))
chain.fund(payer.pubkey(), 10**18)
while True:
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=10**9))
    blockhash = chain.bank(Commitment.PROCESSED).blockhash
    message = MessageV0.try_compile(payer.pubkey(), [instruction], [], blockhash)
    signature = chain.submit(VersionedTransaction(message, [payer]))
    chain.advance()
    print(signature, flush=True)
"""


def test_a_kill_loses_no_slot_that_was_closed_and_leaves_accounts_and_history_agreeing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", PAYING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read().split()
    process.stdout.close()
    process.wait()

    chain = Chain(seed=bytes(32), now=time.time, directory=tmp_path)
    assert all(chain.status(Signature.from_string(one)) is not None for one in told)
    landed = chain.ledger.mentioning(TO, chain.slot(Commitment.PROCESSED), None, None, 10**6)
    account = chain.account(TO)
    assert account is not None
    assert account.lamports == len(landed) * SOL
    assert len(told) <= len(landed) <= len(told) + 1
    chain.close()
