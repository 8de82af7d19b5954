"""A user's own Anchor program as an oracle program: its IDL, and the names by which it calls what the oracle needs.

`[program.mapping]` of the configuration gives the names. Everything is checked against the IDL when it is bound: a
wrong name is an error at start and not a request that nobody sees. What a mapped program must have is what the laws
need: a status that says whether a request is open, the slot of its creation (an address may be used again), a deadline
in slots, and a key that says whom it is for; the scanner finds all but the deadline at fixed offsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from pyheck import snake
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from oracle.chain.program.body import encode_body
from oracle.chain.program.borsh import hash32
from oracle.chain.program.errors import ACCOUNT_MALFORMED, ACCOUNT_OF_ANOTHER_KIND, MAPPING_INVALID, VALUE_UNENCODABLE
from oracle.chain.program.idl import Json, address_of, borsh_size, coder_of
from oracle.chain.program.layout import VERSION, discriminator
from oracle.core.request import ZERO_HASH, Body, Header, Inline, Params, Request, Status

if TYPE_CHECKING:
    from anchorpy.coder.coder import Coder

_HASH: Final = {"array": ["u8", 32]}
ARGUMENTS: Final[Mapping[str, Any]] = {"output_hash": _HASH, "job_hash": _HASH, "completed_at": "i64"}
"""What a settlement instruction can be given, and the type that it must have there."""

_NOBODY: Final = Pubkey.default()


@dataclass(frozen=True, slots=True)
class Names:
    """What the program calls things. A field is a path such as `question.prompt`; a status is a variant or a number.

    `arguments` names one of `ARGUMENTS` for each argument of the settlement instruction. `accounts` says for each of
    its accounts what belongs there: `request`, `operator` (who signs), an address, or a path to a key in the request.
    Whatever status is neither `pending` nor `fulfilled` counts as an end by another's hand.
    """

    account: str
    model: str
    input: str
    deadline_slot: str
    created_slot: str
    queue: str
    status: str
    pending: str | int
    fulfilled: str | int
    settlement: str
    arguments: Mapping[str, str]
    accounts: Mapping[str, str]
    fee_lamports: str | None = None
    requester: str | None = None
    max_output_tokens: int = 512


@dataclass(frozen=True, slots=True)
class MappedProgram:
    """A program bound to its names. Offsets count from the start of the account's data, for filters and scans."""

    program_id: Pubkey
    names: Names
    discriminator: bytes
    queue_at: int
    created_slot_at: int
    status_at: int
    pending: int
    fulfilled: int
    _coder: Coder = field(repr=False)
    _settlement: Json = field(repr=False)

    def decode_request(self, address: Pubkey, data: bytes) -> Request:
        """The request in account `data`, as the built-in program would have it. Raises ORC-CHAIN-101 and 103."""
        fields, names = self._decode(data), self.names
        content = _get(fields, names.input)
        body = Body(
            model=_get(fields, names.model),
            params=Params(names.max_output_tokens),
            input=Inline(content.encode() if isinstance(content, str) else bytes(content)),
        )
        # The program has no body of ours; this one is hashed into the receipt as any other.
        body_bytes = encode_body(body)
        return Request(address, self._header(fields, data[self.status_at], body_bytes), body_bytes, body)

    def record_inference_result(
        self,
        request: Pubkey,
        data: bytes,
        *,
        operator_key: Pubkey,
        output_hash: bytes,
        job_hash: bytes,
        completed_at: int,
    ) -> Instruction:
        """The settlement of the request at an address, whose account is `data`. Raises ORC-CHAIN-101, 103 and 105."""
        values: dict[str, Any] = {
            "output_hash": list(hash32("output_hash", output_hash)),
            "job_hash": list(hash32("job_hash", job_hash)),
            "completed_at": completed_at,
        }
        arguments = {snake(name): values[what] for name, what in self.names.arguments.items()}
        try:
            encoded = self._coder.instruction.encode(snake(self.names.settlement), arguments)
        except Exception as error:
            raise VALUE_UNENCODABLE(f"{self.names.settlement}: {error}") from None
        fields = self._decode(data)
        metas = []
        for account in self._settlement["accounts"]:
            address = _address(self.names.accounts, account, request, operator_key, fields)
            metas.append(AccountMeta(address, account.get("signer", False), account.get("writable", False)))
        return Instruction(self.program_id, encoded, metas)

    def _decode(self, data: bytes) -> Any:
        if data[:8] != self.discriminator:
            raise ACCOUNT_OF_ANOTHER_KIND(f"this is not a {self.names.account}")
        try:
            return self._coder.accounts.decode(data)
        except Exception as error:
            raise ACCOUNT_MALFORMED(f"{self.names.account}: {type(error).__name__}: {error}") from None

    def _header(self, fields: Any, status: int, body_bytes: bytes) -> Header:
        names = self.names
        requester = _get(fields, names.requester) if names.requester else _NOBODY
        known = {self.pending: Status.PENDING, self.fulfilled: Status.FULFILLED}
        return Header(
            version=VERSION,
            status=known.get(status, Status.CANCELLED),
            reason=0,
            bump=0,
            body_len=len(body_bytes),
            queue=_get(fields, names.queue),
            operator=_NOBODY,
            deadline_slot=_get(fields, names.deadline_slot),
            claim_expires_slot=0,
            fee_lamports=_get(fields, names.fee_lamports) if names.fee_lamports else 0,
            created_slot=_get(fields, names.created_slot),
            settled_slot=0,
            nonce=0,
            requester=requester,
            refund_to=requester,
            body_hash=sha256(body_bytes).digest(),
            callback_program=_NOBODY,
            output_hash=ZERO_HASH,
            job_hash=ZERO_HASH,
            completed_at=0,
            output_cap=0,
            output_len=0,
            lease_slots=0,
            retention_slots=0,
            claim_required=False,
            callback_delivered=False,
        )


