"""Settlements: intents to change the chain, and every signature that was ever made for one.

A signature is written with its bytes before they are sent. Law 2 is checked as it is written: no second signature for
an effect while an earlier one may still land, whoever asks and whatever it believes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from oracle.core.settlement import DEAD, SignatureState
from oracle.store.changes import Intent, Judgement, Signing
from oracle.store.errors import LEASE_LOST, ROW_MISSING, SETTLEMENT_EXISTS, SIGNATURE_OPEN
from oracle.store.rows import SettlementRow as SettlementRow
from oracle.store.rows import SignatureRow as SignatureRow
from oracle.store.schema import LIVE_SETTLEMENT, SettlementKind, SettlementState
from oracle.store.schema import settlements as t
from oracle.store.schema import signature_members as m
from oracle.store.schema import signatures as s
from oracle.store.sql import fetch, fetch_one, has_lapsed, insert_all_new, is_among, is_one_of, run_each, update_each

OPEN_SIGNATURE: Final = (SignatureState.SIGNED, SignatureState.SENT, SignatureState.CONFIRMED)

# A request is settled once, by either of the two; a signature of the one may still land when the other is made.
_SETTLING: Final = (SettlementKind.RECORD, SettlementKind.REJECT)

# Built once: to build a statement takes SQLAlchemy several times as long as SQLite takes to run it.
_BY_ID: Final = select(t).where(t.c.id == bindparam("wanted_id"))
_EFFECTS: Final = select(t.c.kind, t.c.request_id, t.c.attempt_id).where(is_among(t.c.id, "wanted_ids"))
_LIVE_OF_REQUEST: Final = select(t).where(
    is_one_of(t.c.state, LIVE_SETTLEMENT), t.c.request_id == bindparam("wanted_id"), t.c.kind != SettlementKind.PURCHASE
)
_LIVE_OF_REQUESTS: Final = select(t.c.request_id).where(
    is_one_of(t.c.state, LIVE_SETTLEMENT), is_among(t.c.request_id, "wanted_ids"), t.c.kind != SettlementKind.PURCHASE
)
_LIVE_PURCHASE: Final = select(t).where(
    is_one_of(t.c.state, LIVE_SETTLEMENT), t.c.attempt_id == bindparam("wanted_id"), t.c.kind == SettlementKind.PURCHASE
)
_UNDER_WAY: Final = (
    select(t.c.id)
    .where(
        is_one_of(t.c.state, (*LIVE_SETTLEMENT, SettlementState.LANDED)),
        t.c.request_id == bindparam("wanted_id"),
        t.c.kind != SettlementKind.PURCHASE,
    )
    .limit(1)
)
_NEXT_WAKE: Final = select(
    func.min(case((t.c.lease_until_ms > t.c.wake_at_ms, t.c.lease_until_ms), else_=t.c.wake_at_ms))
).where(t.c.state == SettlementState.PENDING)
_MEMBERS: Final = (
    select(t)
    .join(m, m.c.settlement_id == t.c.id)
    .where(m.c.signature_id == bindparam("wanted_id"))
    .order_by(m.c.position)
)
_MEMBERS_OF_ALL: Final = (
    select(m.c.signature_id, t)
    .join(m, m.c.settlement_id == t.c.id)
    .where(is_among(m.c.signature_id, "wanted_ids"))
    .order_by(m.c.signature_id, m.c.position)
)
_SIGNATURE_BY_ID: Final = select(s).where(s.c.id == bindparam("wanted_id"))
_SIGNATURES_OF: Final = (
    select(s).join(m, m.c.signature_id == s.c.id).where(m.c.settlement_id == bindparam("wanted_id")).order_by(s.c.id)
)
_OPEN: Final = (
    select(s)
    .where(
        is_one_of(s.c.state, OPEN_SIGNATURE),
        exists().where(m.c.signature_id == s.c.id, m.c.settlement_id == t.c.id, t.c.operator == bindparam("of")),
    )
    .order_by(s.c.id)
)
_STATES_LOCKED: Final = (
    select(s.c.id, s.c.state).where(is_among(s.c.id, "wanted_ids")).order_by(s.c.id).with_for_update()
)
_SENT: Final = (
    update(s)
    .where(s.c.id == bindparam("wanted_id"))
    .values(state=case((s.c.state == SignatureState.SIGNED, SignatureState.SENT), else_=s.c.state))
)
_MEMBER: Final = insert(m)
_NEW_FATE: Final = bindparam("new", type_=s.c.state.type)
_JUDGED: Final = (
    update(s)
    .where(
        s.c.id == bindparam("wanted_id"),
        or_(~is_one_of(s.c.state, (SignatureState.FINALIZED, *DEAD)), s.c.state == _NEW_FATE),
    )
    .values(state=_NEW_FATE)
)
_BECOME_SENT: Final = (
    update(t)
    .where(
        t.c.id == bindparam("held_id"),
        t.c.fence == bindparam("held_fence"),
        t.c.state == SettlementState.PENDING,
        t.c.lease_owner.is_not(None),
    )
    .values(state=SettlementState.SENT, lease_owner=None, lease_until_ms=None)
)
_NEW: Final = bindparam("new", type_=t.c.state.type)
_DECIDED: Final = (
    update(t)
    .where(
        t.c.id == bindparam("wanted_id"),
        or_(t.c.state != SettlementState.FINALIZED, _NEW == SettlementState.FINALIZED),
    )
    .values(state=_NEW, lease_owner=None, lease_until_ms=None, fence=t.c.fence + 1)
)
_RELEASED: Final = (
    update(t)
    .where(
        t.c.id == bindparam("held_id"),
        t.c.fence == bindparam("held_fence"),
        t.c.state == bindparam("held_state"),
        is_one_of(t.c.state, LIVE_SETTLEMENT),
    )
    .values(
        state=SettlementState.PENDING,
        error_code=func.coalesce(bindparam("code", type_=Text), t.c.error_code),
        error_detail=func.coalesce(bindparam("detail", type_=Text), t.c.error_detail),
        lease_owner=None,
        lease_until_ms=None,
    )
    .returning(t)
)
_REOPENED: Final = (
    update(t)
    .where(t.c.id == bindparam("wanted_id"), t.c.state == SettlementState.LANDED)
    .values(state=SettlementState.SENT)
    .returning(t)
)


def intend(
    conn: Connection,
    *,
    request_id: int,
    kind: str,
    args: Mapping[str, Any],
    operator: str,
    deadline_slot: int,
    now_ms: int,
    attempt_id: int | None = None,
) -> SettlementRow:
    """Write down what is to be done on chain; due at once. `args` are JSON; a purchase names its attempt.

    Raises ORC-STORE-018 where the request (or, for a purchase, the attempt) has a live one.
    """
    intent = Intent(request_id, kind, args, operator, deadline_slot, now_ms, attempt_id)
    return get(conn, intend_all(conn, [intent])[0])


def intend_all(conn: Connection, intents: Sequence[Intent]) -> list[int]:
    """`intend` for many requests, or attempts: the ids. Raises as it does, where it would for one of them."""
    values = [
        {
            "request_id": this.request_id,
            "attempt_id": this.attempt_id,
            "operator": this.operator,
            "kind": this.kind,
            "args": dict(this.args),
            "deadline_slot": this.deadline_slot,
            "state": SettlementState.PENDING,
            "created_at_ms": this.now_ms,
            "wake_at_ms": this.now_ms,
        }
        for this in intents
    ]
    ids = insert_all_new(conn, t, values, t.c.request_id, t.c.attempt_id)
    written = []
    for this in intents:
        # Taken out: of two intents for one request the second has not gone in.
        settlement_id = ids.pop((this.request_id, this.attempt_id), None)
        if settlement_id is None:
            raise SETTLEMENT_EXISTS(f"request {this.request_id}, {this.kind}")
        written.append(settlement_id)
    return written


def take_pending(
    conn: Connection, *, owner: str, now_ms: int, lease_ms: int, limit: int, operator: str | None = None
) -> list[SettlementRow]:
    """Lease up to `limit` due intents, earliest deadline first; of one operator key, where that is given.

    Purchases are not among them: whoever intends one holds it, and nobody else signs it.
    """
    values: dict[str, Any] = {"owner": owner, "at_ms": now_ms, "until_ms": now_ms + lease_ms, "most": limit}
    if operator is not None:
        values["of_operator"] = operator
    taken = [SettlementRow(*row) for row in fetch(conn, _take_pending(operator is not None), values)]
    return sorted(taken, key=lambda row: (row.deadline_slot, row.id))


@cache
def _take_pending(of_one_operator: bool) -> ReturningUpdate[Any]:
    now_ms = bindparam("at_ms", type_=BigInteger)
    unleased = or_(t.c.lease_owner.is_(None), has_lapsed(t.c.lease_until_ms, now_ms))
    query = select(t.c.id).where(t.c.state == SettlementState.PENDING, t.c.wake_at_ms <= now_ms, unleased)
    query = query.where(t.c.kind != SettlementKind.PURCHASE)
    if of_one_operator:
        query = query.where(t.c.operator == bindparam("of_operator"))
    most = bindparam("most", type_=Integer)
    due = query.order_by(t.c.deadline_slot, t.c.id).limit(most).with_for_update(skip_locked=True).cte("due")
    return (
        update(t)
        .where(t.c.id.in_(select(due.c.id)))
        .values(
            lease_owner=bindparam("owner"),
            lease_until_ms=bindparam("until_ms", type_=BigInteger),
            fence=t.c.fence + 1,
        )
        .returning(t)
    )


def record_signature(conn: Connection, signing: Signing) -> SignatureRow:
    """Write a signed transaction down before it is sent; its members become SENT.

    Raises ORC-STORE-016 where a member is not pending under its fence any more, ORC-STORE-019 where an earlier
    signature for the same effect is not dead. The transaction must not be sent then.
    """
    return signature_by_id(conn, record_signatures(conn, [signing])[0])


def record_signatures(conn: Connection, signings: Sequence[Signing]) -> list[int]:
    """`record_signature` for many: the ids. Raises as it does, where it would for one of them."""
    # First, for it locks the rows: two daemons that sign for one intent meet here, and the second finds it sent. So do
    # two signings of this call for one effect: no two intents for it are pending at once, as the table's indexes say.
    _become_sent(conn, signings)
    _assert_earlier_are_dead(conn, [settlement_id for this in signings for settlement_id in this.fences])
    values = [
        {
            "signature": this.signature,
            "wire": this.wire,
            "blockhash": this.blockhash,
            "last_valid_block_height": this.last_valid_block_height,
            "signed_slot": this.signed_slot,
            "signed_at_ms": this.now_ms,
            "state": SignatureState.SIGNED,
            "fee_lamports": this.fee_lamports,
        }
        for this in signings
    ]
    ids = insert_all_new(conn, s, values, s.c.signature)
    if known := [this.signature for this in signings if this.signature not in ids]:
        raise SIGNATURE_OPEN(f"{known[0]} is written down already")
    members = [
        {"signature_id": ids[this.signature], "settlement_id": settlement_id, "position": position}
        for this in signings
        for position, settlement_id in enumerate(this.fences)
    ]
    run_each(conn, _MEMBER, members)
    return [ids[this.signature] for this in signings]


def sent_all(conn: Connection, signatures: Sequence[tuple[int, int]]) -> list[None]:
    """The bytes went out, for the first time or again: the id of each signature, and when, in unix milliseconds."""
    # In one order, whoever writes: two daemons that have sent the same ones again would else wait for one another.
    values = [{"wanted_id": this, "last_sent_at_ms": now_ms} for this, now_ms in sorted(signatures)]
    update_each(conn, _SENT, values)
    return [None] * len(signatures)


def mark_signature(
    conn: Connection, signature_id: int, state: str, *, slot: int | None = None, error: Any = None
) -> SignatureRow:
    """Write what became of a signature. Back to SENT, after a fork, clears its slot.

    Raises ORC-STORE-020 where its fate was final: finalized, failed and expired are never taken back.
    """
    mark_signatures(conn, [Judgement(signature_id, SignatureState(state), slot, error)])
    return signature_by_id(conn, signature_id)


def mark_signatures(conn: Connection, judgements: Sequence[Judgement]) -> None:
    """`mark_signature` for many. Raises as it does, where it would for one of them."""
    values = [
        {"wanted_id": this.signature_id, "new": this.state, "slot": this.slot, "error": this.error}
        for this in judgements
    ]
    if update_each(conn, _JUDGED, values) != len(values):
        raise ROW_MISSING(f"signature {', '.join(str(this.signature_id) for this in judgements)} with an open fate")


def resolve(
    conn: Connection,
    settlement_id: int,
    state: str,
    *,
    now_ms: int,
    code: str | None = None,
    detail: str | None = None,
) -> SettlementRow:
    """End an intent (landed, finalized, failed, dropped), whoever holds it: the chain, or a person, has decided.

    Raises ORC-STORE-020 where it was finalized as something else.
    """
    resolve_all(conn, [settlement_id], state, now_ms=now_ms, code=code, detail=detail)
    return get(conn, settlement_id)


def resolve_all(
    conn: Connection,
    settlement_ids: Sequence[int],
    state: str,
    *,
    now_ms: int,
    code: str | None = None,
    detail: str | None = None,
) -> None:
    """`resolve` for many intents that end alike."""
    new = SettlementState(state)
    if new in LIVE_SETTLEMENT:
        raise ValueError(f"{new} is no end")
    written = {"new": new, "error_code": code, "error_detail": detail, "wake_at_ms": now_ms}
    values = [{"wanted_id": settlement_id, **written} for settlement_id in settlement_ids]
    if update_each(conn, _DECIDED, values) != len(values):
        raise ROW_MISSING(f"settlement {', '.join(map(str, settlement_ids))} as it was")


def reopen(conn: Connection, settlement_id: int, *, now_ms: int) -> SettlementRow:
    """A fork took back what had landed: the intent is SENT again, and the same bytes go out again.

    Raises ORC-STORE-018 where another intent of the request is live, ORC-STORE-020 where it was not landed.
    """
    this = get(conn, settlement_id)
    if this.kind != SettlementKind.PURCHASE and live_of(conn, this.request_id) is not None:
        raise SETTLEMENT_EXISTS(f"request {this.request_id}, {this.kind} again")
    return _write(conn, _REOPENED, settlement_id, wake_at_ms=now_ms)


def release(
    conn: Connection,
    settlement: SettlementRow,
    *,
    wake_at_ms: int,
    code: str | None = None,
    detail: str | None = None,
    args: Mapping[str, Any] | None = None,
) -> SettlementRow:
    """Put a live intent back to PENDING: given back by its holder, or free again after its signature has died.

    `args` replaces the intent's own, as where it must be sent alone from now on.

    Raises ORC-STORE-016 where it is not as `settlement` says any more.
    """
    values = {
        "held_id": settlement.id,
        "held_fence": settlement.fence,
        "held_state": settlement.state,
        "wake_at_ms": wake_at_ms,
        "args": dict(settlement.args if args is None else args),
        "code": code,
        "detail": detail,
    }
    written = fetch_one(conn, _RELEASED, values)
    if written is None:
        raise LEASE_LOST(f"settlement {settlement.id}, fence {settlement.fence}")
    return SettlementRow(*written)


def get(conn: Connection, settlement_id: int) -> SettlementRow:
    row = fetch_one(conn, _BY_ID, {"wanted_id": settlement_id})
    if row is None:
        raise ROW_MISSING(f"settlement {settlement_id}")
    return SettlementRow(*row)


def of(conn: Connection, request_id: int) -> list[SettlementRow]:
    """Every intent of a request, oldest first."""
    query = select(t).where(t.c.request_id == request_id).order_by(t.c.id)
    return [SettlementRow(*row) for row in conn.execute(query)]


def live_of(conn: Connection, request_id: int) -> SettlementRow | None:
    """The pending or sent intent of a request; purchases do not count (see `live_purchase`)."""
    return _live(conn, _LIVE_OF_REQUEST, request_id)


def live_of_all(conn: Connection, request_ids: Collection[int]) -> set[int]:
    """Those of the requests that have a pending or sent intent; purchases do not count."""
    return {request_id for (request_id,) in fetch(conn, _LIVE_OF_REQUESTS, {"wanted_ids": request_ids})}


def is_under_way(conn: Connection, request_id: int) -> bool:
    """Whether an intent of a request is live, or has landed and may still be undone; purchases do not count."""
    return fetch_one(conn, _UNDER_WAY, {"wanted_id": request_id}) is not None


def live_purchase(conn: Connection, attempt_id: int) -> SettlementRow | None:
    """The pending or sent purchase of an attempt."""
    return _live(conn, _LIVE_PURCHASE, attempt_id)


def signature_by_id(conn: Connection, signature_id: int) -> SignatureRow:
    row = fetch_one(conn, _SIGNATURE_BY_ID, {"wanted_id": signature_id})
    if row is None:
        raise ROW_MISSING(f"signature {signature_id}")
    return SignatureRow(*row)


def hold_signatures(conn: Connection, signature_ids: Collection[int]) -> dict[int, SignatureState]:
    """The states of signatures that no other daemon judges until this transaction ends: whoever is second sees the
    judgement. Raises ORC-STORE-020 where one is not there."""
    states = dict(fetch(conn, _STATES_LOCKED, {"wanted_ids": signature_ids}))
    if missing := set(signature_ids) - states.keys():
        raise ROW_MISSING(f"signature {', '.join(map(str, sorted(missing)))}")
    return states


def open_signatures(conn: Connection, operator: str) -> list[SignatureRow]:
    """Signatures of an operator key whose fate is not final, oldest first."""
    return [SignatureRow(*row) for row in fetch(conn, _OPEN, {"of": operator})]


def members(conn: Connection, signature_id: int) -> list[SettlementRow]:
    """The intents of one transaction, in the order of its instructions."""
    return [SettlementRow(*row) for row in fetch(conn, _MEMBERS, {"wanted_id": signature_id})]


def members_of_all(conn: Connection, signature_ids: Collection[int]) -> dict[int, list[SettlementRow]]:
    """`members` of many transactions."""
    found: dict[int, list[SettlementRow]] = {signature_id: [] for signature_id in signature_ids}
    for signature_id, *row in fetch(conn, _MEMBERS_OF_ALL, {"wanted_ids": signature_ids}):
        found[signature_id].append(SettlementRow(*row))
    return found


def signatures_of(conn: Connection, settlement_id: int) -> list[SignatureRow]:
    """Every signature that was made for an intent, oldest first."""
    return [SignatureRow(*row) for row in fetch(conn, _SIGNATURES_OF, {"wanted_id": settlement_id})]


def next_wake_ms(conn: Connection) -> int | None:
    """When the next pending intent can be taken; None where there is none."""
    wake_ms: int | None
    ((wake_ms,),) = fetch(conn, _NEXT_WAKE)
    return wake_ms


def _become_sent(conn: Connection, signings: Sequence[Signing]) -> None:
    fences = sorted((this, fence) for signing in signings for this, fence in signing.fences.items())
    held = [{"held_id": this, "held_fence": fence} for this, fence in fences]
    if update_each(conn, _BECOME_SENT, held) != len(held):
        raise LEASE_LOST(f"one of the settlements {', '.join(str(this['held_id']) for this in held)}")


def _assert_earlier_are_dead(conn: Connection, settlement_ids: Sequence[int]) -> None:
    by_kind: dict[SettlementKind, list[int]] = {}
    for kind, request_id, attempt_id in fetch(conn, _EFFECTS, {"wanted_ids": settlement_ids}):
        by_kind.setdefault(kind, []).append(attempt_id if kind == SettlementKind.PURCHASE else request_id)
    for kind, effects in by_kind.items():
        alive = fetch_one(conn, _alive_for_the_same_effect(kind), {"effects": effects})
        if alive is not None:
            raise SIGNATURE_OPEN(f"settlement {', '.join(map(str, settlement_ids))}: {alive[0]}")


@cache
def _alive_for_the_same_effect(kind: SettlementKind) -> Select[tuple[str]]:
    if kind == SettlementKind.PURCHASE:
        same_effect = is_among(t.c.attempt_id, "effects"), t.c.kind == SettlementKind.PURCHASE
    else:
        kinds = _SETTLING if kind in _SETTLING else (kind,)
        same_effect = is_among(t.c.request_id, "effects"), is_one_of(t.c.kind, kinds)
    # A claim that has taken effect lapses, and is then claimed anew; every other effect is had once.
    alive = is_one_of(s.c.state, OPEN_SIGNATURE) if kind == SettlementKind.CLAIM else ~is_one_of(s.c.state, DEAD)
    return (
        select(s.c.signature)
        .join(m, m.c.signature_id == s.c.id)
        .join(t, t.c.id == m.c.settlement_id)
        .where(*same_effect, alive)
        .limit(1)
    )


def _live(conn: Connection, query: Select[Any], wanted_id: int) -> SettlementRow | None:
    row = fetch_one(conn, query, {"wanted_id": wanted_id})
    return None if row is None else SettlementRow(*row)


def _write(conn: Connection, statement: ReturningUpdate[Any], settlement_id: int, **values: Any) -> SettlementRow:
    row = fetch_one(conn, statement, {"wanted_id": settlement_id} | values)
    if row is None:
        raise ROW_MISSING(f"settlement {settlement_id} as it was")
    return SettlementRow(*row)
