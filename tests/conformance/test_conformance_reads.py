"""Reads and subscriptions on both chains."""

import base64

import orjson
import pytest
from based58 import b58encode
from rpc_cluster import BASE64, CONFIRMED, MEMO_PROGRAM, PROCESSED, SOL, SYSTEM_PROGRAM, Cluster, create, pay
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

# The envelope


@pytest.mark.parametrize(
    ("method", "params", "code", "message"),
    [
        ("noSuchMethod", [], -32601, "Method not found"),
        ("getBalance", [], -32602, "`params` should have at least 1 argument(s)"),
        ("getBalance", [5], -32602, "Invalid params: invalid type: integer `5`, expected a string."),
    ],
)
async def test_what_cannot_be_called_is_refused(
    cluster: Cluster, method: str, params: list[object], code: int, message: str
) -> None:
    refused = await cluster.refusal(method, *params)
    assert (refused.code, refused.message) == (code, message)


async def test_what_is_no_json_is_refused(cluster: Cluster) -> None:
    answer = await cluster.post(b"{")
    assert answer["error"] == {"code": -32700, "message": "Parse error"}
    assert answer["id"] is None


async def test_parameters_must_be_positional(cluster: Cluster) -> None:
    answer = await cluster.post(b'{"jsonrpc":"2.0","id":1,"method":"getBalance","params":{"address":"x"}}')
    assert answer["error"] == {"code": -32602, "message": "`params` should be an array"}


async def test_a_batch_is_answered_in_order_without_its_notifications(cluster: Cluster) -> None:
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "getHealth"},
        {"jsonrpc": "2.0", "method": "getHealth"},
        {"jsonrpc": "2.0", "id": "x", "method": "noSuchMethod"},
    ]
    answers = await cluster.post(orjson.dumps(batch))
    assert answers[0] == {"jsonrpc": "2.0", "result": "ok", "id": 1}
    assert [answer["id"] for answer in answers] == [1, "x"]
    assert answers[1]["error"]["code"] == -32601


async def test_a_bad_address_is_refused(cluster: Cluster) -> None:
    # The sentence is Surfpool's own ("Invalid pubkey"); Agave says "Invalid param: WrongSize".
    assert (await cluster.refusal("getBalance", "abc")).code == -32602


async def test_a_node_behind_the_caller_s_context_says_so(cluster: Cluster) -> None:
    refused = await cluster.refusal("getBalance", str(SYSTEM_PROGRAM), {"minContextSlot": 10**9})
    assert refused.code == -32016
    assert refused.message == "Minimum context slot has not been reached"
    assert isinstance(refused.data["contextSlot"], int)


# Slots


async def test_commitments_are_in_order(cluster: Cluster) -> None:
    finalized = await cluster.call("getSlot", {"commitment": "finalized"})
    confirmed = await cluster.call("getSlot", CONFIRMED)
    processed = await cluster.call("getSlot", PROCESSED)
    assert finalized <= confirmed <= processed


async def test_a_blockhash_is_valid_for_150_blocks(cluster: Cluster) -> None:
    before = await cluster.call("getBlockHeight", PROCESSED)
    latest = await cluster.value("getLatestBlockhash", PROCESSED)
    after = await cluster.call("getBlockHeight", PROCESSED)
    assert before + 150 <= latest["lastValidBlockHeight"] <= after + 150
    assert await cluster.value("isBlockhashValid", latest["blockhash"], PROCESSED) is True
    assert await cluster.value("isBlockhashValid", str(Pubkey.new_unique()), PROCESSED) is False


async def test_the_epoch_has_432000_slots(cluster: Cluster) -> None:
    info = await cluster.call("getEpochInfo", PROCESSED)
    assert info["slotsInEpoch"] == (await cluster.call("getEpochSchedule"))["slotsPerEpoch"] == 432_000
    assert info["slotIndex"] == info["absoluteSlot"] % 432_000


# Accounts


