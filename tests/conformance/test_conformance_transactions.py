"""Transactions on both chains: what lands, what it costs, what is refused and how it is told."""

import base64
import struct

import pytest
from rpc_cluster import BASE64, CONFIRMED, MEMO_PROGRAM, SOL, SYSTEM_PROGRAM, Cluster, create, encoded, pay
from solders.address_lookup_table_account import ID as LOOKUP_TABLE_PROGRAM
from solders.address_lookup_table_account import AddressLookupTableAccount, derive_lookup_table_address
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

FEE = 5_000
ED25519_PROGRAM = Pubkey.from_string("Ed25519SigVerify111111111111111111111111111")


async def test_a_transfer_lands_and_its_record_tells_all(cluster: Cluster) -> None:
    payer, to = await cluster.funded(), Pubkey.new_unique()
    tx = await cluster.signed(payer, pay(payer.pubkey(), to, SOL))
    signature = await cluster.send(tx)
    assert signature == str(tx.signatures[0])
    status = await cluster.landed(signature)
    assert status["err"] is None
    assert status["status"] == {"Ok": None}
    found = await cluster.call("getTransaction", signature, {**CONFIRMED, "maxSupportedTransactionVersion": 0})
    assert found["slot"] == status["slot"]
    assert found["version"] == 0
    assert found["transaction"]["signatures"] == [signature]
    message = found["transaction"]["message"]
    assert message["accountKeys"] == [str(payer.pubkey()), str(to), str(SYSTEM_PROGRAM)]
    assert message["recentBlockhash"] == str(tx.message.recent_blockhash)
    meta = found["meta"]
    assert meta["err"] is None
    assert meta["fee"] == FEE
    assert meta["preBalances"] == [10 * SOL, 0, 1]
    assert meta["postBalances"] == [9 * SOL - FEE, SOL, 1]
    assert meta["computeUnitsConsumed"] == 150
    assert meta["logMessages"] == [
        "Program 11111111111111111111111111111111 invoke [1]",
        "Program 11111111111111111111111111111111 success",
    ]
    assert await cluster.balance(to) == SOL


