"""What is shown of a text from outside is text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core.text import harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Tokyo, 東京 🗼", "Tokyo, 東京 🗼"),
        ("", ""),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnirts", r"\u202egnirts"),
        ("half \ud83d smile", "half ? smile"),
    ],
)
def test_controls_are_written_as_escapes(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_only_controls_are_ever_written_otherwise() -> None:
    assert harmless("\x1bXOXO") == r"\x1bXOXO"


def test_line_ends_may_be_kept_where_they_are_wanted() -> None:
    assert harmless("a\n\tb\r\x1b", keep="\n\t") == "a\n\tb\\r\\x1b"


@given(st.text())
def test_nothing_that_drives_a_terminal_is_left(text: str) -> None:
    shown = harmless(text)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in shown)
    shown.encode()
    assert harmless(shown) == shown