def bind(idl: Json, names: Names) -> MappedProgram:
    """The program of `idl` by its names. Raises ORC-CHAIN-106 for an unusable IDL, 108 for a name that is wrong."""
    coder = coder_of(idl)
    account = _Account(idl, names.account)
    account.expect(names.model, "string")
    account.expect(names.input, "string", "bytes")
    account.expect(names.deadline_slot, "u64")
    for path, expected in ((names.fee_lamports, "u64"), (names.requester, "pubkey")):
        if path is not None:
            account.expect(path, expected)
    status_type = account.type_of(names.status)
    settlement = _settlement(idl, names, account)
    pending, fulfilled = (_status_code(idl, status_type, value) for value in (names.pending, names.fulfilled))
    if pending == fulfilled:
        raise MAPPING_INVALID(f"pending and fulfilled are both {names.pending}")
    return MappedProgram(
        program_id=address_of(idl),
        names=names,
        discriminator=discriminator("account", names.account),
        queue_at=account.offset_of(names.queue, "pubkey"),
        created_slot_at=account.offset_of(names.created_slot, "u64"),
        status_at=account.offset_of(names.status, status_type),
        pending=pending,
        fulfilled=fulfilled,
        _coder=coder,
        _settlement=settlement,
    )


class _Account:
    """The request account's type, by which paths are followed."""

    def __init__(self, idl: Json, name: str) -> None:
        if name not in (account["name"] for account in idl.get("accounts", ())):
            raise MAPPING_INVALID(f"account: the IDL has no account {name}")
        self._name = name
        self._types: Mapping[str, Json] = {defined["name"]: defined["type"] for defined in idl.get("types", ())}

    def expect(self, path: str, *types: Any) -> None:
        found = self.type_of(path)
        if found not in types:
            raise MAPPING_INVALID(f"{path} is of type {found}, not {' or '.join(map(str, types))}")

    def type_of(self, path: str) -> Any:
        return self._follow(path)[1]

    def offset_of(self, path: str, expected: Any) -> int:
        """From the start of the data. Whatever stands before the field must be of one size in every request."""
        self.expect(path, expected)
        offset = self._follow(path)[0]
        if offset is None:
            raise MAPPING_INVALID(f"{path} stands behind a field of varying size, where no filter can find it")
        return offset

    def _follow(self, path: str) -> tuple[int | None, Any]:
        offset: int | None = 8
        of: Any = {"defined": {"name": self._name}}
        for step in path.split("."):
            for candidate in self._fields(of, path):
                if candidate["name"] == step:
                    of = candidate["type"]
                    break
                size = borsh_size(candidate["type"], self._types)
                offset = None if offset is None or size is None else offset + size
            else:
                raise MAPPING_INVALID(f"{self._name} has no field {path}")
        return offset, of

    def _fields(self, of: Any, path: str) -> list[Json]:
        match of:
            case {"defined": {"name": str(name)}} if self._types.get(name, {}).get("kind") == "struct":
                return list(self._types[name].get("fields") or ())
            case _:
                raise MAPPING_INVALID(f"{self._name} has no field {path}")