@pytest.fixture
async def owner_and_accounts(cluster: Cluster) -> tuple[Pubkey, dict[str, int]]:
    """Three accounts of a new owner; data length by address."""
    payer, owner = await cluster.funded(), Pubkey.from_bytes(bytes(Keypair().pubkey()))
    sizes = {}
    for size in (100, 200, 200):
        new = Keypair()
        lamports = await cluster.call("getMinimumBalanceForRentExemption", size)
        tx = await cluster.signed(payer, create(payer.pubkey(), new.pubkey(), lamports, size, owner), signers=(new,))
        await cluster.landed(await cluster.send(tx))
        sizes[str(new.pubkey())] = size
    return owner, sizes


async def test_accounts_are_read_alone_and_together(
    cluster: Cluster, owner_and_accounts: tuple[Pubkey, dict[str, int]]
) -> None:
    owner, sizes = owner_and_accounts
    address, size = next(iter(sizes.items()))
    shown = await cluster.value("getAccountInfo", address, {**BASE64, **CONFIRMED})
    assert shown == {
        "lamports": await cluster.call("getMinimumBalanceForRentExemption", size),
        "data": [base64.b64encode(bytes(size)).decode(), "base64"],
        "owner": str(owner),
        "executable": False,
        "rentEpoch": 2**64 - 1,
        "space": size,
    }
    absent = str(Pubkey.from_bytes(bytes(Keypair().pubkey())))
    together = await cluster.value("getMultipleAccounts", [address, absent], {**BASE64, **CONFIRMED})
    assert together == [shown, None]
    assert await cluster.value("getAccountInfo", absent, {**BASE64, **CONFIRMED}) is None
    assert await cluster.value("getBalance", absent, CONFIRMED) == 0


async def test_data_is_sliced(cluster: Cluster, owner_and_accounts: tuple[Pubkey, dict[str, int]]) -> None:
    owner, sizes = owner_and_accounts
    options = {**BASE64, **CONFIRMED, "dataSlice": {"offset": 10, "length": 5}}
    expected = [base64.b64encode(bytes(5)).decode(), "base64"]
    address, size = next(iter(sizes.items()))
    alone = await cluster.value("getAccountInfo", address, options)
    assert alone["data"] == expected
    assert alone["space"] == size
    found = await cluster.call("getProgramAccounts", str(owner), options)
    assert [one["account"]["data"] for one in found] == [expected] * 3


async def test_a_program_s_accounts_are_found_through_filters(
    cluster: Cluster, owner_and_accounts: tuple[Pubkey, dict[str, int]]
) -> None:
    owner, sizes = owner_and_accounts

    async def find(*filters: object) -> set[str]:
        options = {**BASE64, **CONFIRMED, "filters": list(filters)}
        return {one["pubkey"] for one in await cluster.call("getProgramAccounts", str(owner), options)}

    zeros = {"memcmp": {"offset": 90, "bytes": b58encode(bytes(8)).decode()}}
    zeros_base64 = {"memcmp": {"offset": 90, "bytes": base64.b64encode(bytes(8)).decode(), "encoding": "base64"}}
    ones = {"memcmp": {"offset": 90, "bytes": b58encode(b"\x01").decode()}}
    beyond = {"memcmp": {"offset": 150, "bytes": b58encode(bytes(8)).decode()}}
    large = {address for address, size in sizes.items() if size == 200}
    assert await find() == set(sizes)
    assert await find(zeros) == await find(zeros_base64) == set(sizes)
    assert await find(ones) == set()
    assert await find(beyond) == await find({"dataSize": 200}) == await find(zeros, {"dataSize": 200}) == large
    with_context = await cluster.call("getProgramAccounts", str(owner), {**BASE64, **CONFIRMED, "withContext": True})
    assert len(with_context["value"]) == 3
    assert with_context["context"]["slot"] > 0


