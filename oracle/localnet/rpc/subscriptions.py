"""The WebSocket methods: subscriptions, and what is sent for them when a slot is closed.

Everything here runs on the chain's owner thread. Notifications are made once for every slot that newly reaches the
subscription's commitment, as on a validator; `processed` is told when a slot closes, not while it is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson
from solders.account import Account
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.localnet.chain import Chain, Commitment, Progress
from oracle.localnet.ledger import Filter, Record
from oracle.localnet.rpc import encoding
from oracle.localnet.rpc.dispatch import METHODS, handle
from oracle.localnet.rpc.errors import RpcError, invalid_params
from oracle.localnet.rpc.params import DataSlice, Options, Params

Send = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class AccountWatch:
    address: Pubkey
    level: Commitment
    encoding: str
    data_slice: DataSlice | None


@dataclass(frozen=True, slots=True)
class ProgramWatch:
    program: Pubkey
    level: Commitment
    encoding: str
    data_slice: DataSlice | None
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class SignatureWatch:
    signature: Signature
    level: Commitment


@dataclass(frozen=True, slots=True)
class LogsWatch:
    mentions: Pubkey | None
    level: Commitment


@dataclass(frozen=True, slots=True)
class SlotWatch:
    pass


@dataclass(frozen=True, slots=True)
class RootWatch:
    pass


Watch = AccountWatch | ProgramWatch | SignatureWatch | LogsWatch | SlotWatch | RootWatch


class Hub:
    """The sessions that are open on a chain."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._sessions: set[Session] = set()
        self._ids = count(1)
        chain.on_progress = self.publish

    def open(self, send: Send) -> Session:
        session = Session(self._chain, send, self._ids)
        self._sessions.add(session)
        return session

    def close(self, session: Session) -> None:
        self._sessions.discard(session)

    def publish(self, progress: Progress) -> None:
        """Tells every session what a closed slot has brought."""
        if any(session.watches for session in self._sessions):
            news = _News(self._chain, progress)
            for session in self._sessions:
                session.publish(news)


class Session:
    """One WebSocket connection. `send` hands a message to it and does not wait."""

    def __init__(self, chain: Chain, send: Send, ids: Iterator[int]) -> None:
        self.watches: dict[int, Watch] = {}
        self._chain = chain
        self._send = send
        self._ids = ids
        self._methods = {
            **METHODS,
            **{name: self._subscribing(make) for name, make in SUBSCRIPTIONS.items()},
            **{name.replace("Subscribe", "Unsubscribe"): self._unsubscribe for name in SUBSCRIPTIONS},
        }

    def receive(self, body: bytes) -> None:
        """Answers a message. The answer goes the same way as notifications, so that it is never behind them."""
        answer = handle(self._chain, body, self._methods)
        if answer is not None:
            self._send(answer)

    def publish(self, news: _News) -> None:
        for identifier, watch in list(self.watches.items()):
            for method, result in news.of(watch):
                params = {"result": result, "subscription": identifier}
                self._send(orjson.dumps({"jsonrpc": "2.0", "method": method, "params": params}))
                if isinstance(watch, SignatureWatch):
                    del self.watches[identifier]

    def _subscribing(self, make: Callable[[Params], Watch]) -> Callable[[Chain, Params], Any]:
        def subscribe(_: Chain, params: Params) -> int:
            watch = make(params)
            identifier = next(self._ids)
            self.watches[identifier] = watch
            return identifier

        return subscribe

    def _unsubscribe(self, _: Chain, params: Params) -> bool:
        if self.watches.pop(params.integer(0), None) is None:
            raise invalid_params("Invalid subscription id.")
        return True