def _status_code(idl: Json, of: Any, value: str | int) -> int:
    match of, value:
        case "bool", bool():
            return int(value)
        case "u8", int() if 0 <= value < 256:
            return value
        case {"defined": {"name": str(name)}}, str():
            shape = next(defined["type"] for defined in idl["types"] if defined["name"] == name)
            variants = [variant["name"] for variant in shape.get("variants", ())]
            if value in variants:
                return variants.index(value)
    raise MAPPING_INVALID(f"the status, of type {of}, cannot be {value!r}")


def _settlement(idl: Json, names: Names, account: _Account) -> Json:
    found = [instruction for instruction in idl["instructions"] if instruction["name"] == names.settlement]
    if not found:
        raise MAPPING_INVALID(f"settlement: the IDL has no instruction {names.settlement}")
    settlement: Json = found[0]
    types = {argument["name"]: argument["type"] for argument in settlement["args"]}
    if types.keys() != names.arguments.keys():
        raise MAPPING_INVALID(f"arguments: {names.settlement} takes {sorted(types)}, not {sorted(names.arguments)}")
    for name, what in names.arguments.items():
        if types[name] != ARGUMENTS.get(what):
            raise MAPPING_INVALID(f"arguments: {name} is of type {types[name]}, which {what} is not")
    if "output_hash" not in names.arguments.values():
        raise MAPPING_INVALID(f"arguments: {names.settlement} is not given the output_hash")
    if not {"request", "operator"} <= set(names.accounts.values()):
        raise MAPPING_INVALID(f"accounts: {names.settlement} must be given the request and the operator")
    for item in settlement["accounts"]:
        _check_account(names.accounts, item, account)
    return settlement


def _check_account(accounts: Mapping[str, str], item: Json, account: _Account) -> None:
    name = item["name"]
    where = accounts.get(name, item.get("address"))
    if "accounts" in item or where is None:
        raise MAPPING_INVALID(f"accounts: nothing is said of {name}")
    if item.get("signer", False) and where != "operator":
        raise MAPPING_INVALID(f"accounts: {name} must sign, and only the operator can")
    if where not in ("request", "operator") and _pubkey(where) is None:
        account.expect(where, "pubkey")


def _address(accounts: Mapping[str, str], item: Json, request: Pubkey, operator_key: Pubkey, fields: Any) -> Pubkey:
    where = accounts.get(item["name"], item.get("address", ""))
    match where:
        case "request":
            return request
        case "operator":
            return operator_key
        case _:
            return _pubkey(where) or _get(fields, where)


def _pubkey(text: str) -> Pubkey | None:
    try:
        return Pubkey.from_string(text)
    except ValueError:
        return None


def _get(fields: Any, path: str) -> Any:
    for step in path.split("."):
        fields = getattr(fields, snake(step))
    return fields
