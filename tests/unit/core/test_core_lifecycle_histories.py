"""Histories of one request: whatever may befall it, and in whatever order, the table has the move that it takes.

The model knows facts and nothing of the table: what the chain says, what is known of the answer, what has been bought.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.core import lifecycle
from oracle.core.lifecycle import ENDED, RESTING, State

HISTORIES = 20 * settings().max_examples
OUTCOMES = {"answer": State.COMPUTED, "refusal": State.REFUSED}
SETTLED = {"answer": State.SETTLED, "refusal": State.REJECTED}
BY_OTHERS = (State.CANCELLED, State.EXPIRED, State.SUPERSEDED)


class Request:
    """A row and the account that it stands for."""

    def __init__(self, *, needs_claim: bool) -> None:
        self.state = State.SEEN
        self.needs_claim = needs_claim
        self.is_admitted = self.is_claimed = self.is_bought = self.is_final = False
        self.outcome: str | None = None

    def to(self, new: State) -> None:
        lifecycle.check(self.state, new)
        self.state = new

    def work(self) -> Iterator[Callable[[], None]]:
        """What the daemon may do next, or learn of what it has done; what is wanted comes first."""
        match self.state:
            case State.SEEN:
                yield self.is_let_in
                yield self.is_refused
            case State.ADMITTED:
                yield (lambda: self.to(State.CLAIMING)) if self.needs_claim else self.is_bought_for
                yield self.is_refused
            case State.CLAIMING:
                yield self.claim_lands
                yield self.goes_on  # the claim has failed
            case State.CLAIMED:
                yield self.is_bought_for
                yield self.is_refused
            case State.RUNNING:
                yield self.is_answered
                yield self.is_refused
                yield self.goes_on  # the job has failed, and there is another route
            case State.COMPUTED | State.REFUSED:
                yield lambda: self.to(State.SETTLING)
            case State.SETTLING:
                yield lambda: self.to(SETTLED[self.known])
                yield self.goes_on  # it was refused, and is released
            case State.PARKED:
                yield self.goes_on  # a person sends it back to work
            case State.DECLINED:
                yield self.begins_again

    def trouble(self) -> Iterator[Callable[[], None]]:
        """What others may do next: people, forks, the end of time."""
        if self.is_claimed and not self.is_final:
            yield self.fork_takes_the_claim
        if self.state in ENDED:
            if self.state is not State.VANISHED and not self.is_final:
                yield self.fork_takes_the_end
                yield from self.ends()
                yield self.becomes_final
        else:
            yield from self.ends()
            yield lambda: self.to(State.VANISHED)
            if self.state not in RESTING:
                yield lambda: self.to(State.PARKED)
                yield lambda: self.to(State.DECLINED)

    @property
    def known(self) -> str:
        assert self.outcome is not None
        return self.outcome

    def ends(self) -> Iterator[Callable[[], None]]:
        """By another's hand, or by ours before we know of it, as after a backup was restored."""
        for end in (*BY_OTHERS, State.SETTLED, State.REJECTED):
            if end is not self.state:
                yield lambda end=end: self.to(end)  # type: ignore[misc]

    def is_let_in(self) -> None:
        self.to(State.ADMITTED)
        self.is_admitted = True

    def begins_again(self) -> None:
        self.to(State.SEEN)
        self.is_admitted = False

    def is_refused(self) -> None:
        self.to(State.REFUSED)
        self.outcome = "refusal"

    def claim_lands(self) -> None:
        self.is_claimed = True
        self.to(OUTCOMES[self.outcome] if self.outcome else State.CLAIMED)

    def is_bought_for(self) -> None:
        assert self.is_admitted
        assert self.is_claimed or not self.needs_claim
        self.to(State.RUNNING)
        self.is_bought = True

    def is_answered(self) -> None:
        assert self.is_bought
        self.to(State.COMPUTED)
        self.outcome = "answer"

    def goes_on(self) -> None:
        """With what is at hand."""
        if self.outcome is not None:
            self.to(OUTCOMES[self.outcome])
        elif self.is_claimed:
            self.to(State.CLAIMED)
        else:
            self.to(State.ADMITTED if self.is_admitted else State.SEEN)

    def fork_takes_the_claim(self) -> None:
        self.is_claimed = False
        if self.state is State.CLAIMED:
            self.to(State.ADMITTED)
        elif self.state is State.SETTLING and self.outcome == "answer":
            self.to(State.CLAIMING)

    def fork_takes_the_end(self) -> None:
        if self.outcome is None:
            self.begins_again()
            self.is_claimed = False
        elif self.needs_claim and not self.is_claimed and self.outcome == "answer":
            self.to(State.CLAIMING)
        else:
            self.to(OUTCOMES[self.outcome])

    def becomes_final(self) -> None:
        self.is_final = True


@settings(max_examples=HISTORIES)
@given(st.booleans(), st.binary(min_size=20, max_size=60))
def test_in_every_history_the_table_has_the_move_and_an_end_is_one_step_away(needs_claim: bool, choices: bytes) -> None:
    request = Request(needs_claim=needs_claim)
    for choice in choices:
        work, trouble = list(request.work()), list(request.trouble())
        if not work and not trouble:
            assert request.state is State.VANISHED or request.is_final
            return
        # Mostly what is wanted, sometimes what is not: else few would get far.
        options = (work[:1] if choice < 144 else work if choice < 208 else trouble) or trouble or work
        options[choice % len(options)]()
        assert (request.state in ENDED) or lifecycle.successors(request.state) >= ENDED
        if request.state in OUTCOMES.values():
            assert OUTCOMES[request.known] is request.state


def test_a_request_that_meets_nothing_bad_is_settled() -> None:
    for needs_claim in (False, True):
        request, walked = Request(needs_claim=needs_claim), []
        while request.state not in ENDED:
            next(request.work())()
            walked.append(request.state)
        claim = [State.CLAIMING, State.CLAIMED] if needs_claim else []
        assert walked == [
            State.ADMITTED,
            *claim,
            State.RUNNING,
            State.COMPUTED,
            State.SETTLING,
            State.SETTLED,
        ]
