"""What `oracle submit` makes of a prompt, a URI and a data query."""

from __future__ import annotations

import hashlib

import pytest
import typer

from oracle.cli.submit import _input
from oracle.core.errors import OracleError
from oracle.core.request import Data, Inline, Uri

QUERY = "data://beemaps/features?at=11.575,48.137&radius=100"


def test_a_prompt_beside_a_query_is_the_question_about_the_data() -> None:
    asked = "data://beemaps/features?ask=What%20is%20the%20limit?&at=11.575,48.137&radius=100"
    assert _input("What is the limit?", None, None, QUERY) == Data(asked, hashlib.sha256(asked.encode()).digest())
    assert _input(None, None, None, QUERY) == Data(QUERY, hashlib.sha256(QUERY.encode()).digest())


def test_a_query_that_no_operator_could_read_is_not_submitted() -> None:
    for query, prompt in (("data://beemaps", None), (f"{QUERY}&ask=Why?", "Or not?"), (QUERY, "a\nb")):
        with pytest.raises(OracleError, match="ORC-DATA-001"):
            _input(prompt, None, None, query)


def test_a_uri_stands_for_the_whole_input() -> None:
    assert _input(None, "https://a.example/", "00" * 32, None) == Uri("https://a.example/", bytes(32))
    assert _input("Why?", None, None, None) == Inline(b"Why?")
    for prompt, uri, data in (
        (None, None, None),
        ("Why?", "https://a.example/", None),
        (None, "https://a.example/", QUERY),
    ):
        with pytest.raises(typer.BadParameter):
            _input(prompt, uri, "00" * 32, data)