class _News:
    """What one closed slot has brought, read from the ledger at most once for all sessions."""

    def __init__(self, chain: Chain, progress: Progress) -> None:
        self._chain = chain
        self._progress = progress
        self._changes: dict[int, dict[Pubkey, Account]] = {}
        self._records: dict[int, list[Record]] = {}

    def of(self, watch: Watch) -> Iterator[tuple[str, Any]]:
        """Method and result of each notification that a subscription is due."""
        match watch:
            case AccountWatch():
                yield from self._account(watch)
            case ProgramWatch():
                yield from self._program(watch)
            case SignatureWatch():
                yield from self._signature(watch)
            case LogsWatch():
                yield from self._logs(watch)
            case SlotWatch():
                closed = self._progress.closed
                slot = self._chain.slot(Commitment.PROCESSED)
                yield "slotNotification", {"slot": slot, "parent": closed.slot, "root": self._progress.root}
            case RootWatch():
                for slot in self._progress.reached[Commitment.FINALIZED]:
                    yield "rootNotification", slot

    def _account(self, watch: AccountWatch) -> Iterator[tuple[str, Any]]:
        for slot in self._progress.reached[watch.level]:
            account = self._changes_in(slot).get(watch.address)
            if account is not None:
                yield "accountNotification", _in_slot(slot, _shown(account, watch))

    def _program(self, watch: ProgramWatch) -> Iterator[tuple[str, Any]]:
        for slot in self._progress.reached[watch.level]:
            for address, account in self._changes_in(slot).items():
                if account.owner != watch.program or not account.lamports:
                    continue
                if all(wanted.matches(account.data) for wanted in watch.filters):
                    value = {"pubkey": str(address), "account": _shown(account, watch)}
                    yield "programNotification", _in_slot(slot, value)

    def _signature(self, watch: SignatureWatch) -> Iterator[tuple[str, Any]]:
        landed = self._chain.status(watch.signature)
        seen = self._progress.closed.slot if watch.level == Commitment.PROCESSED else self._chain.slot(watch.level)
        if landed is not None and landed[0] <= seen:
            yield "signatureNotification", _in_slot(seen, {"err": landed[1]})

    def _logs(self, watch: LogsWatch) -> Iterator[tuple[str, Any]]:
        for slot in self._progress.reached[watch.level]:
            for record in self._records_in(slot):
                if watch.mentions is None or self._chain.ledger.mentions(watch.mentions, record):
                    value = {
                        "signature": str(record.signature),
                        "err": record.err,
                        "logs": record.meta["logMessages"],
                    }
                    yield "logsNotification", _in_slot(slot, value)

    def _changes_in(self, slot: int) -> dict[Pubkey, Account]:
        if slot not in self._changes:
            self._changes[slot] = dict(self._chain.ledger.changes_in(slot))
        return self._changes[slot]

    def _records_in(self, slot: int) -> list[Record]:
        if slot not in self._records:
            self._records[slot] = self._chain.ledger.transactions_in(slot)
        return self._records[slot]


def _in_slot(slot: int, value: Any) -> dict[str, Any]:
    return {"context": {"slot": slot}, "value": value}


def _shown(account: Account, watch: AccountWatch | ProgramWatch) -> dict[str, Any]:
    try:
        return encoding.account(account, watch.encoding, watch.data_slice)
    except RpcError:
        return {
            **encoding.account(account, "base64", DataSlice(0, 0)),
            "data": "error: data too large for bs58 encoding",
        }


def _account_watch(params: Params) -> Watch:
    address, options = params.pubkey(0), params.options(1)
    return AccountWatch(address, options.commitment(), options.account_encoding(), options.data_slice())


def _program_watch(params: Params) -> Watch:
    program, options = params.pubkey(0), params.options(1)
    filters = tuple(options.filters())
    return ProgramWatch(program, options.commitment(), options.account_encoding(), options.data_slice(), filters)


def _signature_watch(params: Params) -> Watch:
    return SignatureWatch(params.signature(0), params.options(1).commitment())


def _logs_watch(params: Params) -> Watch:
    wanted, level = params.get(0), params.options(1).commitment()
    if wanted in ("all", "allWithVotes"):
        return LogsWatch(None, level)
    mentions = Options(wanted).pubkeys("mentions")
    if len(mentions) != 1:
        raise invalid_params("Invalid Request: Only 1 address supported")
    return LogsWatch(mentions[0], level)


SUBSCRIPTIONS: Mapping[str, Callable[[Params], Watch]] = {
    "accountSubscribe": _account_watch,
    "programSubscribe": _program_watch,
    "signatureSubscribe": _signature_watch,
    "logsSubscribe": _logs_watch,
    "slotSubscribe": lambda _: SlotWatch(),
    "rootSubscribe": lambda _: RootWatch(),
}
