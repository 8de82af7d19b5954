"""The IDL: what is loaded, converted for anchorpy, and refused; and the start-up comparison built on it."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oracle.chain.program import selfcheck
from oracle.chain.program.errors import code_of, explain
from oracle.chain.program.idl import built_in, coder_of, load, program_id, to_legacy
from oracle.core.errors import OracleError

Json = dict[str, Any]


@pytest.fixture
def idl() -> Json:
    """A copy that a test may damage."""
    return copy.deepcopy(dict(built_in()))


def test_the_built_in_idl_converts_for_anchorpy(idl: Json) -> None:
    legacy = to_legacy(idl)
    assert {account["name"] for account in legacy["accounts"]} >= {"Request", "Operator", "Queue"}
    assert not {"Request", "InferenceRecorded"} & {defined["name"] for defined in legacy["types"]}
    coder_of(idl)


def test_the_program_id_is_the_one_of_the_idl(idl: Json) -> None:
    assert str(program_id()) == idl["address"]


def test_the_codec_agrees_with_the_committed_idl(idl: Json) -> None:
    selfcheck.check(idl)


def test_the_comparison_at_start_is_quick(idl: Json) -> None:
    selfcheck.check(idl)
    started = time.process_time()
    selfcheck.check(idl)
    assert time.process_time() - started < 1.0


def type_of(idl: Json, name: str) -> Json:
    found: Json = next(defined for defined in idl["types"] if defined["name"] == name)
    return found


def instruction_of(idl: Json, name: str) -> Json:
    found: Json = next(instruction for instruction in idl["instructions"] if instruction["name"] == name)
    return found


def swap(items: list[Any], first: int, second: int) -> None:
    items[first], items[second] = items[second], items[first]


def rename(items: list[Json], old: str, new: str) -> None:
    next(item for item in items if item["name"] == old)["name"] = new


DISAGREEMENTS: dict[str, Callable[[Json], object]] = {
    "two slots of the header changed places": lambda idl: swap(type_of(idl, "Request")["type"]["fields"], 7, 8),
    "the header has a field more": lambda idl: type_of(idl, "Request")["type"]["fields"].append(
        {"name": "extra", "type": "u64"}
    ),
    "two hashes of a record changed places": lambda idl: swap(
        instruction_of(idl, "record_inference_result")["args"], 0, 1
    ),
    "two terms changed places": lambda idl: swap(type_of(idl, "QueueTerms")["type"]["fields"], 3, 4),
    "two parameters changed places": lambda idl: swap(type_of(idl, "Params")["type"]["fields"], 0, 2),
    "two kinds of input changed places": lambda idl: swap(type_of(idl, "Input")["type"]["variants"], 1, 2),
    "a field of an event is wider": lambda idl: type_of(idl, "RequestRejected")["type"]["fields"][2].update(type="u16"),
    "two fields of an event changed places": lambda idl: swap(type_of(idl, "RequestSubmitted")["type"]["fields"], 4, 5),
    "an account is no longer writable": lambda idl: instruction_of(idl, "close_request")["accounts"][1].pop("writable"),
    "an account more is asked for": lambda idl: instruction_of(idl, "expire_request")["accounts"].append(
        {"name": "caller", "signer": True}
    ),
    "an instruction is gone": lambda idl: idl["instructions"].pop(0),
    "an account is gone": lambda idl: idl["accounts"].pop(),
    "an event is gone": lambda idl: idl["events"].pop(),
    "a status has another number": lambda idl: next(
        constant for constant in idl["constants"] if constant["name"] == "STATUS_EXPIRED"
    ).update(value="6"),
}


@pytest.mark.parametrize("change", DISAGREEMENTS)
def test_a_program_that_disagrees_is_noticed_at_start(idl: Json, change: str) -> None:
    DISAGREEMENTS[change](idl)
    with pytest.raises(OracleError) as caught:
        selfcheck.check(idl)
    assert caught.value.code == "ORC-CHAIN-107"


def test_what_a_later_program_adds_is_no_disagreement(idl: Json) -> None:
    idl["types"].append({"name": "Later", "type": {"kind": "struct", "fields": [{"name": "x", "type": "u8"}]}})
    idl["errors"].append({"code": 6999, "name": "Later", "msg": "later"})
    selfcheck.check(idl)


def custom_discriminator(idl: Json) -> None:
    idl["accounts"][0]["discriminator"] = [1]


def zero_copy(idl: Json, *fields: tuple[str, Any], **changed: Any) -> None:
    idl["types"].append(
        {
            "name": "Added",
            "serialization": "bytemuck",
            "repr": {"kind": "c"},
            "type": {"kind": "struct", "fields": [{"name": name, "type": of} for name, of in fields]},
            **changed,
        }
    )


def plain(idl: Json, **changed: Any) -> None:
    idl["types"].append({"name": "Added", "type": {"kind": "struct", "fields": []}, **changed})


def struct(*fields: Any) -> Json:
    return {"kind": "struct", "fields": list(fields)}


REFUSED: dict[str, tuple[Callable[[Json], object], str]] = {
    "account discriminator": (custom_discriminator, "custom discriminator"),
    "instruction discriminator": (
        lambda idl: idl["instructions"][0].update(discriminator=[0] * 8),
        "custom discriminator",
    ),
    "event discriminator": (lambda idl: idl["events"][0].update(discriminator=[0] * 8), "custom discriminator"),
    "generic type": (lambda idl: plain(idl, generics=[{"kind": "type", "name": "T"}]), "generic"),
    "generic argument": (
        lambda idl: plain(
            idl, type=struct({"name": "a", "type": {"defined": {"name": "Body", "generics": [{"kind": "type"}]}}})
        ),
        "the type",
    ),
    "tuple struct": (lambda idl: plain(idl, type=struct("u8", "u16")), "tuple struct"),
    "256-bit integer": (lambda idl: plain(idl, type=struct({"name": "a", "type": "u256"})), "u256"),
    "unknown type": (lambda idl: plain(idl, type=struct({"name": "a", "type": {"hashMap": ["u8", "u8"]}})), "hashMap"),
    "generic array length": (
        lambda idl: plain(idl, type=struct({"name": "a", "type": {"array": ["u8", {"generic": "N"}]}})),
        "array",
    ),
    "type alias": (lambda idl: plain(idl, type={"kind": "type", "alias": "u8"}), "of kind type"),
    "custom serialisation": (lambda idl: plain(idl, serialization={"custom": "x"}), "serialised as"),
    "padding inside": (lambda idl: zero_copy(idl, ("a", "u8"), ("b", "u32")), "padding before b"),
    "padding at the end": (lambda idl: zero_copy(idl, ("a", "u64"), ("b", "u8")), "padding at its end"),
    "padding in an array of structs": (
        lambda idl: zero_copy(idl, ("a", "u8"), ("b", {"array": [{"defined": {"name": "Params"}}, 2]})),
        "padding before",
    ),
    "zero-copy string": (lambda idl: zero_copy(idl, ("a", "string")), "string in a zero-copy struct"),
    "zero-copy enum": (lambda idl: zero_copy(idl, type={"kind": "enum", "variants": []}), "no struct"),
    "aligned zero-copy": (lambda idl: zero_copy(idl, ("a", "u8"), repr={"kind": "c", "align": 16}), "repr"),
    "no instructions": (lambda idl: idl.pop("instructions"), "instructions"),
    "no type behind an account": (lambda idl: idl["types"].remove(type_of(idl, "Queue")), "Queue"),
    "a type that is missing": (lambda idl: idl["types"].remove(type_of(idl, "Params")), "Params"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_anchorpy_would_get_wrong_is_refused(idl: Json, what: str) -> None:
    change, says = REFUSED[what]
    change(idl)
    with pytest.raises(OracleError, match=says) as caught:
        coder_of(idl)
    assert caught.value.code == "ORC-CHAIN-106"


def test_a_packed_zero_copy_type_has_no_padding(idl: Json) -> None:
    zero_copy(idl, ("a", "u8"), ("b", "u32"), repr={"kind": "c", "packed": True})
    coder_of(idl)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"metadata": null}',
        '{"metadata": []}',
        '{"metadata": {"spec": "0.0.9"}}',
        '{"version": "0.1.0", "name": "legacy"}',
    ],
)
def test_a_file_that_is_no_idl_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "idl.json"
    path.write_text(content)
    with pytest.raises(OracleError) as caught:
        load(path)
    assert caught.value.code == "ORC-CHAIN-106"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OracleError, match=r"nowhere\.json"):
        load(tmp_path / "nowhere.json")


def test_damaged_idls_never_raise_anything_but_an_oracle_error() -> None:
    whole = json.dumps(built_in())
    for word in ('"name"', '"type"', '"kind"', '"fields"', '"discriminator"', '"struct"', "32", "[", '"pubkey"'):
        for value in ('"x"', "null", "7", '["y"]'):
            try:
                idl = json.loads(whole.replace(word, value))
                to_legacy(idl)
            except (OracleError, json.JSONDecodeError):
                continue


def test_every_error_of_the_program_has_its_name_and_message() -> None:
    for error in built_in()["errors"]:
        refusal = explain(error["code"])
        assert (refusal.name, refusal.message) == (error["name"], error["msg"])
        assert code_of(error["name"]) == error["code"]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0, "AccountAlreadyInUse"),
        (1, "ResultWithNegativeLamports"),
        (101, "InstructionFallbackNotFound"),
        (2006, "ConstraintSeeds"),
        (3007, "AccountOwnedByWrongProgram"),
        (4100, "DeclaredProgramIdMismatch"),
        (5999, "Custom5999"),
    ],
)
def test_the_errors_of_anchor_and_the_system_program_are_named(code: int, name: str) -> None:
    assert explain(code).name == name
    assert explain(code).message


def test_an_error_that_does_not_exist_has_no_number() -> None:
    with pytest.raises(KeyError):
        code_of("NoSuchRefusal")
