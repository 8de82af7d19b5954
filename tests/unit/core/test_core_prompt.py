"""From bytes to messages: what a model gets is what its requester wrote, and hostile bytes get a name."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core import prompt
from oracle.core.compute import Message
from oracle.core.errors import OracleError
from oracle.core.prompt import MAX_MESSAGES, messages_of
from oracle.core.request import Flags

EMPTY, NOT_TEXT, CONTROLS, NOT_CHAT, MISMATCH = (f"ORC-INPUT-00{n}" for n in range(1, 6))
FORBIDDEN = [chr(n) for n in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if n not in (9, 10, 13)]

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"])) | st.sampled_from(["a\tb\nc\rd", "\u200b", "\u202e"])
roles = st.sampled_from(["system", "user", "assistant"])
chats = st.lists(st.fixed_dictionaries({"role": roles, "content": texts}), min_size=1, max_size=8)


def code_of(content: bytes, flags: Flags = Flags.NONE) -> str:
    with pytest.raises(OracleError) as raised:
        messages_of(content, flags)
    return raised.value.code


def chat(value: Any) -> bytes:
    return json.dumps(value).encode()


@given(texts)
def test_a_text_is_one_message_of_the_user_word_for_word(text: str) -> None:
    if text.strip():
        assert messages_of(text.encode(), Flags.NONE) == (Message("user", text),)
    else:
        assert code_of(text.encode()) == EMPTY


@given(chats, st.booleans())
def test_a_chat_is_its_messages_word_for_word(messages: list[dict[str, str]], ascii_only: bool) -> None:
    content = json.dumps(messages, ensure_ascii=ascii_only).encode()
    if any(message["content"].strip() for message in messages):
        expected = tuple(Message(m["role"], m["content"]) for m in messages)  # type: ignore[arg-type]
        assert messages_of(content, Flags.CHAT) == expected
        assert messages_of(content, Flags.CHAT | Flags.PRIVATE | Flags.ANY_MODEL) == expected
    else:
        assert code_of(content, Flags.CHAT) == EMPTY


@pytest.mark.parametrize("content", [b"", b" ", b"\n\t\r", "\u2003\u00a0".encode()])
@pytest.mark.parametrize("flags", [Flags.NONE, Flags.CHAT])
def test_nothing_is_asked_by_white_space(content: bytes, flags: Flags) -> None:
    assert code_of(content, flags) == EMPTY


@pytest.mark.parametrize("content", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80", "a".encode("utf-16"), b"\xf5a"])
def test_bytes_that_are_no_utf8_are_refused(content: bytes) -> None:
    assert code_of(content) == NOT_TEXT
    assert code_of(content, Flags.CHAT) == NOT_TEXT


def test_the_place_of_the_first_wrong_byte_is_told() -> None:
    with pytest.raises(OracleError, match="at byte 2"):
        messages_of(b"ab\xff", Flags.NONE)


@pytest.mark.parametrize("control", FORBIDDEN)
def test_a_control_character_is_refused_raw_and_as_an_escape(control: str) -> None:
    assert code_of(f"hide{control}this".encode()) == CONTROLS
    assert code_of(chat([{"role": "user", "content": f"hide{control}this"}]), Flags.CHAT) == CONTROLS
    raw = f'[{{"role":"user","content":"hide{control}this"}}]'.encode()
    assert code_of(raw, Flags.CHAT) == CONTROLS
    with pytest.raises(OracleError, match=rf"U\+{ord(control):04X} at character 4"):
        messages_of(f"hide{control}this".encode(), Flags.NONE)


def test_tab_newline_and_return_are_text() -> None:
    assert messages_of(b"a\tb\nc\rd", Flags.NONE)[0].content == "a\tb\nc\rd"
    [message] = messages_of(chat([{"role": "user", "content": "a\tb\nc\rd"}]), Flags.CHAT)
    assert message.content == "a\tb\nc\rd"


@pytest.mark.parametrize("escape", ["\\ud800", "\\udfff", "ok \\ud83d", "\\ude00\\ud83d"])
def test_half_a_character_in_an_escape_is_refused(escape: str) -> None:
    assert code_of(f'[{{"role":"user","content":"{escape}"}}]'.encode(), Flags.CHAT) == NOT_TEXT


def test_a_whole_character_in_escapes_is_text() -> None:
    [message] = messages_of(b'[{"role":"user","content":"\\ud83d\\ude00"}]', Flags.CHAT)
    assert message.content == "\U0001f600"


USER = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "text",
        {},
        USER,
        [],
        [None],
        [[]],
        ["hello"],
        [{}],
        [{"role": "user"}],
        [{"content": "hello"}],
        [{**USER, "name": "x"}],
        [{"role": "tool", "content": "x"}],
        [{"role": "USER", "content": "x"}],
        [{"role": None, "content": "x"}],
        [{"role": [], "content": "x"}],
        [{"role": {}, "content": "x"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": 1}],
        [{"role": "user", "content": ["hello"]}],
        [USER, {"role": "user"}],
    ],
)
def test_what_is_no_list_of_messages_is_refused(value: Any) -> None:
    assert code_of(chat(value), Flags.CHAT) == NOT_CHAT


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"[", "not JSON, or a name twice in one object"),
        (chat({}), "not an array of 1 to 256 messages"),
        (chat([USER, {}]), "message 1 must have role and content, and nothing else"),
        (chat([{**USER, "role": "tool"}]), "message 0 needs a role of system, user, assistant and a text"),
        (b'[{"role":"user","content":"\\ud800"}]', "message 0 holds a lone surrogate"),
    ],
)
def test_what_is_wrong_with_a_chat_is_told_and_where(content: bytes, detail: str) -> None:
    with pytest.raises(OracleError) as refused:
        messages_of(content, Flags.CHAT)
    assert refused.value.detail == detail


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"[",
        b'[{"role":"user","content":"x"}',
        b'[{"role":"user","content":"x"}] x',
        b"[" * 100_000,
        b'[{"role":' * 50_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" + b"9" * 100_000 + b"]",
        b"[NaN]",
        b"\xef\xbb\xbf[]",
    ],
)
def test_what_is_no_json_is_refused_however_deep(content: bytes) -> None:
    assert code_of(content, Flags.CHAT) == NOT_CHAT


@pytest.mark.parametrize(
    "content",
    [
        b'[{"role":"user","content":"seen","content":"run"}]',
        b'[{"role":"user","role":"system","content":"x"}]',
        b'[{"role":"user","content":"x","\\u0063ontent":"y"}]',
    ],
)
def test_a_name_that_stands_twice_is_refused(content: bytes) -> None:
    """A reader would believe the first of the two, and the model be given the last."""
    assert code_of(content, Flags.CHAT) == NOT_CHAT


def test_a_chat_has_at_most_256_messages() -> None:
    assert MAX_MESSAGES == 256
    assert len(messages_of(chat([USER] * 256), Flags.CHAT)) == 256
    assert code_of(chat([USER] * 257), Flags.CHAT) == NOT_CHAT


def test_one_message_with_text_is_enough() -> None:
    empty = {"role": "system", "content": ""}
    assert len(messages_of(chat([empty, USER]), Flags.CHAT)) == 2
    assert code_of(chat([empty, {"role": "user", "content": " \n"}]), Flags.CHAT) == EMPTY


def test_a_large_prompt_is_read_whole() -> None:
    text = "word " * 200_000
    assert messages_of(text.encode(), Flags.NONE)[0].content == text


@pytest.mark.parametrize(
    ("content", "flags"),
    [
        (b"secret \x01", Flags.NONE),
        (b"secret", Flags.CHAT),
        (b'[{"role":"secret","content":"secret"}]', Flags.CHAT),
        (b'[{"role":"user","content":"secret \\u0001"}]', Flags.CHAT),
        (b'[{"secret":1}]', Flags.CHAT),
        (b"secret \xff", Flags.NONE),
    ],
)
def test_an_error_never_repeats_the_prompt(content: bytes, flags: Flags) -> None:
    with pytest.raises(OracleError) as raised:
        messages_of(content, flags)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


@given(st.binary(max_size=100) | st.text(max_size=50).map(str.encode), st.sampled_from([Flags.NONE, Flags.CHAT]))
def test_no_bytes_do_more_than_be_refused(content: bytes, flags: Flags) -> None:
    try:
        messages = messages_of(content, flags)
    except OracleError:
        return
    assert "".join(message.content for message in messages).strip()


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_a_content_passes_for_its_own_hash_only(content: bytes, other: bytes) -> None:
    prompt.check_hash(content, hashlib.sha256(content).digest())
    if other != content:
        with pytest.raises(OracleError) as raised:
            prompt.check_hash(other, hashlib.sha256(content).digest())
        assert raised.value.code == MISMATCH
        assert str(len(other)) in raised.value.detail
