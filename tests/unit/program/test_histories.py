"""Random histories against a model: clock jumps, empty wallets, dust, packs, second lives of an address.

After every transaction the chain must say what the model says: the same refusal, the same header, the same lamports.
Beyond the model: no lamport appears or vanishes, and no life of a request pays twice.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import pytest
from history_model import WALLET_MINIMUM, Life, Model, after
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from oracle_world import CLAIM_TERMS, OUTPUT, PROGRAM_ID, Site, Ticket, Wallet, World, refusal
from solders.account import Account
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from oracle.chain.program.events import InferenceRecorded, RequestSubmitted, read_events
from oracle.chain.program.layout import decode_header
from oracle.core.request import Header
from oracle.localnet.vm import Outcome

HISTORIES = 10_000 if os.environ.get("ORACLE_TEST_LENGTH") == "long" else 500
INSTRUCTIONS = 50

# Short enough for a jump of a few slots to cross each boundary, and for most histories to reach second lives.
TERMS = replace(
    CLAIM_TERMS,
    fee_floor_lamports=10_000,
    min_deadline_slots=2,
    max_deadline_slots=40,
    lease_slots=4,
    retention_slots=4,
)
JUMPS = [0] * 30 + [1] * 8 + [2, 4, 5, 15, 40, 41]
FEES = [10_000, 10_000, 10_000, 20_000, WALLET_MINIMUM, 10**9, 9_999]
TTLS = [2, 5, 9, 15, 25, 40, 40, 1, 41]
EVENTS = (
    ["none"] * 30 + ["drain payer", "fund payer", "fund payer"] + ["drain operator"] * 3 + ["fund operator", "gift"]
)
WEIGHTS = {
    "submit": 8,
    "claim": 8,
    "record": 7,
    "close": 5,
    "stranger closes": 3,
    "publish": 2,
    "reject": 2,
    "cancel": 1,
    "expire": 2,
    "hire": 4,
    "fire": 1,
    "require claims": 3,
    "require none": 1,
    "pause": 1,
}
KINDS = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
TOWARDS = {
    "claim": "submit",
    "record": "claim",
    "reject": "claim",
    "publish": "record",
    "close": "expire",
    "stranger closes": "cancel",
    "expire": "submit",
    "cancel": "submit",
    "fire": "hire",
}
TICKETS, PAYERS, OPERATORS = 3, 2, 3
FUNDED = 10**10


class Step(NamedTuple):
    """One instruction, with what happens before it. `joined` puts it into the transaction of the one before.

    `aimed` moves it to the next ticket, operator and payer with whom it succeeds, or makes it a step towards that: by
    chance alone hardly a history would reach a record.
    """

    kind: str
    joined: bool
    aimed: bool
    jump: int
    event: str
    ticket: int
    operator: int
    payer: int
    fee: int
    ttl: int


def history_of(drawn: bytes) -> list[Step]:
    choices = (
        KINDS,
        [False, False, False, False, True],
        [False, True, True],
        JUMPS,
        EVENTS,
        range(TICKETS),
        range(OPERATORS),
        range(PAYERS),
        FEES,
        TTLS,
    )
    chunks = (drawn[at : at + BYTES] for at in range(0, len(drawn) - BYTES + 1, BYTES))
    return [Step(*(among[byte % len(among)] for among, byte in zip(choices, chunk, strict=True))) for chunk in chunks]


# Drawn as bytes, not as lists of choices: hypothesis likes to repeat a choice, and hardly a history would get anywhere.
BYTES = len(Step._fields)
histories = st.binary(min_size=INSTRUCTIONS * BYTES, max_size=INSTRUCTIONS * BYTES).map(history_of)


@pytest.mark.timeout(3_600 if HISTORIES > 500 else 120)
def test_every_history_goes_as_the_model_says() -> None:
    world = worlds()
    seen: Counter[str] = Counter()

    @settings(max_examples=HISTORIES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(histories, st.booleans())
    def goes_as_the_model_says(history: list[Step], claim_required: bool) -> None:
        run = Run(next(world), claim_required, seen)
        for transaction in transactions(history):
            run.happen(transaction[0])
            run.send(transaction)
        run.check_the_sum()

    goes_as_the_model_says()
    assert [what for what in MUST_HAPPEN if not seen[what]] == [], seen


def worlds() -> Iterator[World]:
    """A new machine now and then: to set its clock takes LiteSVM longer with each account that there is."""
    while True:
        yield from itertools.repeat(World(), 250)


# Histories that never get anywhere prove nothing: each of these must have been seen, and is, dozens of times.
MUST_HAPPEN = [
    *(f"{kind} done" for kind in WEIGHTS),
    "second life",
    "pack done",
    "RequestEnded",
    "RequestStillOpen",
    "DeadlinePassed",
    "DeadlineNotPassed",
    "ClaimRequired",
    "ClaimedByAnother",
    "AlreadyClaimed",
    "LeaseRunning",
    "RequestFirm",
    "RetentionRunning",
    "CloseInSlotOfCreation",
    "NotRefundAccount",
    "NotFulfilled",
    "ClaimNotRequired",
    "AccountAlreadyInUse",
    "AccountOwnedByWrongProgram",
    "ResultWithNegativeLamports",
    "InsufficientFundsForRent",
    "QueuePaused",
    "SecondOperatorNeedsClaims",
    "UnclaimedRequestsRemain",
    "ClaimsStillRequired",
]


def transactions(history: list[Step]) -> Iterator[list[Step]]:
    """The steps, those that are joined put together, three at most."""
    pack: list[Step] = []
    for step in history:
        if pack and not (step.joined and len(pack) < 3):
            yield pack
            pack = []
        pack.append(step)
    yield pack


Change = Callable[[Model], None]


@dataclass
class Run:
    """One history on new addresses of an old machine, and the model beside it."""

    world: World
    claim_required: bool
    seen: Counter[str]
    fees: dict[tuple[Pubkey, int], int] = field(default_factory=dict)
    burned_lamports: int = 0

    def __post_init__(self) -> None:
        self.payers, self.operators = self._wallets(PAYERS), self._wallets(OPERATORS)
        self.stranger, self.bank = self.world.wallet(), self.world.wallet(10**15)
        self.site: Site = self.world.queue(replace(TERMS, claim_required=self.claim_required), operators=0)
        self.site.operators = self.operators
        self.operator_keys = [keys.pubkey() for keys in self.operators]
        self.payer_keys = [keys.pubkey() for keys in self.payers]
        requesters = self._wallets(TICKETS)
        self.tickets: list[Ticket] = [self.site.ticket(keys, self.payers[0]) for keys in requesters]
        self.lived: set[int] = set()
        self.model = Model(
            slot=self.world.slot,
            claim_required=self.claim_required,
            ttl_bounds=(TERMS.min_deadline_slots, TERMS.max_deadline_slots),
            fee_floor=TERMS.fee_floor_lamports,
            lease=TERMS.lease_slots,
            retention=TERMS.retention_slots,
            request_rent=self.world.vm.minimum_balance(352 + 43 + 100),
            operator_rent=self.world.vm.minimum_balance(208),
            payers=dict.fromkeys(range(PAYERS), FUNDED),
            operators=dict.fromkeys(range(OPERATORS), FUNDED),
            authority=self.world.balance(self.site.authority.pubkey()),
        )
        self.everything = [
            *(keys.pubkey() for keys in (*self.payers, *self.operators, *requesters, self.stranger, self.bank)),
            *(keys.pubkey() for keys in (self.site.authority, self.world.payer)),
            *(ticket.address for ticket in self.tickets),
            *(self.site.operator(by) for by in range(OPERATORS)),
            self.site.address,
        ]
        self.total_lamports = self._sum()
        # Most histories begin with somebody at work.
        self.send([Step("hire", False, False, 0, "none", 0, 0, 0, 0, 0)])

    def _wallets(self, count: int) -> list[Wallet]:
        return [self.world.wallet(FUNDED) for _ in range(count)]

    def happen(self, step: Step) -> None:
        """What goes before the instruction: time, and money that others move."""
        if step.jump:
            self.world.wait(step.jump)
            self.model.slot = self.world.slot
        match step.event:
            case "drain payer":
                self._move(self.payers[step.payer].pubkey(), self.model.payers, step.payer, 0)
            case "drain operator":
                self._move(self.operators[step.operator].pubkey(), self.model.operators, step.operator, 0)
            case "fund payer":
                self._move(self.payers[step.payer].pubkey(), self.model.payers, step.payer, self._funds(step))
            case "fund operator":
                self._move(self.operators[step.operator].pubkey(), self.model.operators, step.operator, FUNDED)
            case "gift":
                there = self.model.at_address.get(step.ticket, 0)
                self._move(
                    self.tickets[step.ticket].address, self.model.at_address, step.ticket, there + WALLET_MINIMUM
                )

    def _funds(self, step: Step) -> int:
        """Plenty, or a lamport more than a submit takes: what it then leaves is less than an account needs."""
        return FUNDED if step.aimed else self.model.request_rent + step.fee + 1

    def _move(self, address: Pubkey, balances: dict[int, int], number: int, lamports: int) -> None:
        """Lets the bank fill or empty an account: the sum stays what it was."""
        before = balances.get(number, 0)
        balances[number] = lamports
        for key, change in ((address, lamports - before), (self.bank.pubkey(), before - lamports)):
            account = self.world.vm.account(key) or Account(0, b"", Pubkey.default())
            moved = Account(account.lamports + change, account.data, account.owner)
            self.world.vm.set_account(key, moved)

    def send(self, pack: list[Step]) -> None:
        """One transaction: the chain and the model must agree on what becomes of it."""
        pack, changes = self._aimed(pack)
        self.model, expected = after(self.model, changes)
        outcome = self._process([self._instruction(step) for step in pack])
        got = refusal(outcome)
        note(f"slot {self.world.slot}: {' + '.join(map(describe, pack))} -> {got}")
        assert got == expected, outcome.logs
        self._count(pack, got)
        self._check_lamports(outcome)
        self._check_payments(outcome)
        self._check_headers()

    def _process(self, instructions: list[Instruction]) -> Outcome:
        """Without signatures, which are not the program's business and would take half the time."""
        message = MessageV0.try_compile(self.world.payer.pubkey(), instructions, [], Hash.default())
        unsigned = [Signature.default()] * message.header.num_required_signatures
        outcome = self.world.vm.simulate(VersionedTransaction.populate(message, unsigned), sig_verify=False)
        for address, account in outcome.changed.items():
            self.world.vm.set_account(address, account)
        self.burned_lamports += outcome.fee_lamports
        return outcome

    def _aimed(self, pack: list[Step]) -> tuple[list[Step], list[Change]]:
        """The steps where they will succeed, one after the other, and what they do to the model."""
        chosen, changes = [], []
        so_far = self.model
        for step in pack:
            for candidate in self._candidates(step):
                attempt, refused = after(so_far, [change := self._change(candidate)])
                if refused is None:
                    break
            else:
                attempt, candidate, change = so_far, step, self._change(step)
            so_far = attempt
            chosen.append(candidate)
            changes.append(change)
        return chosen, changes

    @staticmethod
    def _candidates(step: Step) -> Iterator[Step]:
        if not step.aimed:
            return
        kind: str | None = step.kind
        while kind is not None:
            for number in range(TICKETS * OPERATORS * PAYERS):
                yield step._replace(
                    kind=kind,
                    ticket=(step.ticket + number) % TICKETS,
                    operator=(step.operator + number // TICKETS) % OPERATORS,
                    payer=(step.payer + number // (TICKETS * OPERATORS)) % PAYERS,
                )
            kind = TOWARDS.get(kind)

    def _change(self, step: Step) -> Change:
        """What the instruction of a step does to the model."""
        number, by = step.ticket, step.operator
        match step.kind:
            case "submit":
                return partial(Model.submit, ticket=number, payer=step.payer, fee=step.fee, ttl=step.ttl)
            case "claim":
                return partial(Model.claim, ticket=number, by=by)
            case "record":
                return partial(Model.record, ticket=number, by=by)
            case "publish":
                return partial(Model.publish, ticket=number, by=by, length=len(OUTPUT))
            case "reject":
                return partial(Model.reject, ticket=number, by=by, reason=reason_of(step))
            case "cancel":
                return partial(Model.cancel, ticket=number)
            case "expire":
                return partial(Model.expire, ticket=number)
            case "close" | "stranger closes":
                by_stranger = step.kind == "stranger closes"
                return partial(Model.close, ticket=number, refund_to=step.payer, by_stranger=by_stranger)
            case "hire":
                return partial(Model.add_operator, by=by)
            case "fire":
                return partial(Model.remove_operator, by=by)
            case _:
                return partial(Model.update_queue, **self._terms(step))

    def _instruction(self, step: Step) -> Instruction:
        site, by = self.site, step.operator
        ticket = replace(self.tickets[step.ticket], payer=self.payers[step.payer])
        match step.kind:
            case "submit":
                return site.submit(ticket, fee_lamports=step.fee, ttl_slots=step.ttl)
            case "claim":
                return site.claim(ticket, by)
            case "record":
                return site.record(ticket, by)
            case "publish":
                return site.publish(ticket, by)
            case "reject":
                return site.reject(ticket, by, reason_of(step))
            case "cancel":
                return site.cancel(ticket)
            case "expire":
                return site.expire(ticket)
            case "close":
                return site.close(ticket)
            case "stranger closes":
                return site.close(ticket, closer=self.stranger)
            case "hire":
                return site.add_operator(self.operators[by].pubkey())
            case "fire":
                return site.remove_operator(by)
            case _:
                terms = self._terms(step)
                return site.update_queue(replace(TERMS, claim_required=terms["claim_required"]), paused=terms["paused"])

    @staticmethod
    def _terms(step: Step) -> dict[str, bool]:
        return {
            "require claims": {"claim_required": True, "paused": False},
            "require none": {"claim_required": False, "paused": False},
            "pause": {"claim_required": True, "paused": True},
        }[step.kind]

    def _count(self, pack: list[Step], got: str | None) -> None:
        if got is not None:
            self.seen[got] += 1
            return
        self.seen.update(f"{step.kind} done" for step in pack)
        self.seen["pack done"] += len(pack) > 1
        for step in pack:
            if step.kind == "submit":
                self.seen["second life"] += step.ticket in self.lived
                self.lived.add(step.ticket)

    def _check_lamports(self, outcome: Outcome) -> None:
        assert sum(outcome.post_balances) + outcome.fee_lamports == sum(outcome.pre_balances)
        expected = {
            **{self.payers[number].pubkey(): lamports for number, lamports in self.model.payers.items()},
            **{self.operators[number].pubkey(): lamports for number, lamports in self.model.operators.items()},
            **{self.tickets[number].address: lamports for number, lamports in self.model.at_address.items()},
            self.site.authority.pubkey(): self.model.authority,
        }
        got = dict(zip(outcome.accounts.keys, outcome.post_balances, strict=True))
        assert {key: got[key] for key in expected if key in got} == {
            key: lamports for key, lamports in expected.items() if key in got
        }

    def _check_payments(self, outcome: Outcome) -> None:
        """What operators have earned is what the events say, and each life of a request pays once."""
        due = 0
        for event in read_events(PROGRAM_ID, outcome.logs if outcome.ok else ()):
            match event:
                case RequestSubmitted():
                    self.fees[event.request, event.created_slot] = event.fee_lamports
                case InferenceRecorded():
                    due += self.fees.pop((event.request, event.created_slot))
        balances = zip(outcome.accounts.keys, outcome.pre_balances, outcome.post_balances, strict=True)
        assert sum(now - before for key, before, now in balances if key in self.operator_keys) == due

    def _check_headers(self) -> None:
        accounts = ((number, self.world.vm.account(ticket.address)) for number, ticket in enumerate(self.tickets))
        lives = {
            number: self._read(decode_header(account.data)) for number, account in accounts if account and account.data
        }
        assert lives == self.model.lives

    def _read(self, header: Header) -> Life:
        """The header in the model's words."""
        return Life(
            payer=self.payer_keys.index(header.refund_to),
            fee=header.fee_lamports,
            created=header.created_slot,
            deadline=header.deadline_slot,
            claim_required=header.claim_required,
            lease=header.lease_slots,
            retention=header.retention_slots,
            status=header.status,
            operator=self.operator_keys.index(header.operator) if header.operator != Pubkey.default() else None,
            lease_end=header.claim_expires_slot,
            settled=header.settled_slot,
            reason=header.reason,
            output_len=header.output_len,
        )

    def check_the_sum(self) -> None:
        assert self._sum() + self.burned_lamports == self.total_lamports

    def _sum(self) -> int:
        return sum(self.world.balance(address) for address in self.everything)


def reason_of(step: Step) -> int:
    return 0 if step.ttl == 9 else step.ttl


def describe(step: Step) -> str:
    return f"{step.kind} (ticket {step.ticket}, operator {step.operator}, payer {step.payer}, {step.fee}, {step.ttl})"
