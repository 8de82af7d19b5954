"""Whatever a node answers, the caller meets a value of the right shape or a coded error."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from rpc_wire import KEY, Node, NodeError, http_answer, in_context
from solana.rpc.commitment import Confirmed, Finalized, Processed
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.rpc import errors
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.connection import Answer, Lost
from oracle.chain.rpc.errors import RpcError
from oracle.chain.rpc.http import NotSent
from oracle.chain.rpc.provider import Provider
from oracle.chain.rpc.types import DataSize, DataSlice, Memcmp
from oracle.core.errors import OracleError, Verdict

ADDRESS = Pubkey.new_unique()
OWNER = Pubkey.new_unique()
SIGNATURE = Signature.new_unique()
HASH = Hash.new_unique()


def client_of(node: Node, url: str = "http://127.0.0.1:8899") -> Client:
    return Client(Provider(url, wire=node))


def account_json(data: bytes = b"\x01\x02", **changed: Any) -> dict[str, Any]:
    return {
        "lamports": 7,
        "owner": str(OWNER),
        "data": [base64.b64encode(data).decode(), "base64"],
        "executable": False,
        "rentEpoch": 2**64 - 1,
        "space": len(data),
    } | changed


async def test_accounts_come_with_their_context_slot_and_absence_is_none() -> None:
    node = Node(getMultipleAccounts=in_context(9, [account_json(), None]))
    read = await client_of(node).get_multiple_accounts([ADDRESS, OWNER], Finalized, min_context_slot=8)
    assert read.slot == 9
    assert read.value[0] is not None
    assert (read.value[0].lamports, read.value[0].owner, read.value[0].data) == (7, OWNER, b"\x01\x02")
    assert read.value[1] is None
    assert node.calls[0][1] == [
        [str(ADDRESS), str(OWNER)],
        {"commitment": "finalized", "encoding": "base64", "minContextSlot": 8},
    ]


async def test_many_accounts_are_read_in_hundreds_and_dated_by_the_oldest_answer() -> None:
    slots = iter([12, 10, 11])
    node = Node(getMultipleAccounts=lambda keys, _: in_context(next(slots), [None] * len(keys)))
    read = await client_of(node).get_multiple_accounts([ADDRESS] * 201)
    assert (read.slot, len(read.value)) == (10, 201)
    assert [len(params[0]) for _, params in node.calls] == [100, 100, 1]


async def test_an_account_without_rent_epoch_is_read() -> None:
    value = account_json()
    del value["rentEpoch"]
    read = await client_of(Node(getAccountInfo=in_context(1, value))).get_account(ADDRESS)
    assert read.value is not None


async def test_statuses_are_read_in_chunks_of_256() -> None:
    status = {"slot": 5, "confirmations": 3, "err": None, "confirmationStatus": "confirmed"}
    node = Node(getSignatureStatuses=lambda signatures, _: in_context(6, [status] * len(signatures)))
    read = await client_of(node).get_signature_statuses([SIGNATURE] * 257, search_history=True)
    assert len(read.value) == 257
    assert [len(params[0]) for _, params in node.calls] == [256, 1]
    assert node.calls[0][1][1] == {"searchTransactionHistory": True}
    assert read.value[256] is not None
    assert read.value[256].commitment == Confirmed


DATE = "Sun, 22 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("raw", "kind", "instruction", "custom"),
    [
        ({"InstructionError": [2, {"Custom": 6000}]}, "Custom", 2, 6000),
        ({"InstructionError": [0, "InvalidAccountData"]}, "InvalidAccountData", 0, None),
        ({"InstructionError": [1, "BorshIoError"]}, "BorshIoError", 1, None),
        ({"InstructionError": [1, {"BorshIoError": "x"}]}, "BorshIoError", 1, None),
        ({"InstructionError": [3, {"InventedIn2030": {"a": 1}}]}, "InventedIn2030", 3, None),
        ({"InsufficientFundsForRent": {"account_index": 1}}, "InsufficientFundsForRent", None, None),
        ("BlockhashNotFound", "BlockhashNotFound", None, None),
        ("InventedIn2031", "InventedIn2031", None, None),
        ({"InstructionError": "not a pair"}, "InstructionError", None, None),
        (["?"], "Unknown", None, None),
    ],
)
async def test_a_failure_of_any_kind_is_kept_even_one_that_is_not_invented_yet(
    raw: Any, kind: str, instruction: int | None, custom: int | None
) -> None:
    status = {"slot": 5, "confirmations": None, "err": raw, "confirmationStatus": "finalized"}
    fine = {"slot": 5, "confirmations": None, "err": None, "confirmationStatus": "finalized"}
    node = Node(getSignatureStatuses=in_context(6, [status, fine]))
    read = await client_of(node).get_signature_statuses([SIGNATURE, SIGNATURE])
    assert read.value[0] is not None
    failure = read.value[0].failure
    assert failure is not None
    assert (failure.raw, failure.kind, failure.instruction, failure.custom) == (raw, kind, instruction, custom)
    assert read.value[1] is not None
    assert read.value[1].failure is None


async def test_a_status_of_an_old_node_is_dated_by_its_confirmations() -> None:
    old = [{"slot": 5, "confirmations": None, "err": None}, {"slot": 5, "confirmations": 1, "err": None}]
    read = await client_of(Node(getSignatureStatuses=in_context(6, old))).get_signature_statuses([SIGNATURE] * 2)
    assert [status.commitment for status in read.value if status] == [Finalized, Processed]


async def test_program_accounts_are_asked_for_by_filter_and_slice_with_their_slot() -> None:
    items = [{"pubkey": str(ADDRESS), "account": account_json(b"abc")}]
    node = Node(getProgramAccounts=in_context(77, items))
    filters = [Memcmp(16, b"\x05\x06"), DataSize(352)]
    read = await client_of(node).get_program_accounts(OWNER, filters, data_slice=DataSlice(8, 120))
    assert (read.slot, list(read.value.addresses), list(read.value.data)) == (77, [str(ADDRESS)], [b"abc"])
    assert node.calls[0][1][1] == {
        "commitment": "confirmed",
        "encoding": "base64",
        "withContext": True,
        "dataSlice": {"offset": 8, "length": 120},
        "filters": [{"memcmp": {"offset": 16, "bytes": "BQY=", "encoding": "base64"}}, {"dataSize": 352}],
    }


async def test_a_simulation_tells_failure_logs_units_and_accounts_afterwards() -> None:
    value = {
        "err": {"InstructionError": [1, {"Custom": 6001}]},
        "logs": ["Program log: no"],
        "unitsConsumed": 321,
        "accounts": [account_json(), None],
        "replacementBlockhash": {"blockhash": str(HASH), "lastValidBlockHeight": 400},
    }
    node = Node(simulateTransaction=in_context(50, value))
    result = await client_of(node).simulate_transaction(b"tx", replace_blockhash=True, accounts=[ADDRESS, OWNER])
    assert result.failure is not None
    assert (result.failure.instruction, result.failure.custom) == (1, 6001)
    assert (result.slot, result.logs, result.units_consumed) == (50, ("Program log: no",), 321)
    assert [account is None for account in result.accounts] == [False, True]
    assert result.replacement_blockhash is not None
    assert result.replacement_blockhash.last_valid_block_height == 400
    config = node.calls[0][1][1]
    assert (config["sigVerify"], config["replaceRecentBlockhash"]) == (False, True)
    assert config["accounts"]["addresses"] == [str(ADDRESS), str(OWNER)]


async def test_the_smaller_calls_read_what_nodes_answer() -> None:
    node = Node(
        getLatestBlockhash=in_context(3, {"blockhash": str(HASH), "lastValidBlockHeight": 153}),
        getBlockHeight=99,
        getEpochInfo={"epoch": 2, "absoluteSlot": 110, "blockHeight": 99, "slotIndex": 1, "slotsInEpoch": 8},
        getBalance=in_context(3, 5),
        getMinimumBalanceForRentExemption=890_880,
        getRecentPrioritizationFees=[{"slot": 3, "prioritizationFee": 1000}],
        getSignaturesForAddress=[
            {"signature": str(SIGNATURE), "slot": 3, "err": None, "blockTime": None, "memo": None}
        ],
        getTransaction={"slot": 3, "blockTime": 17, "meta": {"err": None, "fee": 5000, "logMessages": ["a"]}},
        requestAirdrop=str(SIGNATURE),
        sendTransaction=str(SIGNATURE),
        getHealth="ok",
        getVersion={"solana-core": "2.2.0", "feature-set": 1},
        getFirstAvailableBlock=1,
        minimumLedgerSlot=2,
        getRecentPerformanceSamples=[{"slot": 60, "numSlots": 150, "samplePeriodSecs": 60, "numTransactions": 0}],
    )
    client = client_of(node)
    assert (await client.get_latest_blockhash()).last_valid_block_height == 153
    assert await client.get_block_height(Finalized) == 99
    assert (await client.get_epoch_info()).block_height == 99
    assert (await client.get_balance(ADDRESS)).value == 5
    assert await client.get_minimum_balance_for_rent_exemption(0) == 890_880
    assert (await client.get_recent_prioritization_fees([ADDRESS]))[0].micro_lamports == 1000
    assert (await client.get_signatures_for_address(ADDRESS, before=SIGNATURE))[0].signature == SIGNATURE
    record = await client.get_transaction(SIGNATURE)
    assert record is not None
    assert (record.fee_lamports, record.logs, record.block_time) == (5000, ("a",), 17)
    assert await client.request_airdrop(ADDRESS, 1) == SIGNATURE
    assert await client.send_transaction(b"tx") == SIGNATURE
    await client.get_health()
    assert (await client.get_version()).solana_core == "2.2.0"
    assert (await client.get_first_available_block(), await client.get_minimum_ledger_slot()) == (1, 2)
    assert (await client.get_recent_performance_samples())[0].slots == 150
    assert (await client.get_transaction(SIGNATURE)) is not None


NONSENSE: list[Any] = [
    None,
    True,
    -1,
    1.5,
    2**64,
    "text",
    [],
    [None],
    {},
    {"context": None, "value": []},
    {"context": {"slot": "9"}, "value": []},
    {"context": {"slot": -9}, "value": 0},
    {"value": [None]},
    in_context(1, {}),
    in_context(1, [{}]),
    in_context(1, [[]]),
    in_context(1, "x"),
    in_context(1, {"blockhash": "l0", "lastValidBlockHeight": 1}),
    in_context(1, [account_json(owner="?")]),
    in_context(1, [account_json() | {"data": "base58text"}]),
    in_context(1, [account_json() | {"data": ["!!!", "base64"]}]),
    in_context(1, [account_json() | {"data": ["AAA=", "base64+zstd"]}]),
    in_context(1, [{"pubkey": "0OIl", "account": account_json()}]),
    in_context(1, [{"slot": 1, "confirmations": 1, "err": None, "confirmationStatus": "certain"}]),
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=[repr(item)[:60] for item in NONSENSE])
async def test_nonsense_is_a_coded_error_never_a_crash(nonsense: Any) -> None:
    node = Node(
        getAccountInfo=nonsense,
        getMultipleAccounts=nonsense,
        getProgramAccounts=nonsense,
        getSignatureStatuses=nonsense,
        getLatestBlockhash=nonsense,
        simulateTransaction=nonsense,
        getEpochInfo=nonsense,
        getVersion=nonsense,
        sendTransaction=nonsense,
        getRecentPrioritizationFees=nonsense,
        getGenesisHash=nonsense,
        getTransaction=nonsense,
    )
    client = client_of(node)
    calls = [
        client.get_multiple_accounts([ADDRESS, OWNER]),
        client.get_program_accounts(OWNER),
        client.get_signature_statuses([SIGNATURE, SIGNATURE]),
        client.get_latest_blockhash(),
        client.simulate_transaction(b"", accounts=[ADDRESS, OWNER]),
        client.get_epoch_info(),
        client.get_version(),
        client.send_transaction(b""),
        client.get_genesis_hash(),
    ]
    for call in calls:
        method = call.__name__
        try:
            value = await call
        except OracleError as error:
            assert error.error in (errors.GARBAGE, errors.SEND_UNCERTAIN), method  # noqa: PT017
        else:
            assert method == "get_program_accounts", (method, value)
            assert nonsense in (in_context(1, []), {"context": {"slot": -9}, "value": 0})


@pytest.mark.parametrize(
    "body", [b"", b"<html>Sign in</html>", b'{"jsonrpc":"2.0"', b"[]", b"null", b"\xff\xfe", b"{}"]
)
async def test_a_body_that_is_no_json_rpc_is_garbage(body: bytes) -> None:
    node = Node(getSlot=http_answer(200, content=body))
    with pytest.raises(OracleError) as raised:
        await client_of(node).get_slot()
    assert raised.value.error is errors.GARBAGE


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (NodeError(-32005, "busy"), errors.RATE_LIMITED),
        (NodeError(-32005, "behind", {"numSlotsBehind": 42}), errors.UNHEALTHY),
        (NodeError(429, "slow down"), errors.RATE_LIMITED),
        (NodeError(-32000, "You have run out of credits"), errors.RATE_LIMITED),
        (NodeError(-32016, "Minimum context slot has not been reached", {"contextSlot": 5}), errors.BEHIND),
        (NodeError(-32601, "Method not found"), errors.UNSUPPORTED),
        (NodeError(-32011, "Transaction history is not available from this node"), errors.UNSUPPORTED),
        (NodeError(-32602, "Invalid params"), errors.NODE_ERROR),
        (NodeError(-32603, "Internal error"), errors.UNHEALTHY),
        (NodeError(-32002, "Transaction simulation failed", {"err": "BorshIoError"}), errors.PREFLIGHT_FAILED),
        (NodeError(-32002, "Transaction simulation failed"), errors.PREFLIGHT_FAILED),
    ],
)
async def test_an_error_of_the_node_keeps_its_code_message_and_data(answer: NodeError, code: Any) -> None:
    with pytest.raises(RpcError) as raised:
        await client_of(Node(getSlot=answer)).get_slot()
    assert raised.value.error is code
    assert raised.value.rpc_code == answer.body["code"]
    assert raised.value.rpc_message == answer.body["message"]
    assert raised.value.data == answer.body.get("data")


@pytest.mark.parametrize("error", ["a string", ["list"], 7, {"code": "x", "message": None}, {}])
async def test_an_error_of_no_known_shape_is_still_an_error(error: Any) -> None:
    node = Node(getSlot=http_answer(200, json={"jsonrpc": "2.0", "id": 1, "error": error}))
    with pytest.raises(OracleError) as raised:
        await client_of(node).get_slot()
    assert raised.value.error is errors.NODE_ERROR


@pytest.mark.parametrize(
    ("response", "code", "wait"),
    [
        (http_answer(429, headers={"retry-after": "7"}), errors.RATE_LIMITED, 7.0),
        (http_answer(429, headers={"retry-after": "1e9"}), errors.RATE_LIMITED, 300.0),
        (http_answer(429, headers={"retry-after": "nan"}), errors.RATE_LIMITED, None),
        (http_answer(429, headers={"retry-after": "soon"}), errors.RATE_LIMITED, None),
        (
            http_answer(429, headers={"date": DATE, "retry-after": f"Mon, 20 Nov {'9' * 20} 19:12:08 +0000"}),
            errors.RATE_LIMITED,
            None,
        ),
        (
            http_answer(
                429,
                headers={"date": DATE, "retry-after": "Sun, 22 Nov 2026 10:00:09 GMT"},
            ),
            errors.RATE_LIMITED,
            9.0,
        ),
        (http_answer(503, headers={"retry-after": "2"}), errors.SERVER_ERROR, 2.0),
        (http_answer(500, text="<html>"), errors.SERVER_ERROR, None),
        (http_answer(401, json={"error": {"code": 401, "message": "who are you"}}), errors.REFUSED, None),
        (http_answer(302, headers={"location": "https://elsewhere"}), errors.REFUSED, None),
        (http_answer(400, json={"error": {"code": -32602, "message": "bad"}}), errors.NODE_ERROR, None),
    ],
)
async def test_an_http_status_is_judged_before_the_body(response: Answer, code: Any, wait: float | None) -> None:
    with pytest.raises(OracleError) as raised:
        await client_of(Node(getSlot=response)).get_slot()
    assert raised.value.error is code
    assert raised.value.retry_after_seconds == wait


@pytest.mark.parametrize(
    ("problem", "read_code", "send_code"),
    [
        (NotSent("refused"), errors.UNREACHABLE, errors.UNREACHABLE),
        (NotSent("slow"), errors.UNREACHABLE, errors.UNREACHABLE),
        (Lost("slow"), errors.ANSWER_LOST, errors.SEND_UNCERTAIN),
        (Lost("reset"), errors.ANSWER_LOST, errors.SEND_UNCERTAIN),
        (Lost("cut"), errors.ANSWER_LOST, errors.SEND_UNCERTAIN),
        (http_answer(502), errors.SERVER_ERROR, errors.SEND_UNCERTAIN),
        (http_answer(200, text="<html>"), errors.GARBAGE, errors.SEND_UNCERTAIN),
        (http_answer(429), errors.RATE_LIMITED, errors.RATE_LIMITED),
    ],
)
async def test_a_send_whose_answer_is_lost_may_have_happened(problem: Any, read_code: Any, send_code: Any) -> None:
    client = client_of(Node(getSlot=problem, sendTransaction=problem))
    with pytest.raises(OracleError) as read:
        await client.get_slot()
    assert read.value.error is read_code
    assert read.value.verdict is Verdict.RETRY
    with pytest.raises(OracleError) as sent:
        await client.send_transaction(b"tx")
    assert sent.value.error is send_code
    assert (sent.value.verdict is Verdict.UNKNOWN) == (send_code is errors.SEND_UNCERTAIN)


async def test_a_node_that_ignores_the_minimum_slot_is_found_out() -> None:
    node = Node(
        getAccountInfo=in_context(9, None),
        getSlot=9,
        getEpochInfo={"epoch": 0, "absoluteSlot": 9, "blockHeight": 9},
        getProgramAccounts=in_context(9, []),
    )
    client = client_of(node)
    for call in (
        client.get_account(ADDRESS, min_context_slot=10),
        client.get_slot(min_context_slot=10),
        client.get_epoch_info(min_context_slot=10),
        client.get_program_accounts(ADDRESS, min_context_slot=10),
    ):
        with pytest.raises(OracleError) as raised:
            await call
        assert raised.value.error is errors.BEHIND


async def test_the_history_is_refused_when_statuses_come_from_a_node_behind_the_height() -> None:
    node = Node(
        getEpochInfo={"epoch": 0, "absoluteSlot": 500, "blockHeight": 480},
        getSignatureStatuses=in_context(499, [None]),
        getFirstAvailableBlock=1,
    )
    client = client_of(node)
    with pytest.raises(OracleError) as raised:
        await client.get_signature_history([SIGNATURE])
    assert raised.value.error is errors.BEHIND
    node.script["getSignatureStatuses"] = in_context(500, [None])
    history = await client.get_signature_history([SIGNATURE])
    assert (history.finalized_block_height, history.first_available_slot, history.statuses) == (480, 1, (None,))
    assert [method for method, _ in node.calls[-3:]] == [
        "getEpochInfo",
        "getSignatureStatuses",
        "getFirstAvailableBlock",
    ]
    assert node.calls[-3][1] == [{"commitment": "finalized"}]


async def test_a_key_in_the_url_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    secrets = [KEY, "hunter2-password", "query-secret-99"]
    url = f"https://user:hunter2-password@rpc.example.com/v2/{KEY}?api-key=query-secret-99"
    echo = NodeError(-32000, f"key {KEY} and query-secret-99 are unknown here")
    node = Node(getSlot=echo, getHealth=Lost(f"reading {KEY}"), getVersion=http_answer(401))
    client = client_of(node, url)
    shown = [client.name, repr(client.transport)]
    for call in (client.get_slot(), client.get_health(), client.get_version()):
        with pytest.raises(OracleError) as raised:
            await call
        cause = raised.value.__cause__
        shown += [str(raised.value), repr(raised.value), repr(cause), repr(getattr(cause, "request", None))]
    assert "rpc.example.com" in shown[0]
    for secret in secrets:
        assert secret not in caplog.text
        assert not any(secret in text for text in shown)


@pytest.mark.parametrize(
    "url", ["", "rpc.example.com", "ftp://x", "http://", "https://[::1", "file:///etc/passwd", KEY]
)
def test_what_is_no_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(OracleError) as raised:
        Provider(url)
    assert raised.value.error is errors.BAD_URL
    assert KEY not in str(raised.value)


class PanicException(BaseException):
    """As solders raises it: not an `Exception`."""


async def test_a_parser_that_panics_is_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(_: Any) -> int:
        raise PanicException("called `Result::unwrap()` on an `Err` value")

    monkeypatch.setattr("oracle.chain.rpc.shapes.integer", panic)
    with pytest.raises(OracleError) as raised:
        await client_of(Node(getBlockHeight=5)).get_block_height()
    assert raised.value.error is errors.GARBAGE
