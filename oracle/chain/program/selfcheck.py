"""At start: the compiled codec must agree with anchorpy, which knows the program only by its IDL.

Fixed vectors, every field of another value, cover each instruction, account, event and constant that this release uses.
An IDL may hold more: what a later program adds does not concern us.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from oracle.chain.program import instructions as build
from oracle.chain.program.addresses import name_bytes
from oracle.chain.program.body import encode_body
from oracle.chain.program.errors import CODEC_DISAGREES
from oracle.chain.program.events import EVENT_LENGTHS, decode_event
from oracle.chain.program.idl import Json, coder_of
from oracle.chain.program.layout import (
    HEADER_LENGTH,
    MAX_URI_LENGTH,
    OPERATOR_DISCRIMINATOR,
    OPERATOR_LENGTH,
    QUEUE_DISCRIMINATOR,
    QUEUE_LENGTH,
    REQUEST_DISCRIMINATOR,
    VERSION,
    QueueTerms,
    decode_header,
    decode_operator,
    decode_queue,
    discriminator,
)
from oracle.core.request import Body, Callback, CallbackAccount, Data, Flags, Inline, Input, Params, Status, Uri

if TYPE_CHECKING:
    from anchorpy.coder.coder import Coder

_PROGRAM: Final = Pubkey.from_bytes(bytes([200]) * 32)


def check(idl: Json) -> None:
    """Raise ORC-CHAIN-107 unless the codec reads and writes what `idl` describes. Takes about 20 ms and an import."""
    coder = coder_of(idl)
    listed = {instruction["name"]: instruction for instruction in idl["instructions"]}
    for name, instruction, arguments in _calls():
        if name not in listed:
            raise CODEC_DISAGREES(f"the IDL has no instruction {name}")
        _check_instruction(coder, listed[name], instruction, arguments)
    for account in _accounts():
        _check_account(coder, account)
    for event, length in EVENT_LENGTHS.items():
        _check_event(coder, event, length)
    _check_constants(idl)


def _check_instruction(coder: Coder, listed: Json, instruction: Instruction, arguments: Mapping[str, Any]) -> None:
    name = listed["name"]
    read = _read(f"instruction {name}", coder.instruction.parse, instruction.data)
    _equal(f"arguments of {name}", _plain(read.data), {key: _plain(value) for key, value in arguments.items()})
    _equal(f"data of {name}", coder.instruction.build(read), instruction.data)
    ours = [(meta.is_writable, meta.is_signer) for meta in instruction.accounts]
    theirs = [(item.get("writable", False), item.get("signer", False)) for item in listed["accounts"]]
    _equal(f"accounts of {name}", ours, theirs)


def _check_account(coder: Coder, account: _Account) -> None:
    read = _read(f"account {account.name}", coder.accounts.decode, account.data)
    theirs = {key: value for key, value in _plain(read)[1].items() if key != "reserved"}
    _equal(f"account {account.name}", {key: _plain(value) for key, value in account.fields.items()}, theirs)


def _check_event(coder: Coder, event: type, length: int) -> None:
    data = _sample(discriminator("event", event.__name__), length)
    read = _read(f"event {event.__name__}", coder.events.parse, data)
    theirs = _plain(read.data) if read is not None else None
    _equal(f"event {event.__name__}", _plain(decode_event(data)), theirs)


def _check_constants(idl: Json) -> None:
    ours = {f"STATUS_{status.name}": status.value for status in Status}
    ours |= {f"FLAG_{flag.name}": flag.value for flag in Flags}
    theirs = {constant["name"]: int(constant["value"]) for constant in idl.get("constants", ())}
    _equal("constants", ours, {name: theirs.get(name) for name in ours})


def _read(what: str, parse: Any, data: bytes) -> Any:
    try:
        return parse(data)
    except Exception as error:
        raise CODEC_DISAGREES(f"{what}: anchorpy cannot read our bytes: {type(error).__name__}: {error}") from None


def _equal(what: str, ours: object, theirs: object) -> None:
    if ours != theirs:
        raise CODEC_DISAGREES(f"{what}: {ours} here, {theirs} by the IDL")


def _plain(value: Any) -> Any:
    """A value of ours or of anchorpy's, in one form: a struct is its name and its fields, a byte array is bytes."""
    if hasattr(value, "_sumtype_attribs"):
        return type(value).__name__, {name: _plain(getattr(value, name)) for name, _ in value._sumtype_attribs}
    if is_dataclass(value):
        return type(value).__name__, {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if not str(key).startswith("_")}
    if isinstance(value, list | tuple):
        whole_bytes = len(value) > 0 and all(type(item) is int for item in value)
        return bytes(value) if whole_bytes else [_plain(item) for item in value]
    return value


def _key(number: int) -> Pubkey:
    return Pubkey.from_bytes(bytes([number]) * 32)


_INPUTS: Final[tuple[Input, ...]] = (
    Inline(b"\x00\xff two"),
    Uri("https://example.org/input", bytes(range(100, 132))),
    Data("data://beemaps/x", bytes(range(50, 82))),
)


def _body(content: Input, callback: Callback | None) -> Body:
    return Body(
        "model/é", Params(0x01020304, 0x0506, 0x0708090A0B0C0D0E, Flags.PRIVATE | Flags.CHAT), content, callback
    )


