"""What is read of a price is believed with care, and for a time."""

from __future__ import annotations

from decimal import Decimal

import hypothesis.strategies as st
from hypothesis import given

from oracle.core.price import Price, PriceTerms, Verdict

TERMS = PriceTerms(Decimal(10), Decimal(1_000), Decimal("0.2"), max_age_seconds=600.0)
READINGS = st.lists(
    st.tuples(
        st.decimals(allow_nan=True, allow_infinity=True) | st.integers(1, 1_200).map(Decimal), st.integers(0, 900)
    ),
    max_size=30,
)


def heard(price: Price, *readings: int) -> list[Verdict]:
    return [price.hear(Decimal(usd), now) for now, usd in enumerate(readings)]


def test_small_changes_are_believed_at_once() -> None:
    price = Price(TERMS)
    assert set(heard(price, 100, 120, 100, 90)) == {Verdict.BELIEVED}
    assert price.current(3.0) == 90


def test_a_jump_is_believed_when_the_next_reading_confirms_it() -> None:
    price = Price(TERMS)
    assert heard(price, 100, 200) == [Verdict.BELIEVED, Verdict.DOUBTED]
    assert price.current(2.0) == 100
    assert price.hear(Decimal(210), 2.0) is Verdict.BELIEVED
    assert price.current(2.0) == 210


def test_a_jump_that_is_taken_back_leaves_the_price_as_it_was() -> None:
    price = Price(TERMS)
    heard(price, 100, 200, 101)
    assert (price.usd, price.doubted) == (101, None)
    assert price.hear(Decimal(200), 9.0) is Verdict.DOUBTED


def test_jumps_that_contradict_each_other_are_not_believed() -> None:
    price = Price(TERMS)
    assert heard(price, 100, 200, 400, 200)[1:] == [Verdict.DOUBTED] * 3
    assert price.usd == 100


def test_what_lies_beyond_the_bounds_is_never_believed_nor_does_it_confirm_anything() -> None:
    price = Price(TERMS)
    assert heard(price, 100, 200, 5_000, 200)[1:] == [Verdict.DOUBTED, Verdict.OUT_OF_BOUNDS, Verdict.DOUBTED]
    assert heard(Price(TERMS), 9, 9, 1_001, 0, -5) == [Verdict.OUT_OF_BOUNDS] * 5


def test_a_bound_may_be_reached_and_what_lies_beyond_it_is_forgotten_at_once() -> None:
    assert heard(Price(TERMS), 10) == heard(Price(TERMS), 1_000) == [Verdict.BELIEVED]
    for odd in ("9.99", "1000.01", "NaN", "Infinity"):
        price = Price(TERMS)
        heard(price, 100, 200)
        assert price.hear(Decimal(odd), 7.0) is Verdict.OUT_OF_BOUNDS
        assert price == Price(TERMS, Decimal(100), believed_at=0.0, doubted=None)


def test_a_reading_says_when_it_was_believed_and_how_old_it_is() -> None:
    price = Price(TERMS)
    assert (price.current(0.0), price.hear(Decimal(100), 7.0)) == (None, Verdict.BELIEVED)
    assert price == Price(TERMS, Decimal(100), believed_at=7.0, doubted=None)
    assert (price.age_seconds(19.0), price.is_old(607.0), price.is_old(607.1)) == (12.0, False, True)


def test_up_by_a_fifth_and_down_by_a_sixth_are_one_change() -> None:
    assert heard(Price(TERMS), 100, 120) == heard(Price(TERMS), 120, 100) == [Verdict.BELIEVED] * 2
    assert heard(Price(TERMS), 100, 121) == heard(Price(TERMS), 121, 100) == [Verdict.BELIEVED, Verdict.DOUBTED]


def test_a_price_serves_for_its_time_counted_from_when_it_was_believed() -> None:
    price = Price(TERMS, Decimal(100), believed_at=50.0)
    assert (price.current(650.0), price.current(650.1)) == (100, None)
    price.hear(Decimal(200), 640.0)
    assert price.current(651.0) is None, "a reading that is doubted makes the price before it no younger"


def test_a_configured_price_without_an_age_serves_for_ever() -> None:
    assert Price(PriceTerms(Decimal(1), Decimal(9)), Decimal(5)).current(1e12) == 5


@given(READINGS, st.none() | st.integers(10, 1_000).map(Decimal))
def test_whatever_is_read_the_price_moves_within_its_bounds_and_jumps_only_when_two_readings_agree(
    readings: list[tuple[Decimal, int]], start: Decimal | None
) -> None:
    price, now, last_believed, in_bounds = Price(TERMS, start), 0.0, 0.0, [start]
    for usd, passed in readings:
        before, now = price.usd, now + passed
        verdict = price.hear(usd, now)
        if verdict is Verdict.BELIEVED:
            last_believed = now
            near = [known for known in (before, in_bounds[-1]) if known is not None]
            assert not near or any(max(known, usd) / min(known, usd) <= Decimal("1.2000001") for known in near)
        else:
            assert price.usd == before
        in_bounds.append(usd if usd.is_finite() and 10 <= usd <= 1_000 else None)
        assert (verdict is Verdict.OUT_OF_BOUNDS) == (in_bounds[-1] is None)
        current = price.current(now)
        assert current is None or (10 <= current <= 1_000 and now - last_believed <= 600)
