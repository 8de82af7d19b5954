"""Data queries: one canonical text, and nothing in them that two readers could read in two ways."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core import dataquery
from oracle.core.dataquery import DataQuery, compose, parse
from oracle.core.errors import OracleError
from oracle.core.prompt import messages_of
from oracle.core.request import Flags

FEATURES = "data://beemaps/features?at=11.575,48.137&radius=100&ask=What%20is%20the%20speed%20limit?"


def test_a_query_is_read_into_its_parts() -> None:
    query = parse(FEATURES)
    assert query == DataQuery(
        "beemaps", ("features",), (("at", "11.575,48.137"), ("radius", "100")), "What is the speed limit?"
    )
    assert (query.get("radius"), query.get("ask"), query.get("x")) == ("100", None, None)


def test_texts_that_mean_the_same_have_one_canonical_text() -> None:
    texts = [
        FEATURES,
        "data://beemaps/features?radius=100&ask=What%20is%20the%20speed%20limit%3f&at=11.575%2C48.137",
        "data://beemaps/features?ask=%57hat%20is%20the%20speed%20limit?&radius=100&at=11.575,48.137",
    ]
    assert {str(parse(text)) for text in texts} == {
        "data://beemaps/features?ask=What%20is%20the%20speed%20limit?&at=11.575,48.137&radius=100"
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data://",
        "data:/beemaps/features",
        "DATA://beemaps/features",
        "https://beemaps/features",
        "data://Beemaps/features",
        "data://bee.maps/features",
        "data://bee@maps/features",
        "data://beemaps:80/features",
        "data://beemaps",
        "data://beemaps/",
        "data://beemaps//features",
        "data://beemaps/features/",
        "data://beemaps/../features",
        "data://beemaps/.hidden",
        "data://beemaps/%2e%2e/features",
        "data://beemaps/a;b",
        "data://beemaps/a b",
        "data://beemaps/f#x",
        "data://beemaps/" + "/".join("abcdefghi"),
        "data://beemaps/" + "a" * 129,
        "data://beemaps/features?",
        "data://beemaps/features?a",
        "data://beemaps/features?a=",
        "data://beemaps/features?=1",
        "data://beemaps/features?a=1&",
        "data://beemaps/features?&a=1",
        "data://beemaps/features?a=1&a=1",
        "data://beemaps/features?ask=x&ask=y",
        "data://beemaps/features?A=1",
        "data://beemaps/features?a=1=2",
        "data://beemaps/features?a=one+two",
        "data://beemaps/features?a=%",
        "data://beemaps/features?a=%4",
        "data://beemaps/features?a=%zz",
        "data://beemaps/features?a=%ff",
        "data://beemaps/features?a=%ed%a0%80",
        "data://beemaps/features?a=%c0%80",
        "data://beemaps/features?a=%00",
        "data://beemaps/features?a=%0a",
        "data://beemaps/features?a=%c2%9b",
        "data://beemaps/features?a=%7f",
        "data://beemaps/features?a=é",
        "data://beemaps/features?a=<b>",
        "data://beemaps/features?a=1\n",
        "data://beemaps/features\n",
        "data://beemaps/features?a=" + "1" * 1024,
    ],
)
def test_a_text_that_leaves_a_doubt_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(OracleError) as caught:
        parse(text)
    assert caught.value.code == "ORC-DATA-001"
    assert len(text) < 12 or text.removeprefix("data://") not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("data://a/b?c=" + "1" * 1_012, "1025 characters, at most 1,024"),
        ("DATA://a/b", "it does not begin with data://"),
        ("data://A/b", "the network is 1 to 32 of a-z, 0-9 and -, and begins with a letter"),
        ("data://a/", "the path is 1 to 8 segments of A-Z, a-z, 0-9, -, _, ~ and inner dots"),
        ("data://a/b?c=1&c=2", "a parameter stands there twice"),
        ("data://a/b?C=1", "a parameter's name is 1 to 32 of a-z, 0-9 and _, and begins with a letter"),
        ("data://a/b?c=1=2", "the value of c is empty, or has a character that must be percent-encoded"),
        ("data://a/b?c=%ff", "the value of c is not UTF-8"),
        ("data://a/b?c=%00", "the value of c holds a control character"),
    ],
)
def test_a_refusal_says_what_is_wrong_with_a_text(text: str, detail: str) -> None:
    with pytest.raises(OracleError) as caught:
        parse(text)
    assert caught.value.detail == detail


def test_a_query_may_be_as_long_and_as_deep_as_is_said_and_ask_nothing() -> None:
    assert parse("data://a/b?c=" + "1" * 1_011).get("c") == "1" * 1_011
    assert parse("data://a/1/2/3/4/5/6/7/8").path == tuple("12345678")
    assert parse("data://a/b") == DataQuery("a", ("b",), (), "")
    assert compose("a", "b") == str(DataQuery("a", ("b",))) == "data://a/b"


words = st.text(min_size=1, max_size=40).filter(
    lambda text: not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text)
)
names = st.text(string.ascii_lowercase, min_size=1, max_size=8).filter(lambda name: name != "ask")
segments = st.from_regex(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,12}", fullmatch=True)


@given(st.lists(segments, min_size=1, max_size=4), st.dictionaries(names, words, max_size=3), words)
def test_what_is_composed_is_read_back(path: list[str], params: dict[str, str], ask: str) -> None:
    query = DataQuery("helium", tuple(path), tuple(sorted(params.items())), ask)
    if len(str(query)) > dataquery.MAX_QUERY_CHARACTERS:
        return
    assert parse(compose("helium", *path, ask=ask, params=params)) == query
    shouted = f"data://helium/{'/'.join(path)}?ask={quote(ask, safe='')}"
    assert parse(shouted).ask == ask


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, f"data://{text}", f"data://a/b?{text}", f"data://a/b?c={text}"):
        try:
            query = parse(candidate)
        except OracleError:
            continue
        assert parse(str(query)) == query


def test_the_model_is_shown_the_data_and_then_the_question() -> None:
    content = dataquery.prompt(parse("data://x/y?ask=Why?"), b'{"a":1}')
    assert messages_of(content, Flags.NONE)[0].content == '{"a":1}\n\nWhy?'
    assert dataquery.prompt(parse("data://x/y"), b'{"a":1}') == b'{"a":1}'


def test_a_question_is_added_once() -> None:
    asking = dataquery.with_question("data://x/y?b=1", "Is it 5 + 5?")
    assert asking == "data://x/y?ask=Is%20it%205%20%2B%205?&b=1"
    with pytest.raises(OracleError, match="ORC-DATA-001"):
        dataquery.with_question(asking, "Or not?")


def test_parameters_are_known_and_complete() -> None:
    query = parse("data://x/y?a=1&b=2")
    dataquery.check_params(query, required=["a"], optional=["b", "c"])
    for required, optional in (["a"], []), (["a", "b", "c"], []):
        with pytest.raises(OracleError, match="ORC-DATA-003"):
            dataquery.check_params(query, required=required, optional=optional)


@pytest.mark.parametrize(
    "value", ["1", "1,2,3", "1;2", "1,", "1e3,2", "+1,2", ".5,2", "1.,2", "0x1,2", "nan,1", "1, 2"]
)
def test_numbers_are_plain_decimals_of_the_right_count(value: str) -> None:
    query = DataQuery("x", ("y",), (("at", value),))
    with pytest.raises(OracleError, match="ORC-DATA-003"):
        dataquery.decimals(query, "at", 2)


@pytest.mark.parametrize(
    ("read", "detail"),
    [
        (lambda q: dataquery.with_question(str(q), "Or not?"), "it asks something already"),
        (lambda q: dataquery.check_params(q, required=["c", "b", "a"]), "b, c is missing"),
        (lambda q: dataquery.check_params(q), "a, limit is not a parameter of y/z"),
        (lambda q: dataquery.decimals(q, "a", 2), "a is 2 plain decimal numbers"),
        (lambda q: dataquery.decimals(q, "limit", 1), "limit is 1 plain decimal number"),
        (lambda q: dataquery.whole(q, "limit", least=1, most=7, default=1), "limit is a whole number from 1 to 7"),
        (lambda q: dataquery.one_of(q, "a", ("b", "c")), "a is one of b, c"),
        (
            lambda q: dataquery.fields(replace(q, params=(("fields", "d"),)), {"b", "a"}),
            "fields is some of a, b, each once",
        ),
    ],
)
def test_what_is_wrong_with_a_query_is_told(read: Callable[[DataQuery], object], detail: str) -> None:
    with pytest.raises(OracleError) as refused:
        read(parse("data://x/y/z?a=1&limit=x&ask=Is%20it?"))
    assert refused.value.detail == detail


def test_bounds_and_all_that_is_known_may_be_asked_for() -> None:
    query = parse("data://x/y?least=1&most=7&fields=a,b")
    assert dataquery.whole(query, "least", least=1, most=7, default=3) == 1
    assert dataquery.whole(query, "most", least=1, most=7, default=3) == 7
    assert dataquery.fields(query, {"a", "b"}) == {"a", "b"}


def test_numbers_choices_and_fields_are_read() -> None:
    query = parse("data://x/y?at=-11.5,48&limit=7&net=iot&fields=b,a")
    assert dataquery.decimals(query, "at", 2) == (-11.5, 48.0)
    assert dataquery.decimals(query, "box", 4) is None
    assert dataquery.whole(query, "limit", least=1, most=7, default=3) == 7
    assert dataquery.whole(query, "other", least=1, most=7, default=3) == 3
    assert dataquery.one_of(query, "net", ("iot", "mobile")) == "iot"
    assert dataquery.fields(query, {"a", "b", "c"}) == {"a", "b"}
    assert dataquery.fields(parse("data://x/y"), {"a", "b"}) == {"a", "b"}


@pytest.mark.parametrize("limit", ["8", "0", "07", "1.5", "-1", "²"])
def test_a_whole_number_out_of_bounds_is_refused(limit: str) -> None:
    query = DataQuery("x", ("y",), (("limit", limit),))
    with pytest.raises(OracleError, match="ORC-DATA-003"):
        dataquery.whole(query, "limit", least=1, most=7, default=3)


@pytest.mark.parametrize("params", [(), (("net", "Iot"),)])
def test_a_choice_must_be_made_among_the_choices(params: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(OracleError, match="ORC-DATA-003"):
        dataquery.one_of(DataQuery("x", ("y",), params), "net", ("iot", "mobile"))


@pytest.mark.parametrize("wanted", ["a,a", "d", "a,", "A"])
def test_only_known_fields_may_be_wanted(wanted: str) -> None:
    with pytest.raises(OracleError, match="ORC-DATA-003"):
        dataquery.fields(DataQuery("x", ("y",), (("fields", wanted),)), {"a", "b", "c"})
