"""What callers send: positional parameters and their configuration objects, checked as Agave checks them."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from based58 import b58decode
from solders.hash import Hash, ParseHashError
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.localnet.chain import Chain, Commitment
from oracle.localnet.ledger import Filter
from oracle.localnet.rpc.errors import invalid_params, min_context_slot_not_reached

MAX_FILTERS = 4
MAX_FILTER_BYTES = 128
_COMMITMENTS = {level.name.lower(): level for level in Commitment}
_ACCOUNT_ENCODINGS = ("binary", "base58", "base64", "base64+zstd", "jsonParsed")


@dataclass(frozen=True, slots=True)
class DataSlice:
    offset: int
    length: int


Parsed = TypeVar("Parsed")


class Options:
    """The configuration object of a call, empty if there is none."""

    def __init__(self, values: Any) -> None:
        if values is not None and not isinstance(values, dict):
            raise invalid_params(f"Invalid params: invalid type: {_kind(values)}, expected an object.")
        self._values: dict[str, Any] = values or {}

    def commitment(self, key: str = "commitment", default: Commitment = Commitment.FINALIZED) -> Commitment:
        value = self._values.get(key)
        return default if value is None else commitment(value)

    def bank_slot(self, chain: Chain, key: str = "commitment") -> int:
        """The slot of the bank that answers, which may not be older than the caller's `minContextSlot`."""
        return self.require_context_slot(chain, self.commitment(key))

    def require_context_slot(self, chain: Chain, level: Commitment) -> int:
        slot = chain.slot(level)
        if (least := self.integer("minContextSlot")) is not None and slot < least:
            raise min_context_slot_not_reached(slot)
        return slot

    def at_least_confirmed(self) -> Commitment:
        level = self.commitment()
        if level == Commitment.PROCESSED:
            raise invalid_params("Method does not support commitment below `confirmed`")
        return level

    def flag(self, key: str) -> bool:
        value = self._values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise invalid_params(f"Invalid params: invalid type: {_kind(value)}, expected a boolean.")
        return value

    def integer(self, key: str) -> int | None:
        value = self._values.get(key)
        return None if value is None else _unsigned(value)

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        return None if value is None else _text(value)

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(key)
        if value is None:
            return default
        if value not in choices:
            expected = ", ".join(f"`{choice}`" for choice in choices)
            raise invalid_params(f"Invalid params: unknown variant `{value}`, expected one of {expected}.")
        return value

    def account_encoding(self, default: str = "binary") -> str:
        return self.choice("encoding", _ACCOUNT_ENCODINGS, default)

    def data_slice(self) -> DataSlice | None:
        value = self._values.get("dataSlice")
        if value is None:
            return None
        nested = Options(value)
        offset, length = nested.integer("offset"), nested.integer("length")
        if offset is None or length is None:
            raise invalid_params("Invalid params: missing field `offset` or `length`.")
        return DataSlice(offset, length)

    def filters(self) -> list[Filter]:
        values = self._values.get("filters") or []
        if not isinstance(values, list):
            raise invalid_params(f"Invalid params: invalid type: {_kind(values)}, expected a sequence.")
        if len(values) > MAX_FILTERS:
            raise invalid_params(f"Too many filters provided; max {MAX_FILTERS}")
        return [_filter(value) for value in values]

    def nested(self, key: str) -> Options | None:
        value = self._values.get(key)
        return None if value is None else Options(value)

    def pubkeys(self, key: str) -> list[Pubkey]:
        return [pubkey(value) for value in _list(self._values.get(key, []))]

    def signature(self, key: str) -> Signature | None:
        value = self.text(key)
        return None if value is None else signature(value)

    def get(self, key: str) -> Any:
        return self._values.get(key)


class Params:
    """The positional parameters of a call."""

    def __init__(self, values: Any) -> None:
        if values is None:
            values = []
        if not isinstance(values, list):
            raise invalid_params("`params` should be an array")
        self._values: list[Any] = values

    def __len__(self) -> int:
        return len(self._values)

    def get(self, index: int) -> Any:
        return self._values[index] if index < len(self._values) else None

    def _required(self, index: int) -> Any:
        if index >= len(self._values):
            raise invalid_params(f"`params` should have at least {index + 1} argument(s)")
        return self._values[index]

    def pubkey(self, index: int) -> Pubkey:
        return pubkey(self._required(index))

    def pubkeys(self, index: int) -> list[Pubkey]:
        return [pubkey(value) for value in _list(self._required(index))]

    def signature(self, index: int) -> Signature:
        return signature(self._required(index))

    def signatures(self, index: int) -> list[Signature]:
        return [signature(value) for value in _list(self._required(index))]

    def blockhash(self, index: int) -> Hash:
        return _parsed(self._required(index), Hash.from_string, 32)

    def integer(self, index: int) -> int:
        return _unsigned(self._required(index))

    def text(self, index: int) -> str:
        return _text(self._required(index))

    def options(self, index: int) -> Options:
        return Options(self.get(index))


def commitment(value: Any) -> Commitment:
    if not isinstance(value, str) or value not in _COMMITMENTS:
        expected = ", ".join(f"`{name}`" for name in _COMMITMENTS)
        raise invalid_params(f"Invalid params: unknown variant `{value}`, expected one of {expected}.")
    return _COMMITMENTS[value]


def pubkey(value: Any) -> Pubkey:
    return _parsed(value, Pubkey.from_string, 32)


def signature(value: Any) -> Signature:
    return _parsed(value, Signature.from_string, 64)


def _parsed(value: Any, parse: Callable[[str], Parsed], size: int) -> Parsed:
    text = _text(value)
    try:
        return parse(text)
    except (ValueError, ParseHashError):
        pass
    try:
        wrong_size = len(b58decode(text.encode())) != size
    except ValueError:
        wrong_size = False
    raise invalid_params(f"Invalid param: {'WrongSize' if wrong_size else 'Invalid'}")


def _filter(value: Any) -> Filter:
    options = Options(value)
    if (size := options.integer("dataSize")) is not None:
        return Filter(data_size=size)
    comparison = options.nested("memcmp")
    if comparison is None:
        raise invalid_params("Invalid params: unknown filter, expected `dataSize` or `memcmp`.")
    offset = comparison.integer("offset")
    if offset is None:
        raise invalid_params("Invalid params: missing field `offset`.")
    return Filter(offset=offset, content=_filter_bytes(comparison))


def _filter_bytes(comparison: Options) -> bytes:
    raw = comparison.get("bytes")
    if isinstance(raw, list):
        content = bytes(_unsigned(byte) for byte in raw)
    else:
        text = _text(raw)
        encoding = comparison.choice("encoding", ("base58", "base64", "bytes"), "base58")
        try:
            content = b64decode(text, validate=True) if encoding == "base64" else b58decode(text.encode())
        except ValueError:
            raise invalid_params("Invalid param: DecodeError") from None
    if len(content) > MAX_FILTER_BYTES:
        raise invalid_params("Invalid param: DataTooLarge")
    return content


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise invalid_params(f"Invalid params: invalid type: {_kind(value)}, expected a sequence.")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise invalid_params(f"Invalid params: invalid type: {_kind(value)}, expected a string.")
    return value


def _unsigned(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise invalid_params(f"Invalid params: invalid type: {_kind(value)}, expected u64.")
    return min(value, 2**63 - 1)  # SQLite counts no further, and nothing here is that large


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{value}`"
        case str():
            return f'string "{value}"'
        case list():
            return "sequence"
        case _:
            return "map"
