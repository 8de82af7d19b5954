"""JSON pointers name what RFC 6901 says."""

from __future__ import annotations

from typing import Any

import pytest

from oracle.core.json_pointer import is_pointer, resolve

# The examples of RFC 6901 §5.
DOCUMENT: Any = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_examples_of_the_rfc(pointer: str, value: Any) -> None:
    assert is_pointer(pointer)
    assert resolve(DOCUMENT, pointer) == value


def test_a_value_may_lie_deep_and_an_escape_is_read_once() -> None:
    assert resolve({"a": [{"b~1": {"/": [5, 6]}}]}, "/a/0/b~01/~1/1") == 6


@pytest.mark.parametrize("document", ["text", b"bytes", 7, None])
def test_there_is_nothing_inside_of_what_is_neither_object_nor_array_and_the_error_names_it(document: Any) -> None:
    with pytest.raises(LookupError) as caught:
        resolve({"a": document}, "/a/0")
    assert caught.value.args == ("0",)


@pytest.mark.parametrize("pointer", ["/none", "/foo/2", "/foo/00", "/foo/-", "/foo/-1", "/foo/x", "/foo/0/0", "/foo/٣"])
def test_what_is_not_there_is_a_lookup_error(pointer: str) -> None:
    with pytest.raises(LookupError):
        resolve(DOCUMENT, pointer)


@pytest.mark.parametrize("text", ["foo", "/~", "/~2", "/a~"])
def test_what_is_no_pointer_is_told(text: str) -> None:
    assert not is_pointer(text)
