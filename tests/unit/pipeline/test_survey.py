"""What an answer says of a provider: whether somebody is there, and whether the key was taken."""

from __future__ import annotations

import pytest

from oracle.core.errors import ErrorCode
from oracle.pipeline.errors import PROVIDER_SILENT
from oracle.pipeline.survey import standing
from oracle.providers import errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.UNREACHABLE, (False, None)),
        (errors.UNREADABLE_ANSWER, (False, None)),
        (errors.WRONG_ADDRESS, (False, None)),
        (PROVIDER_SILENT, (False, None)),
        (errors.UNAVAILABLE, (True, None)),
        (errors.RATE_LIMITED, (True, None)),
        (errors.CREDENTIALS_REFUSED, (True, False)),
        (errors.NOT_PERMITTED, (True, True)),
        (errors.OUT_OF_CREDIT, (True, True)),
        (errors.SECRET_MISSING, (None, None)),
    ],
)
def test_an_error_tells_of_reach_and_key_only_what_it_proves(
    error: ErrorCode, expected: tuple[bool | None, bool | None]
) -> None:
    assert standing(error(), keyed=True) == expected


def test_a_good_answer_proves_the_key_only_where_one_was_asked_for() -> None:
    assert standing(None, keyed=True) == (True, True)
    assert standing(None, keyed=False) == (True, None)
    assert standing(errors.OUT_OF_CREDIT(), keyed=False) == (True, None)
