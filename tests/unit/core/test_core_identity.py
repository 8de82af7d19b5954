"""Two purchases have two keys, and whoever repeats one derives the same."""

from __future__ import annotations

import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from oracle.core.identity import call_idempotency_key, idempotency_key, nonce_of
from oracle.core.request import RequestKey

addresses = st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", min_size=1, max_size=44)
purchases = st.tuples(
    addresses,
    st.builds(RequestKey, addresses, st.integers(0, 2**64 - 1)),
    st.integers(0, 100),
    st.integers(0, 10**6),
)


@given(purchases, purchases)
def test_purchases_share_a_key_only_if_they_are_the_same(one: tuple, other: tuple) -> None:  # type: ignore[type-arg]
    assert (idempotency_key(*one) == idempotency_key(*other)) == (one == other)


def test_neighbours_never_share_a_key() -> None:
    keys = {
        idempotency_key(operator, RequestKey(address, slot), lane, attempt)
        for operator in ("a", "a1")
        for address in ("a", "a1", "1a", "11")
        for slot in (0, 1, 11, 111)
        for lane in (0, 1, 11)
        for attempt in (1, 11, 111)
    }
    assert len(keys) == 2 * 4 * 4 * 3 * 3


@given(purchases)
def test_a_key_is_shaped_as_a_uuid_because_some_providers_take_nothing_else(purchase: tuple) -> None:  # type: ignore[type-arg]
    key = idempotency_key(*purchase)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", key)
    assert str(uuid.UUID(key)) == key


def test_a_key_never_changes_between_releases() -> None:
    """A purchase that was interrupted by an upgrade is looked up under the key it was made with."""
    operator = "BfqVpPQdc1zjyyeHUbWZqk9jK9R9vDG2BWxmBRY1GYWV"
    key = idempotency_key(operator, RequestKey("9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin", 321), 0, 2)
    assert key == "1bee915a-3587-c996-9982-d2f1a1f9749b"


def test_purchases_for_calls_share_no_key_with_one_another_or_with_those_for_requests() -> None:
    keys = [call_idempotency_key(call, number) for call in ("a", "a/1", "b") for number in (1, 11)]
    assert len({*keys, idempotency_key("operator", RequestKey("gateway", 1), 1, 1)}) == 7


def test_a_call_that_is_repeated_names_the_same_request_for_its_client_alone() -> None:
    assert nonce_of("alice", "order-1") == nonce_of("alice", "order-1")
    assert len({nonce_of("alice", "order-1"), nonce_of("alice", "order-2"), nonce_of("bob", "order-1")}) == 3


def test_a_nonce_never_changes_between_releases() -> None:
    """A client that repeats its call after an upgrade must find the answer that it has paid for."""
    assert nonce_of("alice", "order-1") == 5_089_178_188_321_450_536


@given(st.text(), st.text())
def test_a_nonce_fits_a_signed_column(client: str, key: str) -> None:
    assert 0 <= nonce_of(client, key) < 2**63
