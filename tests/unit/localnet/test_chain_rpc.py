"""JSON-RPC over the embedded chain, without a socket: shapes, limits, and the errors of Agave."""

import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from based58 import b58encode
from driven_chain import SOL, START, DrivenClock, pay
from solders.account import Account
from solders.address_lookup_table_account import ID as LOOKUP_TABLE_PROGRAM
from solders.compute_budget import set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.rpc.responses import GetTransactionResp, SendTransactionResp, SimulateTransactionResp
from solders.transaction import Transaction, VersionedTransaction

from oracle.localnet.chain import MAX_PROCESSING_AGE, Chain, Commitment
from oracle.localnet.rpc.dispatch import METHODS, handle

MEMO_PROGRAM = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
OWNER = Pubkey.from_bytes(bytes([7] * 32))
PROCESSED, CONFIRMED, FINALIZED = ({"commitment": level.name.lower()} for level in Commitment)


class Rpc:
    """Calls a chain as a client would."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def raw(self, request: Any) -> Any:
        body = request if isinstance(request, bytes) else orjson.dumps(request)
        answer = handle(self.chain, body)
        return None if answer is None else orjson.loads(answer)

    def answer(self, method: str, *params: Any) -> Any:
        return self.raw({"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)})

    def __call__(self, method: str, *params: Any) -> Any:
        answer = self.answer(method, *params)
        assert "error" not in answer, answer
        assert answer["id"] == 7
        return answer["result"]

    def value(self, method: str, *params: Any) -> Any:
        return self(method, *params)["value"]

    def error(self, method: str, *params: Any) -> tuple[int, str]:
        error = self.answer(method, *params)["error"]
        return error["code"], error["message"]


@pytest.fixture
def rpc(chain: Chain) -> Rpc:
    return Rpc(chain)


def encoded(tx: VersionedTransaction | Transaction) -> str:
    return base64.b64encode(bytes(tx)).decode()


def latest(chain: Chain, commitment: Commitment = Commitment.PROCESSED) -> Hash:
    return chain.bank(commitment).blockhash


BASE64 = {"encoding": "base64"}


# The envelope


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"id":1}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"getSlot"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"noSuchMethod"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"getBalance","params":{"address":"x"}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getBalance","params":[]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getBalance","params":[7]}', -32602),
    ],
)
def test_what_is_no_request_gets_an_error_and_not_an_exception(rpc: Rpc, body: bytes, code: int) -> None:
    assert rpc.raw(body)["error"]["code"] == code


def test_a_batch_is_answered_in_order_each_request_for_itself(rpc: Rpc) -> None:
    answers = rpc.raw(
        [
            {"jsonrpc": "2.0", "id": 1, "method": "getHealth"},
            {"jsonrpc": "2.0", "method": "getHealth"},
            {"jsonrpc": "2.0", "id": "b", "method": "nope"},
            5,
        ]
    )
    assert answers[0] == {"jsonrpc": "2.0", "result": "ok", "id": 1}
    assert [answer["id"] for answer in answers] == [1, "b", None]
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, -32601, -32600]


def test_a_notification_gets_no_answer(rpc: Rpc) -> None:
    assert rpc.raw({"jsonrpc": "2.0", "method": "getHealth"}) is None
    assert rpc.raw([{"jsonrpc": "2.0", "method": "nope"}]) is None


def test_no_method_breaks_on_parameters_of_the_wrong_kind(rpc: Rpc) -> None:
    wrong = [[], [None], [[]], [{}], ["x"], [-1], [2**64 - 1], [True], ["x", "y"], [1, []], [None, 5]]
    for method in METHODS:
        for params in wrong:
            answer = rpc.answer(method, *params)
            refused = answer.get("error", {}).get("code") in (-32602, -32600, -32004, -32007)
            assert "result" in answer or refused, (method, params, answer)


# Parameters that many methods share


@pytest.mark.parametrize(
    ("address", "message"),
    [("abc", "Invalid param: WrongSize"), ("0OIl", "Invalid param: Invalid"), ("", "Invalid param: WrongSize")],
)
def test_a_bad_address_is_named_as_agave_names_it(rpc: Rpc, address: str, message: str) -> None:
    assert rpc.error("getBalance", address) == (-32602, message)


def test_an_unknown_commitment_is_refused(rpc: Rpc) -> None:
    code, message = rpc.error("getSlot", {"commitment": "certain"})
    assert code == -32602
    assert "unknown variant `certain`" in message


def test_the_default_commitment_is_finalized(rpc: Rpc) -> None:
    assert rpc("getSlot") == rpc("getSlot", FINALIZED) == 6
    assert rpc("getSlot", CONFIRMED) == 9
    assert rpc("getSlot", PROCESSED) == 11


def test_a_node_that_is_behind_the_caller_s_context_says_so(rpc: Rpc, payer: Keypair) -> None:
    answer = rpc.answer("getBalance", str(payer.pubkey()), {"minContextSlot": 7})
    assert answer["error"] == {
        "code": -32016,
        "message": "Minimum context slot has not been reached",
        "data": {"contextSlot": 6},
    }
    assert rpc.value("getBalance", str(payer.pubkey()), {"minContextSlot": 7, **CONFIRMED}) == 10 * SOL


# Slots, blocks, blockhashes


def test_the_latest_blockhash_comes_with_its_last_valid_height(rpc: Rpc) -> None:
    found = rpc("getLatestBlockhash", CONFIRMED)
    assert found["context"] == {"slot": 9, "apiVersion": "2.2.0"}
    assert found["value"] == {"blockhash": str(latest(rpc.chain, Commitment.CONFIRMED)), "lastValidBlockHeight": 159}
    assert rpc.value("isBlockhashValid", found["value"]["blockhash"], CONFIRMED) is True
    assert rpc.value("isBlockhashValid", found["value"]["blockhash"], FINALIZED) is False
    assert rpc.value("isBlockhashValid", str(Hash.default())) is False


def test_the_epoch_and_the_height_are_those_of_the_commitment(rpc: Rpc) -> None:
    info = rpc("getEpochInfo", CONFIRMED)
    assert info["absoluteSlot"] == info["slotIndex"] == info["blockHeight"] == 9
    assert info["slotsInEpoch"] == rpc("getEpochSchedule")["slotsPerEpoch"] == 432_000
    assert rpc("getBlockHeight", PROCESSED) == 11


def test_a_block_names_its_parent_its_hash_and_its_transactions(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    signature = chain.submit(pay(payer, Pubkey.new_unique(), SOL, latest(chain)))
    chain.advance(3)
    block = rpc("getBlock", 11, {**CONFIRMED, "maxSupportedTransactionVersion": 0})
    assert block["parentSlot"] == 10
    assert block["blockHeight"] == 11
    assert block["blockTime"] == START
    assert block["previousBlockhash"] == rpc("getBlock", 10, CONFIRMED)["blockhash"]
    assert [one["transaction"]["signatures"] for one in block["transactions"]] == [[str(signature)]]
    brief = rpc("getBlock", 11, {**CONFIRMED, "transactionDetails": "signatures", "rewards": False})
    assert brief["signatures"] == [str(signature)]
    assert "transactions" not in brief
    assert "rewards" not in brief
    assert rpc.error("getBlock", 11, CONFIRMED)[0] == -32015
    assert rpc("getBlockTime", 11) == START


def test_a_block_that_is_not_there_is_told_from_one_that_was_skipped(rpc: Rpc, chain: Chain) -> None:
    chain.fork(2)
    chain.advance(4)
    assert rpc.error("getBlock", 11, CONFIRMED) == (
        -32007,
        "Slot 11 was skipped, or missing due to ledger jump to recent snapshot",
    )
    assert rpc.error("getBlock", 10**6, CONFIRMED) == (-32004, "Block not available for slot 1000000")
    assert rpc("getBlocks", 9, 13, CONFIRMED) == [9, 12, 13]
    assert rpc("getBlocks", 9, CONFIRMED) == [9, 12, 13, 14]
    assert rpc("getBlocksWithLimit", 9, 2, CONFIRMED) == [9, 12]


def test_performance_is_told_by_the_minute(rpc: Rpc, chain: Chain, clock: DrivenClock, payer: Keypair) -> None:
    assert rpc("getRecentPerformanceSamples", 5) == []
    for minute in range(3):
        clock.pass_by(60)
        chain.submit(pay(payer, Pubkey.new_unique(), SOL + minute, latest(chain)))
        chain.advance(10)
    samples = rpc("getRecentPerformanceSamples", 5)
    assert [sample["numSlots"] for sample in samples] == [10, 10]
    assert [sample["numTransactions"] for sample in samples] == [1, 1]
    assert samples[0]["slot"] > samples[1]["slot"]
    assert rpc.error("getRecentPerformanceSamples", 721) == (-32602, "Invalid limit; max 720")


def test_a_pruned_node_says_from_where_on_it_knows(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    old = str(chain.submit(pay(payer, Pubkey.new_unique(), SOL, latest(chain))))
    chain.advance(MAX_PROCESSING_AGE + 50)
    young = str(chain.submit(pay(payer, Pubkey.new_unique(), SOL, latest(chain))))
    chain.advance(10)
    assert chain.prune(10**6) == chain.slot(Commitment.PROCESSED) - MAX_PROCESSING_AGE - 2
    first = rpc("getFirstAvailableBlock")
    assert rpc("minimumLedgerSlot") == first == chain.prune(1)
    search = {"searchTransactionHistory": True}
    assert [status is None for status in rpc.value("getSignatureStatuses", [old, young], search)] == [True, False]
    assert rpc.error("getBlock", first - 1) == (
        -32001,
        f"Block {first - 1} cleaned up, does not exist on node. First available block: {first}",
    )
    assert rpc("getBlocks", 0, first + 1) == rpc("getBlocksWithLimit", 0, 2) == [first, first + 1]


def test_a_node_that_is_behind_says_so_and_takes_no_transaction_for_preflight(
    rpc: Rpc, chain: Chain, payer: Keypair
) -> None:
    chain.slots_behind = 42
    assert rpc.answer("getHealth")["error"] == {
        "code": -32005,
        "message": "Node is behind by 42 slots",
        "data": {"numSlotsBehind": 42},
    }
    tx = pay(payer, Pubkey.new_unique(), SOL, latest(chain, Commitment.FINALIZED))
    assert rpc.error("sendTransaction", encoded(tx), BASE64)[0] == -32005
    assert rpc("sendTransaction", encoded(tx), {**BASE64, "skipPreflight": True})


def test_a_node_tells_who_it_is(rpc: Rpc, chain: Chain) -> None:
    assert rpc("getVersion")["solana-core"] == "2.2.0"
    assert rpc("getGenesisHash") == str(chain.genesis_hash)
    assert rpc("getIdentity")["identity"] == rpc("getSlotLeader") == str(chain.identity)
    assert rpc("getFirstAvailableBlock") == rpc("minimumLedgerSlot") == 0


# Accounts


def test_an_account_is_printed_in_every_encoding(rpc: Rpc, chain: Chain) -> None:
    data = bytes(range(100))
    address = Pubkey.new_unique()
    chain.set_account(address, Account(SOL, data, OWNER))
    shown = rpc.value("getAccountInfo", str(address), BASE64)
    assert shown == {
        "lamports": SOL,
        "data": [base64.b64encode(data).decode(), "base64"],
        "owner": str(OWNER),
        "executable": False,
        "rentEpoch": 2**64 - 1,
        "space": 100,
    }
    as_data = {
        name: rpc.value("getAccountInfo", str(address), {"encoding": name})["data"]
        for name in ("binary", "base58", "jsonParsed")
    }
    base58 = b58encode(data).decode()
    assert as_data == {"binary": base58, "base58": [base58, "base58"], "jsonParsed": shown["data"]}
    assert rpc.value("getAccountInfo", str(address))["data"] == base58


@pytest.mark.parametrize("size", [0, 1, 131_072, 131_073, 300_000])
def test_zstd_answers_can_be_read_by_a_decoder_of_others(rpc: Rpc, chain: Chain, size: int) -> None:
    from solders.rpc.responses import GetAccountInfoResp

    data = bytes(index % 251 for index in range(size))
    address = Pubkey.new_unique()
    chain.set_account(address, Account(10 * SOL, data, OWNER))
    answer = rpc.answer("getAccountInfo", str(address), {"encoding": "base64+zstd"})
    assert answer["result"]["value"]["data"][1] == "base64+zstd"
    parsed = GetAccountInfoResp.from_json(orjson.dumps(answer).decode())
    assert parsed.value is not None
    assert parsed.value.data == data


def test_base58_is_refused_beyond_128_bytes_but_a_slice_of_it_is_not(rpc: Rpc, chain: Chain) -> None:
    address = Pubkey.new_unique()
    chain.set_account(address, Account(10 * SOL, bytes(129), OWNER))
    assert rpc.error("getAccountInfo", str(address)) == (
        -32600,
        "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding.",
    )
    sliced = {"dataSlice": {"offset": 1, "length": 128}, "encoding": "base58"}
    assert rpc.value("getAccountInfo", str(address), sliced)["space"] == 129


@pytest.mark.parametrize(("offset", "length", "expected"), [(0, 0, b""), (2, 3, b"cde"), (5, 9, b"f"), (9, 9, b"")])
def test_a_slice_of_the_data_is_cut_as_asked(rpc: Rpc, chain: Chain, offset: int, length: int, expected: bytes) -> None:
    address = Pubkey.new_unique()
    chain.set_account(address, Account(SOL, b"abcdef", OWNER))
    options = {**BASE64, "dataSlice": {"offset": offset, "length": length}}
    for shown in (
        rpc.value("getAccountInfo", str(address), options),
        rpc.value("getMultipleAccounts", [str(address)], options)[0],
        rpc("getProgramAccounts", str(OWNER), options)[0]["account"],
    ):
        assert base64.b64decode(shown["data"][0]) == expected
        assert shown["space"] == 6


def test_an_account_that_is_not_there_is_null(rpc: Rpc, payer: Keypair) -> None:
    absent = str(Pubkey.new_unique())
    assert rpc.value("getAccountInfo", absent) is None
    assert rpc.value("getBalance", absent) == 0
    found = rpc.value("getMultipleAccounts", [absent, str(payer.pubkey())])
    assert found[0] is None
    assert found[1]["lamports"] == 10 * SOL


def test_at_most_a_hundred_accounts_are_read_at_once(rpc: Rpc) -> None:
    addresses = [str(Pubkey.new_unique()) for _ in range(101)]
    assert rpc.value("getMultipleAccounts", addresses[:100]) == [None] * 100
    assert rpc.error("getMultipleAccounts", addresses) == (-32602, "Too many inputs provided; max 100")


@pytest.fixture
def ten(chain: Chain) -> dict[str, bytes]:
    """Ten accounts of one program; data by address."""
    found = {}
    for index in range(10):
        address = Pubkey.from_bytes(bytes([200 - index] * 32))
        data = bytes([index % 2, index]) + bytes(10 + index % 3)
        chain.set_account(address, Account(SOL, data, OWNER))
        found[str(address)] = data
    return found


def test_a_program_s_accounts_are_found_by_bytes_and_by_size(rpc: Rpc, ten: dict[str, bytes]) -> None:
    def find(*filters: Any) -> set[str]:
        return {one["pubkey"] for one in rpc("getProgramAccounts", str(OWNER), {**BASE64, "filters": list(filters)})}

    odd = {"memcmp": {"offset": 0, "bytes": b58encode(b"\x01").decode()}}
    odd_base64 = {"memcmp": {"offset": 0, "bytes": "AQ==", "encoding": "base64"}}
    odd_raw = {"memcmp": {"offset": 0, "bytes": [1]}}
    expected = {address for address, data in ten.items() if data[0] == 1}
    assert find() == set(ten)
    assert find(odd) == find(odd_base64) == find(odd_raw) == expected
    assert find({"dataSize": 13}) == {address for address, data in ten.items() if len(data) == 13}
    assert find(odd, {"dataSize": 13}) == {address for address in expected if len(ten[address]) == 13}
    assert find({"memcmp": {"offset": 1, "bytes": [3]}}, odd) == {str(Pubkey.from_bytes(bytes([197] * 32)))}
    assert find({"memcmp": {"offset": 13, "bytes": [0, 0]}}) == set()
    assert find({"memcmp": {"offset": 500, "bytes": ""}}) == set()
    assert find({"memcmp": {"offset": 12, "bytes": ""}}) == set(ten)


def test_an_account_without_data_is_found_by_its_size_and_by_nothing_at_its_start(rpc: Rpc, chain: Chain) -> None:
    address = Pubkey.new_unique()
    chain.set_account(address, Account(SOL, b"", OWNER))
    filters = [{"dataSize": 0}, {"memcmp": {"offset": 0, "bytes": ""}}]
    found = rpc("getProgramAccounts", str(OWNER), {"filters": filters})
    assert [one["pubkey"] for one in found] == [str(address)]


def test_a_program_s_accounts_come_sorted_and_on_demand_with_their_slot(rpc: Rpc, ten: dict[str, bytes]) -> None:
    answer = rpc("getProgramAccounts", str(OWNER), {**BASE64, "withContext": True, **CONFIRMED})
    assert answer["context"]["slot"] == 9
    addresses = [bytes(Pubkey.from_string(one["pubkey"])) for one in answer["value"]]
    assert addresses == sorted(addresses)
    assert len(addresses) == 10


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ([{"dataSize": 1}] * 5, "Too many filters provided; max 4"),
        ([{"memcmp": {"offset": 0, "bytes": "1" * 129}}], "Invalid param: DataTooLarge"),
        ([{"memcmp": {"offset": 0, "bytes": "0OIl"}}], "Invalid param: DecodeError"),
        ([{"memcmp": {"bytes": "1"}}], "Invalid params: missing field `offset`."),
        ([{"colour": "red"}], "Invalid params: unknown filter, expected `dataSize` or `memcmp`."),
    ],
)
def test_a_bad_filter_is_refused(rpc: Rpc, filters: list[Any], message: str) -> None:
    assert rpc.error("getProgramAccounts", str(OWNER), {"filters": filters}) == (-32602, message)


def test_a_program_s_accounts_are_those_of_the_commitment(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    chain.submit(pay(payer, to, SOL, latest(chain)))
    system = str(Pubkey.default())
    assert str(to) in {one["pubkey"] for one in rpc("getProgramAccounts", system, PROCESSED)}
    assert str(to) not in {one["pubkey"] for one in rpc("getProgramAccounts", system, CONFIRMED)}


def test_an_account_that_changed_hands_is_no_longer_its_old_owner_s(rpc: Rpc, chain: Chain) -> None:
    address, new_owner = Pubkey.new_unique(), Pubkey.new_unique()
    chain.set_account(address, Account(SOL, b"", OWNER))
    chain.set_account(address, Account(SOL, b"", new_owner))
    assert rpc("getProgramAccounts", str(OWNER)) == []
    assert len(rpc("getProgramAccounts", str(new_owner))) == 1


def test_the_rent_exempt_minimum_grows_with_the_data(rpc: Rpc) -> None:
    assert rpc("getMinimumBalanceForRentExemption", 0) == 890_880
    assert rpc("getMinimumBalanceForRentExemption", 165) == 2_039_280


# Sending


def test_a_transaction_that_is_sent_lands_and_has_a_status(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    tx = pay(payer, Pubkey.new_unique(), SOL, latest(chain, Commitment.FINALIZED))
    signature = rpc("sendTransaction", encoded(tx), BASE64)
    assert signature == str(tx.signatures[0])
    assert (
        rpc.value("getSignatureStatuses", [signature, str(tx.signatures[0])[::-1][:0] or signature])
        == [
            {
                "slot": 11,
                "confirmations": 0,
                "status": {"Ok": None},
                "err": None,
                "confirmationStatus": "processed",
            }
        ]
        * 2
    )
    chain.advance(2)
    assert rpc.value("getSignatureStatuses", [signature])[0]["confirmationStatus"] == "confirmed"
    chain.advance(3)
    finalized = rpc.value("getSignatureStatuses", [signature])[0]
    assert finalized["confirmationStatus"] == "finalized"
    assert finalized["confirmations"] is None


def test_base58_is_the_default_encoding_of_a_transaction(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    tx = pay(payer, Pubkey.new_unique(), SOL, latest(chain, Commitment.FINALIZED))
    assert rpc("sendTransaction", b58encode(bytes(tx)).decode()) == str(tx.signatures[0])


def test_preflight_runs_at_finalized_unless_told_otherwise(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    tx = pay(payer, Pubkey.new_unique(), SOL, latest(chain))
    assert rpc.error("sendTransaction", encoded(tx), BASE64) == (
        -32002,
        "Transaction simulation failed: Blockhash not found",
    )
    assert rpc("sendTransaction", encoded(tx), {**BASE64, "preflightCommitment": "processed"})


def test_a_preflight_failure_tells_error_and_logs_and_nothing_lands(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    tx = pay(payer, Pubkey.new_unique(), 11 * SOL, latest(chain, Commitment.FINALIZED))
    answer = rpc.answer("sendTransaction", encoded(tx), BASE64)
    error = answer["error"]
    assert error["code"] == -32002
    assert error["message"] == (
        "Transaction simulation failed: Error processing Instruction 0: custom program error: 0x1"
    )
    assert error["data"]["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert error["data"]["logs"][-1].endswith("failed: custom program error: 0x1")
    assert error["data"]["unitsConsumed"] == 150
    assert "SendTransactionPreflightFailure" in repr(SendTransactionResp.from_json(orjson.dumps(answer).decode()))
    assert rpc.value("getSignatureStatuses", [str(tx.signatures[0])]) == [None]


def test_without_preflight_a_failure_is_found_only_in_the_status(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    failing = pay(payer, Pubkey.new_unique(), 11 * SOL, latest(chain))
    expired = pay(payer, Pubkey.new_unique(), SOL, Hash.new_unique())
    for tx in (failing, expired):
        assert rpc("sendTransaction", encoded(tx), {**BASE64, "skipPreflight": True}) == str(tx.signatures[0])
    failed, lost = rpc.value("getSignatureStatuses", [str(tx.signatures[0]) for tx in (failing, expired)])
    assert failed["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert failed["status"] == {"Err": failed["err"]}
    assert lost is None


def test_a_transaction_that_landed_fails_preflight_but_may_be_resent_without(
    rpc: Rpc, chain: Chain, payer: Keypair
) -> None:
    tx = pay(payer, Pubkey.new_unique(), SOL, latest(chain))
    at_processed = {**BASE64, "preflightCommitment": "processed"}
    rpc("sendTransaction", encoded(tx), at_processed)
    code, message = rpc.error("sendTransaction", encoded(tx), at_processed)
    assert (code, message) == (-32002, "Transaction simulation failed: This transaction has already been processed")
    assert rpc("sendTransaction", encoded(tx), {**BASE64, "skipPreflight": True}) == str(tx.signatures[0])


def test_a_wrong_signature_is_refused_by_preflight_and_silently_dropped_without(
    rpc: Rpc, chain: Chain, payer: Keypair
) -> None:
    tx = pay(payer, Pubkey.new_unique(), SOL, latest(chain, Commitment.FINALIZED))
    forged = VersionedTransaction.populate(tx.message, [Keypair().sign_message(b"other")])
    assert rpc.error("sendTransaction", encoded(forged), BASE64) == (
        -32003,
        "Transaction signature verification failure",
    )
    signature = rpc("sendTransaction", encoded(forged), {**BASE64, "skipPreflight": True})
    assert rpc.value("getSignatureStatuses", [signature]) == [None]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("!", BASE64, "invalid base64 encoding: "),
        ("0OIl", {}, "invalid base58 encoding: "),
        ("AAAA", BASE64, "failed to deserialize solana_transaction::versioned::VersionedTransaction: "),
        ("", BASE64, "failed to deserialize solana_transaction::versioned::VersionedTransaction: "),
        ("A" * 1_645, BASE64, "base64 encoded solana_transaction::versioned::VersionedTransaction too large: 1645"),
        ("A" * 1_644, BASE64, "decoded solana_transaction::versioned::VersionedTransaction too large: 1233"),
        ("1" * 1_684, {}, "base58 encoded solana_transaction::versioned::VersionedTransaction too large: 1684"),
        ("AAAA", {"encoding": "json"}, "Invalid params: unknown variant `json`"),
    ],
)
def test_what_is_no_transaction_is_refused(rpc: Rpc, text: str, options: dict[str, Any], message: str) -> None:
    code, said = rpc.error("sendTransaction", text, options)
    assert code == -32602
    assert said.startswith(message)
    assert rpc.error("simulateTransaction", text, options)[0] == -32602


def test_a_transaction_that_names_accounts_it_does_not_have_is_refused(rpc: Rpc, payer: Keypair) -> None:
    message = Message.new_with_compiled_instructions(1, 0, 1, [payer.pubkey()], Hash.default(), [])
    broken = VersionedTransaction.populate(message, [])
    code, said = rpc.error("sendTransaction", encoded(broken), BASE64)
    assert code == -32602
    assert said.startswith(("invalid transaction: ", "failed to deserialize"))


def test_retries_can_be_limited(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    chain.delivery = lambda _: None
    signatures = [
        rpc("sendTransaction", encoded(pay(payer, Pubkey.new_unique(), SOL + retries, latest(chain))), options)
        for retries, options in enumerate({**BASE64, "skipPreflight": True, "maxRetries": n} for n in (0, 5))
    ]
    chain.delivery = lambda _: 0
    chain.advance()
    once, often = rpc.value("getSignatureStatuses", signatures)
    assert once is None
    assert often["slot"] == 12


# Simulating


def test_a_simulation_can_replace_the_blockhash_and_show_accounts(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    tx = pay(payer, to, SOL, Hash.default())
    options = {
        **BASE64,
        "replaceRecentBlockhash": True,
        "accounts": {"addresses": [str(to), str(MEMO_PROGRAM), str(Pubkey.new_unique())]},
        "innerInstructions": True,
        **CONFIRMED,
    }
    answer = rpc.answer("simulateTransaction", encoded(tx), options)
    value = answer["result"]["value"]
    assert value["err"] is None
    assert value["unitsConsumed"] == 150
    received, program, absent = value["accounts"]
    assert received["lamports"] == SOL
    assert program["executable"] is True
    assert absent is None
    assert value["replacementBlockhash"]["lastValidBlockHeight"] == 159
    assert value["innerInstructions"] == []
    SimulateTransactionResp.from_json(orjson.dumps(answer).decode())
    assert rpc.value("getBalance", str(to), PROCESSED) == 0


def test_a_failing_simulation_is_an_answer_and_no_error(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    to = str(Pubkey.new_unique())
    wanted = {"accounts": {"encoding": "base64", "addresses": [to]}}
    failing = pay(payer, Pubkey.from_string(to), 11 * SOL, latest(chain, Commitment.FINALIZED))
    value = rpc.value("simulateTransaction", encoded(failing), {**BASE64, **wanted})
    assert value["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert value["accounts"] == [None]
    unknown = pay(payer, Pubkey.from_string(to), SOL, Hash.new_unique())
    value = rpc.value("simulateTransaction", encoded(unknown), BASE64)
    assert (value["err"], value["logs"], value["unitsConsumed"]) == ("BlockhashNotFound", [], 0)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"sigVerify": True, "replaceRecentBlockhash": True}, -32602, "sigVerify may not be used with replaceRecentB"),
        ({"sigVerify": True}, -32003, "Transaction signature verification failure"),
        ({"accounts": {"addresses": [], "encoding": "base58"}}, -32602, "base58 encoding not supported"),
        ({"accounts": {"addresses": [str(OWNER)] * 4}}, -32602, "Too many accounts provided; max 3"),
        ({"sigVerify": "yes"}, -32602, "Invalid params: invalid type: string"),
    ],
)
def test_options_that_contradict_are_refused(
    rpc: Rpc, chain: Chain, payer: Keypair, options: dict[str, Any], code: int, message: str
) -> None:
    tx = pay(payer, Pubkey.new_unique(), SOL, latest(chain))
    unsigned = VersionedTransaction.populate(tx.message, [tx.signatures[0].default()])
    said = rpc.error("simulateTransaction", encoded(unsigned), {**BASE64, **PROCESSED, **options})
    assert said[0] == code
    assert said[1].startswith(message)


# Finding


def test_a_transaction_can_be_read_back_in_every_encoding(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    tx = pay(payer, to, SOL, latest(chain))
    signature = str(chain.submit(tx))
    version = {"maxSupportedTransactionVersion": 0}
    assert rpc("getTransaction", signature, {**CONFIRMED, **version}) is None
    chain.advance(2)
    assert rpc("getTransaction", signature, version) is None
    answer = rpc.answer("getTransaction", signature, {**CONFIRMED, **version})
    found = answer["result"]
    assert (found["slot"], found["blockTime"], found["version"]) == (11, START, 0)
    assert found["transaction"]["message"]["accountKeys"] == [str(payer.pubkey()), str(to), str(Pubkey.default())]
    assert found["meta"]["fee"] == 5_000
    assert found["meta"]["preBalances"] == [10 * SOL, 0, 1]
    assert found["meta"]["postBalances"] == [9 * SOL - 5_000, SOL, 1]
    GetTransactionResp.from_json(orjson.dumps(answer).decode())
    parsed = rpc.answer("getTransaction", signature, {**CONFIRMED, **version, "encoding": "jsonParsed"})
    GetTransactionResp.from_json(orjson.dumps(parsed).decode())
    assert parsed["result"]["transaction"]["message"]["accountKeys"][1] == {
        "pubkey": str(to),
        "writable": True,
        "signer": False,
        "source": "transaction",
    }
    raw = rpc("getTransaction", signature, {**CONFIRMED, **version, "encoding": "base64"})["transaction"]
    assert raw == [encoded(tx), "base64"]
    assert rpc.error("getTransaction", signature, PROCESSED) == (
        -32602,
        "Method does not support commitment below `confirmed`",
    )
    code, message = rpc.error("getTransaction", signature, CONFIRMED)
    assert code == -32015
    assert '"maxSupportedTransactionVersion": 0' in message


def test_a_legacy_transaction_needs_no_version(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    blockhash = latest(chain)
    message = Message.new_with_blockhash([Instruction(MEMO_PROGRAM, b"hello", [])], payer.pubkey(), blockhash)
    signature = str(chain.submit(Transaction([payer], message, blockhash)))
    chain.advance(2)
    assert "version" not in rpc("getTransaction", signature, CONFIRMED)
    assert rpc("getTransaction", signature, {**CONFIRMED, "maxSupportedTransactionVersion": 0})["version"] == "legacy"


def test_statuses_older_than_the_cache_are_found_only_by_searching(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    signature = str(chain.submit(pay(payer, Pubkey.new_unique(), SOL, latest(chain))))
    chain.advance(300)
    assert rpc.value("getSignatureStatuses", [signature])[0]["slot"] == 11
    chain.advance()
    assert rpc.value("getSignatureStatuses", [signature]) == [None]
    assert rpc.value("getSignatureStatuses", [signature], {"searchTransactionHistory": True})[0]["slot"] == 11


def test_at_most_256_statuses_are_asked_for_at_once(rpc: Rpc) -> None:
    signatures = [str(Keypair().sign_message(bytes([n % 256]))) for n in range(257)]
    assert rpc.value("getSignatureStatuses", signatures[:256]) == [None] * 256
    assert rpc.error("getSignatureStatuses", signatures) == (-32602, "Too many inputs provided; max 256")


def test_the_signatures_of_an_address_come_newest_first_and_can_be_paged(
    rpc: Rpc, chain: Chain, payer: Keypair
) -> None:
    to = Pubkey.new_unique()
    sent = []
    for index in range(5):
        sent.append(str(chain.submit(pay(payer, to, (11 if index == 3 else 1) * SOL + index, latest(chain)))))
        if index % 2:
            chain.advance()
    chain.advance(2)

    def page(**options: Any) -> list[str]:
        return [one["signature"] for one in rpc("getSignaturesForAddress", str(to), {**CONFIRMED, **options})]

    newest_first = sent[::-1]
    assert page() == newest_first
    assert page(limit=2) == newest_first[:2]
    assert page(before=newest_first[1], limit=2) == newest_first[2:4]
    assert page(until=newest_first[3]) == newest_first[:3]
    assert page(before=newest_first[0], until=newest_first[3]) == newest_first[1:3]
    assert page(before=str(Keypair().sign_message(b"unknown"))) == []
    failed = rpc("getSignaturesForAddress", str(to), CONFIRMED)[1]
    assert failed["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert failed["confirmationStatus"] == "confirmed"
    assert failed["blockTime"] == START
    assert rpc.error("getSignaturesForAddress", str(to), {"limit": 1_001}) == (-32602, "Invalid limit; max 1000")


def test_the_fee_of_a_message_includes_its_priority_fee(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    tx = pay(payer, Pubkey.new_unique(), SOL, latest(chain), set_compute_unit_price(1_000_000))
    message = base64.b64encode(to_bytes_versioned(tx.message)).decode()
    assert rpc.value("getFeeForMessage", message, PROCESSED) == 5_000 + 6_000
    assert rpc.value("getFeeForMessage", message, FINALIZED) is None
    assert rpc.error("getFeeForMessage", "!")[0] == -32602


def test_recent_fees_are_told_by_slot(rpc: Rpc, chain: Chain, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    chain.submit(pay(payer, to, SOL, latest(chain), set_compute_unit_price(900)))
    chain.advance()
    assert {"slot": 11, "prioritizationFee": 900} in rpc("getRecentPrioritizationFees", [str(to)])
    assert rpc.error("getRecentPrioritizationFees", [str(to)] * 129) == (-32602, "Too many inputs provided; max 128")


def test_an_airdrop_can_be_asked_for(rpc: Rpc, chain: Chain) -> None:
    to = Pubkey.new_unique()
    signature = rpc("requestAirdrop", str(to), SOL)
    assert rpc.value("getSignatureStatuses", [signature])[0]["err"] is None
    assert rpc.value("getBalance", str(to), PROCESSED) == SOL


def test_a_lookup_table_made_on_the_chain_is_listed_with_the_transaction_that_uses_it(
    make_chain: Callable[..., Chain], payer: Keypair
) -> None:
    from solders.address_lookup_table_account import AddressLookupTableAccount, derive_lookup_table_address
    from solders.instruction import AccountMeta
    from solders.system_program import TransferParams, transfer

    chain = make_chain()
    chain.fund(payer.pubkey(), 10 * SOL)
    chain.advance(5)
    rpc = Rpc(chain)
    slot = rpc("getSlot", CONFIRMED)
    to = Pubkey.new_unique()
    table, bump = derive_lookup_table_address(payer.pubkey(), slot)
    accounts = [
        AccountMeta(table, False, True),
        AccountMeta(payer.pubkey(), True, False),
        AccountMeta(payer.pubkey(), True, True),
        AccountMeta(Pubkey.default(), False, False),
    ]
    create = Instruction(LOOKUP_TABLE_PROGRAM, bytes(4) + slot.to_bytes(8, "little") + bytes([bump]), accounts)
    extend = Instruction(LOOKUP_TABLE_PROGRAM, b"\x02" + bytes(3) + b"\x01" + bytes(7) + bytes(to), accounts)
    make = MessageV0.try_compile(payer.pubkey(), [create, extend], [], latest(chain))
    assert chain.status(chain.submit(VersionedTransaction(make, [payer]))) == (6, None)
    chain.advance(3)
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=SOL))
    tables = [AddressLookupTableAccount(table, [to])]
    use = VersionedTransaction(
        MessageV0.try_compile(payer.pubkey(), [instruction], tables, latest(chain, Commitment.CONFIRMED)), [payer]
    )
    assert rpc.value("simulateTransaction", encoded(use), {**BASE64, **CONFIRMED})["err"] is None
    signature = rpc("sendTransaction", encoded(use), {**BASE64, "preflightCommitment": "confirmed"})
    chain.advance(3)
    version = {"maxSupportedTransactionVersion": 0}
    found = rpc("getTransaction", signature, {**CONFIRMED, **version})
    assert found["meta"]["loadedAddresses"] == {"writable": [str(to)], "readonly": []}
    assert found["transaction"]["message"]["addressTableLookups"] == [
        {"accountKey": str(table), "writableIndexes": [0], "readonlyIndexes": []}
    ]
    parsed = rpc("getTransaction", signature, {**CONFIRMED, **version, "encoding": "jsonParsed"})
    assert parsed["transaction"]["message"]["accountKeys"][-1] == {
        "pubkey": str(to),
        "writable": True,
        "signer": False,
        "source": "lookupTable",
    }
    assert rpc("getSignaturesForAddress", str(to), CONFIRMED)[0]["signature"] == signature