def _bodies() -> Iterator[Body]:
    accounts = (CallbackAccount(_key(31), True), CallbackAccount(_key(32), False))
    for content, callback in zip(_INPUTS, (None, Callback(_key(30)), Callback(_key(33), accounts)), strict=True):
        yield _body(content, callback)


_TERMS: Final = QueueTerms(0x11, 0x1222, 0x133333, 0x14444444, 0x15, 0x1666, 0x177777, True)


def _calls() -> Iterator[tuple[str, Instruction, Mapping[str, Any]]]:
    request, operator_key, operator, queue, authority = map(_key, range(1, 6))
    settler = {"request": request, "operator_key": operator_key, "operator": operator}
    output_hash, job_hash = bytes(range(32)), bytes(range(32, 64))
    uri = "https://example.org"

    yield (
        "create_queue",
        build.create_queue(_PROGRAM, authority=authority, name="a queue", terms=_TERMS),
        {"name": name_bytes("a queue"), "terms": _TERMS},
    )
    yield (
        "update_queue",
        build.update_queue(_PROGRAM, queue=queue, authority=authority, terms=_TERMS, paused=True),
        {"terms": _TERMS, "paused": True},
    )
    yield (
        "add_operator",
        build.add_operator(_PROGRAM, queue=queue, authority=authority, operator_key=operator_key, uri=uri),
        {"uri": uri},
    )
    yield (
        "update_operator",
        build.update_operator(_PROGRAM, operator=operator, operator_key=operator_key, uri=uri),
        {"uri": uri},
    )
    yield (
        "remove_operator",
        build.remove_operator(_PROGRAM, operator=operator, queue=queue, authority=authority),
        {},
    )
    for body in _bodies():
        numbers = {"nonce": 2**63 + 1, "fee_lamports": 2**40 + 2, "ttl_slots": 2**33 + 3, "output_cap": 2**17 + 4}
        yield (
            "submit_request",
            build.submit_request(_PROGRAM, queue=queue, requester=_key(6), payer=_key(7), body=body, **numbers),
            {**numbers, "body_hash": sha256(encode_body(body)).digest(), "body": body},
        )
    yield "claim_request", build.claim_request(_PROGRAM, queue=queue, **settler), {}
    yield (
        "record_inference_result",
        build.record_inference_result(
            _PROGRAM, output_hash=output_hash, job_hash=job_hash, completed_at=-(2**40), **settler
        ),
        {"output_hash": output_hash, "job_hash": job_hash, "completed_at": -(2**40)},
    )
    yield "publish_output", build.publish_output(_PROGRAM, output=b"\x00\xff", **settler), {"output": b"\x00\xff"}
    yield "reject_request", build.reject_request(_PROGRAM, reason=201, **settler), {"reason": 201}
    yield "cancel_request", build.cancel_request(_PROGRAM, request=request, requester=_key(6)), {}
    yield "expire_request", build.expire_request(_PROGRAM, request=request), {}
    yield "close_request", build.close_request(_PROGRAM, request=request, refund_to=_key(7), closer=_key(8)), {}


@dataclass(frozen=True, slots=True)
class _Account:
    """An account's bytes, and its fields in the IDL's words as our codec read them."""

    name: str
    data: bytes
    fields: Mapping[str, Any]


def _accounts() -> Iterator[_Account]:
    # Everything counts up but what has only some values: version, status, booleans, lengths, text.
    data = _sample(REQUEST_DISCRIMINATOR, HEADER_LENGTH, {8: b"\x01\x02", 332: b"\x05\0\0\0", 344: b"\x01\x00"})
    header = _plain(decode_header(data))[1]
    yield _Account("Request", data, {("fee" if key == "fee_lamports" else key): header[key] for key in header})

    uri = b"https://example.org"
    data = _sample(
        OPERATOR_DISCRIMINATOR,
        OPERATOR_LENGTH,
        {8: b"\x01", 10: len(uri).to_bytes(2, "little"), 80: uri.ljust(MAX_URI_LENGTH, b"\0")},
    )
    operator = decode_operator(data)
    yield _Account(
        "Operator",
        data,
        {
            "version": VERSION,
            "bump": operator.bump,
            "uri_len": len(operator.uri),
            "queue": operator.queue,
            "key": operator.key,
            "uri": operator.uri.encode().ljust(MAX_URI_LENGTH, b"\0"),
        },
    )

    data = _sample(
        QUEUE_DISCRIMINATOR, QUEUE_LENGTH, {8: b"\x01", 42: name_bytes("a queue"), 78: b"\x00", 119: b"\x01"}
    )
    queue = decode_queue(data)
    yield _Account(
        "Queue",
        data,
        {
            "version": VERSION,
            "bump": queue.bump,
            "authority": queue.authority,
            "name": name_bytes(queue.name),
            "operator_count": queue.operator_count,
            "paused": queue.paused,
            "terms": queue.terms,
            "unclaimed_until_slot": queue.unclaimed_until_slot,
        },
    )


def _sample(head: bytes, length: int, fixed: Mapping[int, bytes] = {}) -> bytes:
    data = bytearray((7 * at + 3) % 251 for at in range(length))
    for at, value in {0: head, **fixed}.items():
        data[at : at + len(value)] = value
    return bytes(data)
