"""A user's own program, bound by names: what is read and built, and that every wrong name is refused at start."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from program_samples import discriminator, key
from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from oracle.chain.program import instructions
from oracle.chain.program.mapping import MappedProgram, Names, bind
from oracle.core.errors import OracleError
from oracle.core.request import Inline, Status

Json = dict[str, Any]
PROGRAM, BOARD, ASKER, TREASURY = key(21), key(22), key(23), key(24)


def named(namespace: str, name: str, **more: Any) -> Json:
    return {"name": name, "discriminator": list(discriminator(f"{namespace}:{name}")), **more}


def fields(**types: Any) -> list[Json]:
    return [{"name": name, "type": of} for name, of in types.items()]


HASH = {"array": ["u8", 32]}
IDL: Json = {
    "address": str(PROGRAM),
    "metadata": {"name": "question_board", "version": "0.3.0", "spec": "0.1.0"},
    "instructions": [
        named(
            "global",
            "settle",
            accounts=[
                {"name": "question", "writable": True},
                {"name": "answerer", "writable": True, "signer": True},
                {"name": "board"},
                {"name": "treasury", "writable": True},
                {"name": "system_program", "address": str(Pubkey.default())},
            ],
            args=fields(answer_hash=HASH, proof=HASH, at="i64"),
        ),
    ],
    "accounts": [named("account", "Question")],
    "types": [
        {"name": "State", "type": {"kind": "enum", "variants": [{"name": "Open"}, {"name": "Done"}, {"name": "Gone"}]}},
        {"name": "Ask", "type": {"kind": "struct", "fields": fields(model_name="string", prompt="string")}},
        {
            "name": "Question",
            "type": {
                "kind": "struct",
                "fields": fields(
                    bump="u8",
                    board="pubkey",
                    state={"defined": {"name": "State"}},
                    tags={"array": ["u16", 3]},
                    asked_at_slot="u64",
                    ask={"defined": {"name": "Ask"}},
                    last_slot="u64",
                    reward="u64",
                    asker="pubkey",
                    note={"option": "string"},
                ),
            },
        },
    ],
}
NAMES = Names(
    account="Question",
    model="ask.model_name",
    input="ask.prompt",
    deadline_slot="last_slot",
    created_slot="asked_at_slot",
    queue="board",
    status="state",
    pending="Open",
    fulfilled="Done",
    settlement="settle",
    arguments={"answer_hash": "output_hash", "proof": "job_hash", "at": "completed_at"},
    accounts={"question": "request", "answerer": "operator", "board": "board", "treasury": str(TREASURY)},
    fee_lamports="reward",
    requester="asker",
)


def number(value: int, length: int = 8) -> bytes:
    return value.to_bytes(length, "little")


def text(value: str) -> bytes:
    return number(len(value.encode()), 4) + value.encode()


def question(state: int = 0, prompt: str = "Wie heißt du?") -> bytes:
    return b"".join(
        (
            discriminator("account:Question"),
            b"\xfe",
            bytes(BOARD),
            bytes([state]),
            bytes(6),
            number(77),
            text("llama-3"),
            text(prompt),
            number(999),
            number(5_000_000),
            bytes(ASKER),
            b"\x00",
            bytes(40),  # room that the program keeps for later
        )
    )


@pytest.fixture(scope="module")
def program() -> MappedProgram:
    return bind(IDL, NAMES)


def test_a_request_of_another_program_is_read_by_its_names(program: MappedProgram) -> None:
    request = program.decode_request(key(5), question())
    header = request.header
    assert (request.body.model, request.body.input) == ("llama-3", Inline("Wie heißt du?".encode()))
    assert (header.deadline_slot, header.created_slot, header.fee_lamports) == (999, 77, 5_000_000)
    assert (header.queue, header.requester, header.status) == (BOARD, ASKER, Status.PENDING)
    assert request.key.created_slot == 77
    assert request.body_is_authentic


@pytest.mark.parametrize(("state", "status"), [(0, Status.PENDING), (1, Status.FULFILLED), (2, Status.CANCELLED)])
def test_a_status_is_open_fulfilled_or_ended_by_another(program: MappedProgram, state: int, status: Status) -> None:
    assert program.decode_request(key(5), question(state)).header.status is status


def test_the_scanner_finds_what_it_compares_at_these_offsets(program: MappedProgram) -> None:
    data = question(state=1)
    assert data[program.queue_at : program.queue_at + 32] == bytes(BOARD)
    assert data[program.status_at] == program.fulfilled == 1
    assert program.pending == 0
    assert data[program.created_slot_at : program.created_slot_at + 8] == number(77)
    assert data[:8] == program.discriminator


def test_a_settlement_is_built_as_the_idl_says(program: MappedProgram) -> None:
    output_hash, job_hash = sha256(b"output").digest(), sha256(b"job").digest()
    built = program.record_inference_result(
        key(5), question(), operator_key=key(6), output_hash=output_hash, job_hash=job_hash, completed_at=-3
    )
    assert bytes(built.data) == discriminator("global:settle") + output_hash + job_hash + b"\xfd" + b"\xff" * 7
    assert built.program_id == PROGRAM
    assert built.accounts == [
        AccountMeta(key(5), False, True),
        AccountMeta(key(6), True, True),
        AccountMeta(BOARD, False, False),
        AccountMeta(TREASURY, False, True),
        AccountMeta(Pubkey.default(), False, False),
    ]


def test_the_settlement_of_a_program_like_the_built_in_one_is_the_built_in_one() -> None:
    idl = copy.deepcopy(IDL)
    idl["instructions"] = [
        named(
            "global",
            "record_inference_result",
            accounts=[
                {"name": "request", "writable": True},
                {"name": "operator_key", "writable": True, "signer": True},
                {"name": "operator"},
            ],
            args=fields(output_hash=HASH, job_hash=HASH, completed_at="i64"),
        )
    ]
    names = replace(
        NAMES,
        settlement="record_inference_result",
        arguments={name: name for name in ("output_hash", "job_hash", "completed_at")},
        accounts={"request": "request", "operator_key": "operator", "operator": str(key(7))},
    )
    said = {"output_hash": bytes([1]) * 32, "job_hash": bytes([2]) * 32, "completed_at": 1_700_000_000}
    mapped = bind(idl, names).record_inference_result(key(5), question(), operator_key=key(6), **said)  # type: ignore[arg-type]
    assert mapped == instructions.record_inference_result(
        PROGRAM,
        request=key(5),
        operator_key=key(6),
        operator=key(7),
        **said,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "said",
    [{"output_hash": bytes(31)}, {"job_hash": bytes(33)}, {"completed_at": 2**63}],
)
def test_a_value_that_does_not_fit_is_refused(program: MappedProgram, said: Json) -> None:
    values = {"output_hash": bytes(32), "job_hash": bytes(32), "completed_at": 0} | said
    with pytest.raises(OracleError) as caught:
        program.record_inference_result(key(5), question(), operator_key=key(6), **values)
    assert caught.value.code == "ORC-CHAIN-105"


def test_a_damaged_account_never_raises_anything_but_an_oracle_error(program: MappedProgram) -> None:
    whole, chance = question(), random.Random(3)
    cut = [whole[:length] for length in range(len(whole) - 40)]
    for data in cut:
        with pytest.raises(OracleError) as caught:
            program.decode_request(key(5), data)
        assert caught.value.code in ("ORC-CHAIN-101", "ORC-CHAIN-103")
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(8, len(damaged))] = chance.randrange(256)
        with suppress(OracleError):
            program.decode_request(key(5), bytes(damaged))


WRONG_NAMES: dict[str, tuple[Json, str]] = {
    "an account that is not there": ({"account": "Answer"}, "no account Answer"),
    "a field that is not there": ({"model": "ask.modelname"}, "no field ask.modelname"),
    "a path through a number": ({"model": "bump.model"}, "no field bump.model"),
    "a model that is no text": ({"model": "reward"}, "not string"),
    "an input that is no text": ({"input": "board"}, "not string or bytes"),
    "a deadline that is no slot": ({"deadline_slot": "bump"}, "not u64"),
    "a fee that is no amount": ({"fee_lamports": "asker"}, "not u64"),
    "a requester that is no key": ({"requester": "reward"}, "not pubkey"),
    "a queue that is no key": ({"queue": "reward"}, "not pubkey"),
    "a queue behind a text": ({"queue": "asker"}, "behind a field of varying size"),
    "a slot of creation behind a text": ({"created_slot": "last_slot"}, "behind a field of varying size"),
    "a status that is no status": ({"status": "board"}, "cannot be 'Open'"),
    "a variant that is not there": ({"pending": "Waiting"}, "cannot be 'Waiting'"),
    "a number for a variant": ({"pending": 0}, "cannot be 0"),
    "one status for two": ({"fulfilled": "Open"}, "both Open"),
    "a settlement that is not there": ({"settlement": "answer"}, "no instruction answer"),
    "an argument too few": ({"arguments": {"answer_hash": "output_hash"}}, "takes"),
    "an argument of another type": (
        {"arguments": {**NAMES.arguments, "at": "output_hash"}},
        "at is of type i64, which output_hash is not",
    ),
    "an argument that nobody knows": ({"arguments": {**NAMES.arguments, "at": "weather"}}, "weather is not"),
    "no output hash": ({"arguments": {**NAMES.arguments, "answer_hash": "job_hash"}}, "not given the output_hash"),
    "an account of which nothing is said": (
        {"accounts": {name: where for name, where in NAMES.accounts.items() if name != "treasury"}},
        "nothing is said of treasury",
    ),
    "an account that is neither a field nor an address": (
        {"accounts": {**NAMES.accounts, "treasury": "vault"}},
        "no field vault",
    ),
    "an account that is no key": ({"accounts": {**NAMES.accounts, "treasury": "reward"}}, "not pubkey"),
    "a signer who is not the operator": (
        {"accounts": {**NAMES.accounts, "answerer": str(TREASURY), "treasury": "operator"}},
        "answerer must sign",
    ),
    "no request": ({"accounts": {**NAMES.accounts, "question": "board"}}, "the request and the operator"),
}


@pytest.mark.parametrize("what", WRONG_NAMES)
def test_a_wrong_name_is_refused_when_the_program_is_bound(what: str) -> None:
    changed, says = WRONG_NAMES[what]
    with pytest.raises(OracleError, match=says) as caught:
        bind(IDL, replace(NAMES, **changed))
    assert caught.value.code == "ORC-CHAIN-108"


STATUS_TYPES: dict[str, tuple[Any, Any, Any]] = {
    "number": ("u8", 3, 4),
    "yes or no": ("bool", False, True),
}


@pytest.mark.parametrize("kind", STATUS_TYPES)
def test_a_status_may_be_a_number_or_a_boolean(kind: str) -> None:
    of, pending, fulfilled = STATUS_TYPES[kind]
    idl = with_question(lambda question: question[2].update(type=of))
    program = bind(idl, replace(NAMES, pending=pending, fulfilled=fulfilled))
    assert program.decode_request(key(5), question(int(pending))).header.status is Status.PENDING
    assert program.decode_request(key(5), question(int(fulfilled))).header.status is Status.FULFILLED


def test_an_enum_that_varies_in_size_hides_what_stands_behind_it() -> None:
    idl = with_question(lambda _: None)
    idl["types"][0]["type"]["variants"][2]["fields"] = fields(why="string")
    with pytest.raises(OracleError, match="asked_at_slot stands behind a field of varying size"):
        bind(idl, NAMES)


def test_an_idl_that_cannot_be_read_is_refused_as_such() -> None:
    idl = with_question(lambda question: question[0].update(type="u256"))
    with pytest.raises(OracleError) as caught:
        bind(idl, NAMES)
    assert caught.value.code == "ORC-CHAIN-106"


def with_question(change: Callable[[list[Json]], object]) -> Json:
    idl = copy.deepcopy(IDL)
    change(idl["types"][2]["type"]["fields"])
    return idl
