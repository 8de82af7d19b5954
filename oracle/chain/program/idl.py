"""The Anchor IDL (specification 0.1.0): loading it, and turning it into the older form that anchorpy can parse.

anchorpy derives every discriminator from a name, knows no generics and reads accounts as borsh. The conversion refuses
whatever that would get wrong, because a wrong layout does not fail: it decodes to other values.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from solders.pubkey import Pubkey

from oracle import resources
from oracle.chain.program.errors import IDL_UNUSABLE
from oracle.chain.program.layout import discriminator

if TYPE_CHECKING:
    from anchorpy.coder.coder import Coder

Json = Mapping[str, Any]

# Names of the primitive types, new to old, with size and alignment in bytes; None where the size varies.
_PRIMITIVES: Final[Mapping[str, tuple[str, int | None]]] = {
    "bool": ("bool", 1),
    "u8": ("u8", 1),
    "i8": ("i8", 1),
    "u16": ("u16", 2),
    "i16": ("i16", 2),
    "u32": ("u32", 4),
    "i32": ("i32", 4),
    "f32": ("f32", 4),
    "u64": ("u64", 8),
    "i64": ("i64", 8),
    "f64": ("f64", 8),
    "u128": ("u128", 16),
    "i128": ("i128", 16),
    "bytes": ("bytes", None),
    "string": ("string", None),
    "pubkey": ("publicKey", 32),
}


@cache
def built_in() -> Json:
    """The IDL of the built-in program."""
    return load(resources.idl())


def program_id() -> Pubkey:
    """The address that the built-in program is declared for."""
    return address_of(built_in())


def load(path: Path) -> Json:
    """The IDL in the file `path`. Raises ORC-CHAIN-106 unless it is an Anchor IDL 0.1.0."""
    try:
        idl = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise IDL_UNUSABLE(f"{path}: {error}") from None
    match idl:
        case {"metadata": {"spec": "0.1.0"}}:
            return dict(idl)
        case _:
            raise IDL_UNUSABLE(f"{path} does not say that it is of specification 0.1.0")


def address_of(idl: Json) -> Pubkey:
    """The address that the program of `idl` is declared for."""
    try:
        return Pubkey.from_string(idl["address"])
    except (KeyError, TypeError, ValueError) as error:
        raise IDL_UNUSABLE(f"address: {error}") from None


def coder_of(idl: Json) -> Coder:
    """anchorpy's coder for `idl`. Imports anchorpy, which takes about half a second."""
    from anchorpy.coder.coder import Coder
    from anchorpy_core.idl import Idl

    legacy = to_legacy(idl)
    try:
        with warnings.catch_warnings():
            # anchorpy's enums (sumtypes) still pass attrs an argument that it calls deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            return Coder(Idl.from_json(json.dumps(legacy)))
    except Exception as error:
        raise IDL_UNUSABLE(f"anchorpy: {error}") from None


def to_legacy(idl: Json) -> dict[str, Any]:
    """`idl` in the form of Anchor 0.29 and older. Raises ORC-CHAIN-106 where that form cannot say the same."""
    try:
        return _legacy(idl)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise IDL_UNUSABLE(f"not of the Anchor IDL specification: {type(error).__name__}: {error}") from None


def _legacy(idl: Json) -> dict[str, Any]:
    types = {defined["name"]: defined for defined in idl.get("types", ())}
    accounts = [_checked("account", account)["name"] for account in idl.get("accounts", ())]
    events = [_checked("event", event)["name"] for event in idl.get("events", ())]
    return {
        "version": idl["metadata"]["version"],
        "name": idl["metadata"]["name"],
        "instructions": [_instruction(_checked("global", instruction)) for instruction in idl["instructions"]],
        "accounts": [_type_definition(types[name], types) for name in accounts],
        "types": [
            _type_definition(defined, types) for name, defined in types.items() if name not in {*accounts, *events}
        ],
        "events": [_event(types[name], types) for name in events],
        "errors": [
            {"code": error["code"], "name": error["name"], "msg": error.get("msg", "")}
            for error in idl.get("errors", ())
        ],
    }


def _checked(namespace: str, item: Json) -> Json:
    if bytes(item["discriminator"]) != discriminator(namespace, item["name"]):
        raise IDL_UNUSABLE(f"{item['name']} has a custom discriminator")
    return item


def _instruction(instruction: Json) -> dict[str, Any]:
    return {
        "name": instruction["name"],
        "accounts": [_account_item(item) for item in instruction["accounts"]],
        "args": _fields(instruction["args"]),
    }


def _account_item(item: Json) -> dict[str, Any]:
    if "accounts" in item:
        return {"name": item["name"], "accounts": [_account_item(inner) for inner in item["accounts"]]}
    return {
        "name": item["name"],
        "isMut": item.get("writable", False),
        "isSigner": item.get("signer", False),
        "isOptional": item.get("optional", False),
    }