async def test_preflight_tells_why_an_instruction_would_fail(cluster: Cluster) -> None:
    payer = await cluster.funded()
    tx = await cluster.signed(payer, pay(payer.pubkey(), Pubkey.new_unique(), 11 * SOL))
    refused = await cluster.send_refusal(tx)
    assert refused.code == -32002
    # Surfpool, like newer Agave clients, appends the logs to the sentence.
    assert refused.message.startswith(
        "Transaction simulation failed: Error processing Instruction 0: custom program error: 0x1"
    )
    assert refused.data["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert refused.data["logs"][-1] == "Program 11111111111111111111111111111111 failed: custom program error: 0x1"
    assert refused.data["unitsConsumed"] == 150
    assert (await cluster.value("getSignatureStatuses", [str(tx.signatures[0])])) == [None]


async def test_a_transaction_that_fails_in_a_block_costs_its_fee_and_nothing_else(cluster: Cluster) -> None:
    payer, to = await cluster.funded(), Pubkey.new_unique()
    tx = await cluster.signed(payer, pay(payer.pubkey(), to, SOL), pay(payer.pubkey(), to, 11 * SOL))
    meta = await cluster.execute(tx)
    assert meta["err"] == {"InstructionError": [1, {"Custom": 1}]}
    assert meta["status"] == {"Err": meta["err"]}
    assert await cluster.balance(payer.pubkey()) == 10 * SOL - FEE
    assert await cluster.balance(to) == 0


async def test_the_priority_fee_is_charged_and_foretold(cluster: Cluster) -> None:
    payer = await cluster.funded()
    budget = (set_compute_unit_limit(300_001), set_compute_unit_price(7))
    tx = await cluster.signed(payer, *budget, pay(payer.pubkey(), Pubkey.new_unique(), SOL))
    message = base64.b64encode(to_bytes_versioned(tx.message)).decode()
    foretold = await cluster.value("getFeeForMessage", message, CONFIRMED)
    meta = await cluster.execute(tx)
    assert meta["fee"] == foretold == FEE + 3
    assert await cluster.balance(payer.pubkey()) == 9 * SOL - FEE - 3


async def test_every_signature_is_paid_for(cluster: Cluster) -> None:
    payer, other = await cluster.funded(), await cluster.funded()
    tx = await cluster.signed(payer, pay(other.pubkey(), Pubkey.new_unique(), SOL), signers=(other,))
    assert (await cluster.execute(tx))["fee"] == 2 * FEE


def ed25519_check(signer: Keypair, message: bytes) -> Instruction:
    """An instruction that has the precompile verify a signature; everything it points at is in its own data."""
    here = 0xFFFF
    offsets = struct.pack("<BBHHHHHHH", 1, 0, 48, here, 16, here, 112, len(message), here)
    data = offsets + bytes(signer.pubkey()) + bytes(signer.sign_message(message)) + message
    return Instruction(ED25519_PROGRAM, data, [])


async def test_a_signature_that_a_precompile_verifies_is_paid_for_like_any_other(cluster: Cluster) -> None:
    payer = await cluster.funded()
    tx = await cluster.signed(payer, ed25519_check(Keypair(), b"message"), pay(payer.pubkey(), Keypair().pubkey(), SOL))
    meta = await cluster.execute(tx)
    assert meta["err"] is None
    assert meta["fee"] == 2 * FEE


async def test_a_signature_that_a_precompile_finds_wrong_fails_the_transaction(cluster: Cluster) -> None:
    payer = await cluster.funded()
    good = ed25519_check(Keypair(), b"message")
    forged = Instruction(good.program_id, good.data[:-1] + b"!", [])
    refused = await cluster.send_refusal(await cluster.signed(payer, forged))
    assert refused.code == -32002
    assert refused.data["err"]["InstructionError"][0] == 0


# Rent


async def rent_exempt(cluster: Cluster, data_len: int) -> int:
    # Never a constant: mainnet lowers the rent step by step, and the two chains here stand at different steps.
    lamports: int = await cluster.call("getMinimumBalanceForRentExemption", data_len)
    return lamports


async def test_nobody_may_be_paid_less_than_the_rent_exempt_minimum(cluster: Cluster) -> None:
    payer, to = await cluster.funded(), Pubkey.new_unique()
    minimum = await rent_exempt(cluster, 0)
    meta = await cluster.execute(await cluster.signed(payer, pay(payer.pubkey(), to, minimum - 1)))
    assert meta["err"] == {"InsufficientFundsForRent": {"account_index": 1}}
    assert await cluster.balance(to) == 0
    assert await cluster.balance(payer.pubkey()) == 10 * SOL - FEE
    meta = await cluster.execute(await cluster.signed(payer, pay(payer.pubkey(), to, minimum)))
    assert meta["err"] is None


async def test_no_account_may_be_made_with_less_than_the_rent_exempt_minimum(cluster: Cluster) -> None:
    payer, new, owner = await cluster.funded(), Keypair(), Pubkey.new_unique()
    minimum = await rent_exempt(cluster, 500)
    short = create(payer.pubkey(), new.pubkey(), minimum - 1, 500, owner)
    refused = await cluster.send_refusal(await cluster.signed(payer, short, signers=(new,)))
    assert refused.data["err"] == {"InsufficientFundsForRent": {"account_index": 1}}
    enough = create(payer.pubkey(), new.pubkey(), minimum, 500, owner)
    assert (await cluster.execute(await cluster.signed(payer, enough, signers=(new,))))["err"] is None


async def test_a_wallet_may_be_emptied_but_not_left_with_a_remainder(cluster: Cluster) -> None:
    payer, wallet = await cluster.funded(), await cluster.funded(SOL)
    leave_one = await cluster.signed(payer, pay(wallet.pubkey(), payer.pubkey(), SOL - 1), signers=(wallet,))
    assert (await cluster.execute(leave_one))["err"] == {"InsufficientFundsForRent": {"account_index": 1}}
    leave_none = await cluster.signed(payer, pay(wallet.pubkey(), payer.pubkey(), SOL), signers=(wallet,))
    assert (await cluster.execute(leave_none))["err"] is None
    assert await cluster.value("getAccountInfo", str(wallet.pubkey()), CONFIRMED) is None


async def test_the_error_of_an_instruction_wins_over_the_rent_it_would_have_left(cluster: Cluster) -> None:
    payer, new = await cluster.funded(), Keypair()
    poor = create(payer.pubkey(), new.pubkey(), 5, 100, Pubkey.new_unique())
    too_much = pay(payer.pubkey(), Pubkey.new_unique(), 11 * SOL)
    meta = await cluster.execute(await cluster.signed(payer, poor, too_much, signers=(new,)))
    assert meta["err"] == {"InstructionError": [1, {"Custom": 1}]}


# Refusals


async def preflight_error(cluster: Cluster, tx: VersionedTransaction) -> object:
    refused = await cluster.send_refusal(tx)
    assert refused.code == -32002
    return refused.data["err"]


async def test_an_unknown_blockhash_is_refused_and_without_preflight_never_lands(cluster: Cluster) -> None:
    payer = await cluster.funded()
    message = MessageV0.try_compile(
        payer.pubkey(), [pay(payer.pubkey(), Keypair().pubkey(), SOL)], [], Hash.new_unique()
    )
    tx = VersionedTransaction(message, [payer])
    assert await preflight_error(cluster, tx) == "BlockhashNotFound"
    signature = await cluster.send(tx, skipPreflight=True)
    after = await cluster.funded()  # a later transaction has landed: this one would have too
    assert after
    assert await cluster.value("getSignatureStatuses", [signature]) == [None]
    assert await cluster.balance(payer.pubkey()) == 10 * SOL


async def test_the_same_transaction_pays_once(cluster: Cluster) -> None:
    payer, to = await cluster.funded(), Pubkey.new_unique()
    tx = await cluster.signed(payer, pay(payer.pubkey(), to, SOL))
    await cluster.landed(await cluster.send(tx))
    # Surfpool says so in a sentence of its own, without data, and refuses it without preflight too; Agave does not.
    refused = await cluster.send_refusal(tx)
    assert refused.code == -32002
    assert "This transaction has already been processed" in refused.message
    assert await cluster.balance(to) == SOL


async def test_a_payer_that_does_not_exist_is_refused(cluster: Cluster) -> None:
    pauper = Keypair()
    tx = await cluster.signed(pauper, Instruction(MEMO_PROGRAM, b"x", []))
    assert await preflight_error(cluster, tx) == "AccountNotFound"


async def test_a_payer_that_cannot_pay_the_fee_is_refused(cluster: Cluster) -> None:
    payer = await cluster.funded()
    budget = (set_compute_unit_limit(1_400_000), set_compute_unit_price(10**10))
    assert await preflight_error(cluster, await cluster.signed(payer, *budget)) == "InsufficientFundsForFee"


async def test_a_payer_that_the_fee_would_take_below_the_minimum_is_refused(cluster: Cluster) -> None:
    payer = await cluster.funded(await rent_exempt(cluster, 0) + FEE - 1)
    tx = await cluster.signed(payer, Instruction(MEMO_PROGRAM, b"x", []))
    assert await preflight_error(cluster, tx) == {"InsufficientFundsForRent": {"account_index": 0}}


async def test_a_missing_program_is_named(cluster: Cluster) -> None:
    payer = await cluster.funded()
    tx = await cluster.signed(payer, Instruction(Pubkey.new_unique(), b"", []))
    # Surfpool, like LiteSVM, does not tell it from an account that is no program; Agave does (`account_loader.rs`).
    expected = "InvalidProgramForExecution" if cluster.is_surfpool else "ProgramAccountNotFound"
    assert await preflight_error(cluster, tx) == expected


async def test_an_account_that_is_no_program_is_named(cluster: Cluster) -> None:
    payer, wallet = await cluster.funded(), await cluster.funded()
    tx = await cluster.signed(payer, Instruction(wallet.pubkey(), b"", []))
    assert await preflight_error(cluster, tx) == "InvalidProgramForExecution"


async def test_a_compute_budget_given_twice_is_refused(cluster: Cluster) -> None:
    payer = await cluster.funded()
    tx = await cluster.signed(payer, set_compute_unit_limit(1_000), set_compute_unit_limit(2_000))
    assert await preflight_error(cluster, tx) == {"DuplicateInstruction": 1}


async def test_an_instruction_that_no_program_understands_is_named(cluster: Cluster) -> None:
    payer = await cluster.funded()
    tx = await cluster.signed(payer, Instruction(SYSTEM_PROGRAM, b"\xff", []))
    assert await preflight_error(cluster, tx) == {"InstructionError": [0, "InvalidInstructionData"]}


async def test_a_program_that_runs_out_of_compute_fails(cluster: Cluster) -> None:
    payer = await cluster.funded()
    tx = await cluster.signed(payer, set_compute_unit_limit(200), Instruction(MEMO_PROGRAM, b"hello", []))
    assert await preflight_error(cluster, tx) in (
        {"InstructionError": [1, "ComputationalBudgetExceeded"]},
        {"InstructionError": [1, "ProgramFailedToComplete"]},
    )


async def test_a_wrong_signature_is_refused(cluster: Cluster) -> None:
    payer = await cluster.funded()
    tx = await cluster.signed(payer, pay(payer.pubkey(), Pubkey.new_unique(), SOL))
    forged = VersionedTransaction.populate(tx.message, [Keypair().sign_message(b"something else")])
    refused = await cluster.send_refusal(forged)
    if cluster.is_surfpool:  # Agave has a code for it
        assert refused.code == -32002
        assert "Transaction did not pass signature verification" in refused.message
    else:
        assert (refused.code, refused.message) == (-32003, "Transaction signature verification failure")


@pytest.mark.parametrize("text", ["!", "AAAA", "A" * 1_645])
async def test_what_is_no_transaction_is_refused(cluster: Cluster, text: str) -> None:
    assert (await cluster.refusal("sendTransaction", text, BASE64)).code == -32602


# Simulation


async def test_a_simulation_replaces_the_blockhash_and_shows_accounts(cluster: Cluster) -> None:
    payer, to = await cluster.funded(), Pubkey.new_unique()
    message = MessageV0.try_compile(payer.pubkey(), [pay(payer.pubkey(), to, SOL)], [], Hash.default())
    tx = VersionedTransaction(message, [payer])
    wanted = {"encoding": "base64", "addresses": [str(to)]}
    options = {**BASE64, **CONFIRMED, "replaceRecentBlockhash": True, "accounts": wanted}
    value = await cluster.value("simulateTransaction", encoded(tx), options)
    assert value["err"] is None
    assert value["unitsConsumed"] == 150
    assert value["accounts"][0]["lamports"] == SOL
    assert value["accounts"][0]["owner"] == str(SYSTEM_PROGRAM)
    Hash.from_string(value["replacementBlockhash"]["blockhash"])
    assert await cluster.balance(to) == 0


async def test_a_failing_simulation_is_an_answer(cluster: Cluster) -> None:
    payer = await cluster.funded()
    tx = await cluster.signed(payer, pay(payer.pubkey(), Pubkey.new_unique(), 11 * SOL))
    value = await cluster.value("simulateTransaction", encoded(tx), {**BASE64, **CONFIRMED})
    assert value["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert value["logs"][-1] == "Program 11111111111111111111111111111111 failed: custom program error: 0x1"


async def test_a_simulation_cannot_both_verify_signatures_and_replace_the_blockhash(cluster: Cluster) -> None:
    payer = await cluster.funded()
    tx = await cluster.signed(payer, pay(payer.pubkey(), Pubkey.new_unique(), SOL))
    options = {**BASE64, "sigVerify": True, "replaceRecentBlockhash": True}
    refused = await cluster.refusal("simulateTransaction", encoded(tx), options)
    assert refused.code == -32602
    assert refused.message == "sigVerify may not be used with replaceRecentBlockhash"


# History


async def test_the_signatures_of_an_address_come_newest_first(cluster: Cluster) -> None:
    payer, to = await cluster.funded(), Pubkey.new_unique()
    sent = []
    for index in range(3):
        signature = await cluster.send(await cluster.signed(payer, pay(payer.pubkey(), to, SOL + index)))
        await cluster.landed(signature)
        sent.append(signature)
    found = await cluster.call("getSignaturesForAddress", str(to), CONFIRMED)
    assert [one["signature"] for one in found] == sent[::-1]
    assert [one["err"] for one in found] == [None] * 3
    limited = await cluster.call("getSignaturesForAddress", str(to), {**CONFIRMED, "limit": 1, "before": sent[2]})
    assert [one["signature"] for one in limited] == [sent[1]]


async def test_a_lookup_table_can_be_made_and_used(cluster: Cluster) -> None:
    payer, to = await cluster.funded(), Pubkey.new_unique()
    slot = await cluster.call("getSlot", CONFIRMED) - 1
    table, bump = derive_lookup_table_address(payer.pubkey(), slot)
    accounts = [
        AccountMeta(table, False, True),
        AccountMeta(payer.pubkey(), True, False),
        AccountMeta(payer.pubkey(), True, True),
        AccountMeta(SYSTEM_PROGRAM, False, False),
    ]
    make = Instruction(LOOKUP_TABLE_PROGRAM, bytes(4) + slot.to_bytes(8, "little") + bytes([bump]), accounts)
    extend = Instruction(LOOKUP_TABLE_PROGRAM, b"\x02" + bytes(3) + b"\x01" + bytes(7) + bytes(to), accounts)
    await cluster.landed(await cluster.send(await cluster.signed(payer, make, extend)))
    await cluster.funded()  # a table is good from the next slot on
    instruction = pay(payer.pubkey(), to, SOL)
    tables = [AddressLookupTableAccount(table, [to])]
    message = MessageV0.try_compile(payer.pubkey(), [instruction], tables, await cluster.blockhash())
    meta = await cluster.execute(VersionedTransaction(message, [payer]))
    assert meta["err"] is None
    assert meta["loadedAddresses"] == {"writable": [str(to)], "readonly": []}
    assert await cluster.balance(to) == SOL
