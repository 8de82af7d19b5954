"""Errors: one meaning for each code, a form that people can search for, and a way through processes and logs."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core import errors
from oracle.core.errors import CATALOGUE, ErrorCode, OracleError, Verdict, verdict_of

EXAMPLE = ErrorCode("ORC-EXAMPLE-001", "Example", "A test needs it.", "Nothing to do.", Verdict.UNKNOWN)
del CATALOGUE[EXAMPLE.code]  # the page of errors is made from the catalogue


@pytest.fixture(autouse=True)
def _catalogue_as_it_was() -> object:
    before = dict(CATALOGUE)
    yield
    CATALOGUE.clear()
    CATALOGUE.update(before)


@pytest.mark.parametrize(
    "code",
    ["", "ORC-1-001", "orc-room-001", "ORC-ROOM-1", "ORC-ROOM-0001", "ORC-room-001", "XORC-ROOM-001", "ORC-ROOM-001\n"],
)
def test_a_code_of_another_form_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        ErrorCode(code, "", "", "")


def test_a_code_means_one_thing() -> None:
    again = ErrorCode(EXAMPLE.code, EXAMPLE.title, EXAMPLE.cause, EXAMPLE.remedy, EXAMPLE.verdict)
    assert again == EXAMPLE
    ErrorCode("ORC-EXAMPLE-002", "Title", "Cause.", "Remedy.")
    for other in (("T", "Cause.", "Remedy."), ("Title", "C.", "Remedy."), ("Title", "Cause.", "R.")):
        with pytest.raises(ValueError, match="ORC-EXAMPLE-002 is declared twice"):
            ErrorCode("ORC-EXAMPLE-002", *other)
    with pytest.raises(ValueError, match="declared twice"):
        ErrorCode("ORC-EXAMPLE-002", "Title", "Cause.", "Remedy.", Verdict.RETRY)


def test_an_error_gives_up_unless_it_says_otherwise() -> None:
    assert ErrorCode("ORC-EXAMPLE-003", "Title", "Cause.", "Remedy.").verdict is Verdict.GIVE_UP


def test_an_error_says_its_code_its_title_and_what_was_met() -> None:
    assert str(EXAMPLE()) == "ORC-EXAMPLE-001 Example"
    error = EXAMPLE("this time", retry_after_seconds=2.5)
    assert str(error) == "ORC-EXAMPLE-001 Example: this time"
    assert (error.code, error.verdict, error.detail) == ("ORC-EXAMPLE-001", Verdict.UNKNOWN, "this time")
    assert (error.error, error.retry_after_seconds) == (EXAMPLE, 2.5)
    assert EXAMPLE().retry_after_seconds is None
    assert (error.args, OracleError(EXAMPLE).detail) == ((str(error),), "")


@given(st.text(), st.none() | st.floats(allow_nan=False))
def test_an_error_crosses_processes_and_copies_whole(detail: str, seconds: float | None) -> None:
    error = EXAMPLE(detail, retry_after_seconds=seconds)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert isinstance(twin, OracleError)
        assert (twin.error, twin.detail, twin.retry_after_seconds) == (EXAMPLE, detail, seconds)
        assert str(twin) == str(error)


def test_a_stored_code_tells_what_it_allows_and_an_unknown_one_may_be_tried_again() -> None:
    CATALOGUE.setdefault(EXAMPLE.code, EXAMPLE)
    assert verdict_of(EXAMPLE.code) is Verdict.UNKNOWN
    assert verdict_of(errors.LIFECYCLE_FORBIDDEN.code) is Verdict.GIVE_UP
    assert verdict_of("ORC-FUTURE-001") is Verdict.RETRY
    assert verdict_of(None) is Verdict.RETRY


def test_the_catalogue_holds_every_code_under_its_own_name() -> None:
    assert CATALOGUE["ORC-CORE-001"] is errors.LIFECYCLE_FORBIDDEN
    assert all(name == code.code for name, code in CATALOGUE.items())