async def test_too_many_filters_are_refused(cluster: Cluster) -> None:
    refused = await cluster.refusal("getProgramAccounts", str(MEMO_PROGRAM), {"filters": [{"dataSize": 1}] * 5})
    assert (refused.code, refused.message) == (-32602, "Too many filters provided; max 4")


async def test_a_program_account_is_executable(cluster: Cluster) -> None:
    shown = await cluster.value(
        "getAccountInfo", str(MEMO_PROGRAM), {**BASE64, "dataSlice": {"offset": 0, "length": 4}}
    )
    assert shown["executable"] is True


# Subscriptions


async def test_an_account_is_told_of_when_it_changes(cluster: Cluster) -> None:
    payer, to = await cluster.funded(), Keypair().pubkey()
    async with cluster.subscribed("accountSubscribe", str(to), {**BASE64, **CONFIRMED}) as subscription:
        await cluster.send(await cluster.signed(payer, pay(payer.pubkey(), to, SOL)))
        method, result = await subscription.notified()
    assert method == "accountNotification"
    assert result["context"]["slot"] > 0
    assert result["value"]["lamports"] == SOL
    assert result["value"]["data"] == ["", "base64"]


async def test_a_program_s_account_is_told_of_when_it_changes(cluster: Cluster) -> None:
    payer, new, owner = await cluster.funded(), Keypair(), Keypair().pubkey()
    lamports = await cluster.call("getMinimumBalanceForRentExemption", 64)
    options = {**BASE64, **CONFIRMED, "filters": [{"dataSize": 64}]}
    async with cluster.subscribed("programSubscribe", str(owner), options) as subscription:
        instruction = create(payer.pubkey(), new.pubkey(), lamports, 64, owner)
        await cluster.send(await cluster.signed(payer, instruction, signers=(new,)))
        method, result = await subscription.notified()
    assert method == "programNotification"
    assert result["value"]["pubkey"] == str(new.pubkey())
    assert result["value"]["account"]["data"] == [base64.b64encode(bytes(64)).decode(), "base64"]
    assert result["value"]["account"]["owner"] == str(owner)


async def test_a_signature_is_told_of_when_it_is_confirmed(cluster: Cluster) -> None:
    payer = await cluster.funded()
    for lamports, err in ((SOL, None), (11 * SOL, {"InstructionError": [0, {"Custom": 1}]})):
        tx = await cluster.signed(payer, pay(payer.pubkey(), Keypair().pubkey(), lamports))
        async with cluster.subscribed("signatureSubscribe", str(tx.signatures[0]), CONFIRMED) as subscription:
            await cluster.send(tx, skipPreflight=True)
            method, result = await subscription.notified()
        assert method == "signatureNotification"
        assert result["value"] == {"err": err}


async def test_slots_are_told_in_order(cluster: Cluster) -> None:
    async with cluster.subscribed("slotSubscribe") as subscription:
        told = [await subscription.notified() for _ in range(3)]
    assert {method for method, _ in told} == {"slotNotification"}
    slots = [result["slot"] for _, result in told]
    assert slots == list(range(slots[0], slots[0] + 3))
    assert all(result["root"] <= result["parent"] < result["slot"] for _, result in told)


async def test_logs_are_told_to_those_whom_they_mention(cluster: Cluster) -> None:
    payer = await cluster.funded()
    async with cluster.subscribed("logsSubscribe", {"mentions": [str(payer.pubkey())]}, CONFIRMED) as subscription:
        signature = await cluster.send(await cluster.signed(payer, Instruction(MEMO_PROGRAM, b"hello", [])))
        method, result = await subscription.notified()
    assert method == "logsNotification"
    assert result["value"]["signature"] == signature
    assert result["value"]["err"] is None
    logs = result["value"]["logs"]
    assert logs[0] == f"Program {MEMO_PROGRAM} invoke [1]"
    assert any("hello" in line for line in logs)
    assert logs[-1] == f"Program {MEMO_PROGRAM} success"