def _event(defined: Json, types: Mapping[str, Json]) -> dict[str, Any]:
    struct = _type_definition(defined, types)["type"]
    return {"name": defined["name"], "fields": [{**field, "index": False} for field in struct["fields"]]}


def _type_definition(defined: Json, types: Mapping[str, Json]) -> dict[str, Any]:
    name = defined["name"]
    if defined.get("generics"):
        raise IDL_UNUSABLE(f"{name} is generic")
    match defined.get("serialization", "borsh"):
        case "borsh":
            pass
        case "bytemuck":
            _refuse_padding(defined, types)
        case other:
            raise IDL_UNUSABLE(f"{name} is serialised as {other}")
    shape = defined["type"]
    match shape["kind"]:
        case "struct":
            legacy: dict[str, Any] = {"kind": "struct", "fields": _fields(shape.get("fields") or ())}
        case "enum":
            legacy = {"kind": "enum", "variants": [_variant(variant) for variant in shape["variants"]]}
        case kind:
            raise IDL_UNUSABLE(f"{name} is of kind {kind}")
    return {"name": name, "type": legacy}


def _variant(variant: Json) -> dict[str, Any]:
    fields = variant.get("fields")
    if not fields:
        return {"name": variant["name"]}
    named = isinstance(fields[0], Mapping) and "name" in fields[0] and "type" in fields[0]
    return {"name": variant["name"], "fields": _fields(fields) if named else [_type(field) for field in fields]}


def _fields(fields: Sequence[Json]) -> list[dict[str, Any]]:
    for field in fields:
        if not (isinstance(field, Mapping) and "name" in field):
            raise IDL_UNUSABLE(f"a tuple struct, with the field {field}")
    return [{"name": field["name"], "type": _type(field["type"])} for field in fields]


def _type(of: Any) -> Any:
    match of:
        case str() if of in _PRIMITIVES:
            return _PRIMITIVES[of][0]
        case {"defined": {"name": str(name), **rest}} if not rest.get("generics"):
            return {"defined": name}
        case {"option": inner}:
            return {"option": _type(inner)}
        case {"vec": inner}:
            return {"vec": _type(inner)}
        case {"array": [inner, int(length)]}:
            return {"array": [_type(inner), length]}
        case _:
            raise IDL_UNUSABLE(f"the type {of}")


def _refuse_padding(defined: Json, types: Mapping[str, Json]) -> None:
    """A zero-copy struct is read as borsh, which is right exactly where `repr(C)` leaves no gap."""
    name, repr_ = defined["name"], defined.get("repr", {})
    if defined["type"]["kind"] != "struct":
        raise IDL_UNUSABLE(f"{name} is a zero-copy type that is no struct")
    if repr_.get("kind") != "c" or repr_.get("align") is not None:
        raise IDL_UNUSABLE(f"{name} is a zero-copy type that is not plain repr(C)")
    if not repr_.get("packed", False):
        _size_and_alignment({"defined": {"name": name}}, types)


def borsh_size(of: Any, types: Mapping[str, Json]) -> int | None:
    """Bytes of a type in borsh; None where they differ from value to value. `types` are the shapes of defined types."""
    match of:
        case str():
            return _PRIMITIVES.get(of, ("", None))[1]
        case {"array": [inner, int(length)]}:
            size = borsh_size(inner, types)
            return None if size is None else size * length
        case {"defined": {"name": str(name)}}:
            shape = types[name]
            if shape["kind"] == "enum":
                return None if any(variant.get("fields") for variant in shape["variants"]) else 1
            sizes = [borsh_size(field["type"], types) for field in shape.get("fields") or ()]
            return None if None in sizes else sum(size for size in sizes if size is not None)
        case _:
            return None


def _size_and_alignment(of: Any, types: Mapping[str, Json]) -> tuple[int, int]:
    match of:
        case "pubkey":
            return 32, 1
        case str() if (size := _PRIMITIVES.get(of, ("", None))[1]) is not None:
            return size, size
        case {"array": [inner, int(length)]}:
            size, alignment = _size_and_alignment(inner, types)
            return size * length, alignment
        case {"defined": {"name": str(name)}} if types[name]["type"]["kind"] == "struct":
            at, widest = 0, 1
            for field in types[name]["type"].get("fields") or ():
                size, alignment = _size_and_alignment(field["type"], types)
                if at % alignment:
                    raise IDL_UNUSABLE(f"{name} has padding before {field['name']}")
                at, widest = at + size, max(widest, alignment)
            if at % widest:
                raise IDL_UNUSABLE(f"{name} has padding at its end")
            return at, widest
        case _:
            raise IDL_UNUSABLE(f"the type {of} in a zero-copy struct")
