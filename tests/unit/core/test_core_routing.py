"""Routes: private prompts stay private, a cap is a cap, and no other model passes for the one that was asked for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core import routing
from oracle.core.compute import Capabilities, Money, Quote, Recovery
from oracle.core.errors import OracleError
from oracle.core.routing import (
    ModelRoutes,
    Route,
    Strategy,
    is_same_model,
    is_slow,
    may_hedge,
    percentile,
    ranked,
)

PROVIDERS = ("open", "closed", "public")
CAPABILITIES = {name: Capabilities(Recovery.REPEAT, prompts_public=name == "public") for name in PROVIDERS}

some_route = st.builds(
    Route,
    provider=st.sampled_from(PROVIDERS),
    model=st.sampled_from(["a", "b", "c"]),
    max_cost_lamports=st.none() | st.integers(0, 20),
    timeout_seconds=st.floats(0.5, 30),
    substitute=st.booleans(),
)
some_routes = st.lists(some_route, max_size=6, unique=True).map(tuple)
tables = st.dictionaries(st.sampled_from(["llama", "qwen", "phi"]), some_routes.map(ModelRoutes), max_size=3)


def found(model: str, table: dict[str, ModelRoutes], *, private: bool = False, any_model: bool = False) -> object:
    """The routes, or the code of the refusal."""
    try:
        return routing.candidates(model, table, CAPABILITIES, private=private, any_model=any_model)
    except OracleError as error:
        return error.code


@given(tables, st.booleans(), st.booleans())
def test_a_private_prompt_never_meets_a_provider_that_publishes_it(
    table: dict[str, ModelRoutes], private: bool, any_model: bool
) -> None:
    routes = found("llama", table, private=private, any_model=any_model)
    if private and isinstance(routes, tuple):
        assert all(not CAPABILITIES[route.provider].prompts_public for route in routes)


@given(tables, st.booleans())
def test_another_model_runs_only_where_the_request_allows_any(table: dict[str, ModelRoutes], private: bool) -> None:
    routes = found("llama", table, private=private)
    if isinstance(routes, tuple):
        assert set(routes) <= set(table["llama"].routes)
        assert not any(route.substitute for route in routes)


@given(tables, st.booleans(), st.booleans())
def test_routes_come_in_declared_order_and_none_is_lost(
    table: dict[str, ModelRoutes], private: bool, any_model: bool
) -> None:
    declared = table["llama"].routes if "llama" in table else ()
    if any_model:
        allowed = declared or tuple(route for other in table.values() for route in other.routes)
    else:
        allowed = tuple(route for route in declared if not route.substitute)
    kept = tuple(route for route in allowed if not private or route.provider != "public")
    expected = kept or ("ORC-POLICY-006" if allowed else "ORC-POLICY-005")
    assert found("llama", table, private=private, any_model=any_model) == expected


def quote(cost_lamports: int) -> Quote:
    return Quote(cost_lamports, Money(float(cost_lamports), "lamports"))


@given(st.data(), some_routes, st.sampled_from(Strategy))
def test_every_affordable_route_is_tried_once_in_the_order_of_its_strategy(
    data: st.DataObject, routes: tuple[Route, ...], strategy: Strategy
) -> None:
    some = st.sampled_from(routes) if routes else st.nothing()
    quotes = data.draw(st.dictionaries(some, st.integers(0, 30).map(quote)))
    seconds = data.draw(st.dictionaries(some, st.floats(0, 40)))
    order = ranked(routes, strategy, quotes, seconds)
    affordable = [
        route
        for route in routes
        if route in quotes
        and (route.max_cost_lamports is None or quotes[route].cost_lamports <= route.max_cost_lamports)
    ]
    weights = {
        Strategy.ORDERED: lambda route: 0.0,
        Strategy.CHEAPEST: lambda route: float(quotes[route].cost_lamports),
        Strategy.FASTEST: lambda route: seconds.get(route, route.timeout_seconds),
    }
    # Stable: equals keep the order in which they were declared.
    assert list(order) == sorted(affordable, key=weights[strategy])


def test_a_cap_may_be_reached_but_not_passed() -> None:
    route = Route("open", "a", max_cost_lamports=10)
    assert ranked([route], Strategy.ORDERED, {route: quote(10)}, {}) == (route,)
    assert ranked([route], Strategy.ORDERED, {route: quote(11)}, {}) == ()


def test_an_unknown_route_never_wins_against_a_known_one() -> None:
    known, unknown, slow = Route("open", "a"), Route("open", "b", timeout_seconds=9.0), Route("open", "c")
    quotes = {known: quote(5), unknown: quote(0), slow: quote(0)}
    assert ranked([unknown, known, slow], Strategy.FASTEST, quotes, {known: 8.0, slow: 10.0}) == (known, unknown, slow)
    assert ranked([unknown, known], Strategy.CHEAPEST, {known: quote(5)}, {}) == (known,)


def test_a_route_is_ordered_with_two_attempts_and_two_minutes_unless_it_says_otherwise() -> None:
    route = Route("open", "a")
    assert (route.max_cost_lamports, route.timeout_seconds, route.max_attempts, route.substitute) == (
        None,
        120,
        2,
        False,
    )
    assert ModelRoutes(()).strategy is Strategy.ORDERED


def test_the_cheapest_is_tried_first_and_equals_as_they_are_declared() -> None:
    dear, cheap, equal = Route("open", "a"), Route("open", "b"), Route("closed", "a")
    quotes = {dear: quote(3), cheap: quote(2), equal: quote(2)}
    assert ranked([dear, cheap, equal], Strategy.CHEAPEST, quotes, {}) == (cheap, equal, dear)
    assert ranked([equal, dear, cheap], Strategy.CHEAPEST, quotes, {}) == (equal, cheap, dear)


def test_a_refusal_names_the_model_that_was_asked_for() -> None:
    public = {"llama": ModelRoutes((Route("public", "a"),))}
    for table, private, detail in (({}, False, "model 'llama'"), (public, True, "model 'llama'")):
        with pytest.raises(OracleError) as raised:
            routing.candidates("llama", table, CAPABILITIES, private=private, any_model=False)
        assert raised.value.detail == detail


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0, 1))
def test_a_percentile_has_its_share_of_values_at_or_below_it(values: list[int], share: float) -> None:
    value = percentile([float(v) for v in values], share)
    assert value is not None
    assert value in values
    at_or_below = sum(v <= value for v in values)
    assert at_or_below >= math.floor(len(values) * share)
    assert sum(v < value for v in values) <= math.floor(len(values) * share)


def test_the_percentiles_of_a_hundred_values() -> None:
    values = [float(n) for n in range(100)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.95, 1.0)] == [0.0, 50.0, 95.0, 99.0]
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.95) == 3.0


SAME = [
    ("gpt-4o", "gpt-4o"),
    ("gpt-4o", "GPT-4o"),
    ("gpt-4o", "gpt-4o-2024-08-06"),
    ("gpt-4", "gpt-4-0613"),
    ("claude-3-5-sonnet", "claude-3-5-sonnet-20240620"),
    ("claude-3-5-sonnet", "claude-3-5-sonnet@20240620"),
    ("gemini-1.5-pro", "gemini-1.5-pro-002"),
    ("gemini-1.5-pro", "models/gemini-1.5-pro"),
    ("codestral", "codestral-latest"),
    ("llama3", "llama3:latest"),
    ("org/model", "org/model@9f3a2b1c"),
    ("meta-llama/Llama-3.3-70B-Instruct", "Llama-3.3-70B-Instruct"),
    ("Llama-3.3-70B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"),
    ("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct-Q8_0.gguf"),
    ("SmolLM2-135M-Instruct", "/models/SmolLM2-135M-Instruct.Q4_K_M.gguf"),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "/cache/hub/SmolLM2-135M-Instruct-q8_0.gguf"),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "/models/SmolLM2-135M-Instruct"),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "./models/SmolLM2-135M-Instruct"),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "~/models/SmolLM2-135M-Instruct"),
    ("SmolLM2-135M-Instruct", "C:\\models\\SmolLM2-135M-Instruct-F16.gguf"),
    ("SmolLM2-135M-Instruct.gguf", "SmolLM2-135M-Instruct"),
    ("qwen3:8b", "qwen3:8b"),
]
OTHER = [
    ("gpt-4o", "gpt-4o-mini"),
    ("gpt-4o", "gpt-4o-mini-2024-07-18"),
    ("gpt-4", "gpt-4o"),
    ("gpt-4", "gpt-4.1"),
    ("gpt-4", "gpt-4-turbo"),
    ("gpt-4-turbo", "gpt-4"),
    ("llama", "llama-guard"),
    ("llama3", "llama3:8b"),
    ("llama3:70b", "llama3:8b"),
    ("qwen3:8b", "qwen3"),
    ("Llama-3", "Llama-3-8B"),
    ("Llama-3-8B", "Llama-3-70B"),
    ("Llama-3-8B", "Llama-3-8B-Instruct"),
    ("Llama-3-8B-Instruct", "Llama-3-8B"),
    ("Llama-3-8B", "Llama-3-8B-uncensored"),
    ("meta-llama/Llama-3-8B", "unsloth/Llama-3-8B"),
    ("meta-llama/Llama-3-8B", "attacker/meta-llama/Llama-3-8B"),
    ("SmolLM2-135M", "SmolLM2-1350M"),
    ("phi-3", "phi-3.5"),
    ("phi-3", "phi-35"),
    ("mixtral-8x7b", "mixtral-8x22b"),
    ("gpt-4o", ""),
    ("", "gpt-4o"),
    ("", "-0613"),
    ("org/", "other/-0613"),
    ("gpt-4o", "not-gpt-4o"),
    ("gpt-4o", "gpt-4o-2024-08-06-mini"),
    ("gpt-4o", "gpt-4o\n"),
    ("gpt-4o", "gpt-4o-0613\n"),
    ("gpt-4o", "gpt-4o-\u0660\u0666\u0661\u0663"),
]


@pytest.mark.parametrize(("expected", "reported"), SAME)
def test_a_path_a_file_and_a_snapshot_are_the_model_they_name(expected: str, reported: str) -> None:
    assert is_same_model(expected, reported)


@pytest.mark.parametrize(("expected", "reported"), OTHER)
def test_a_sibling_a_size_or_a_tune_is_another_model(expected: str, reported: str) -> None:
    assert not is_same_model(expected, reported)


names = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9.]{1,6}){0,3}", fullmatch=True)


@given(names, names)
def test_two_names_are_the_same_model_only_if_one_begins_with_the_other(one: str, other: str) -> None:
    if is_same_model(one, other):
        assert other.startswith(one)


@given(names, st.text(st.characters(categories=["Ll", "Lu"]), min_size=1, max_size=10))
def test_a_word_behind_a_name_makes_another_model(name: str, word: str) -> None:
    if word.casefold() not in ("latest",):
        assert not is_same_model(name, f"{name}-{word}")


@given(st.text(max_size=40), st.text(max_size=40))
def test_every_model_is_itself_and_no_text_does_harm(one: str, other: str) -> None:
    assert is_same_model(one, one)
    assert is_same_model(one, other) in (True, False)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 4))
def test_a_rival_is_bought_only_where_every_route_concerned_allows_as_many_jobs(live: list[int], own: int) -> None:
    routes = [Route("p", str(n), max_parallel_jobs=most) for n, most in enumerate(live)]
    allowed = may_hedge(routes, Route("p", "rival", max_parallel_jobs=own))
    assert allowed == (min([*live, own]) >= len(live) + 1)


def test_routes_run_one_job_at_a_time_unless_they_say_otherwise() -> None:
    assert not may_hedge([Route("p", "m")], Route("q", "m", max_parallel_jobs=4))
    assert not may_hedge([Route("p", "m", max_parallel_jobs=4)], Route("q", "m"))


def test_a_job_is_slow_past_its_percentile_and_where_none_is_measured_past_what_is_configured() -> None:
    seconds = [float(n) for n in range(100)]
    assert [is_slow(Route("p", "m"), age, seconds) for age in (95.0, 95.1)] == [False, True]
    assert not is_slow(Route("p", "m"), 1e9, ())
    assert is_slow(Route("p", "m", hedge_after_seconds=2.0), 2.5, ())
    assert not is_slow(Route("p", "m", hedge_after_seconds=2.0), 2.5, seconds)
