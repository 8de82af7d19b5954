"""Which provider is asked next: routes are declared per model, and tried in the order of their policy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from oracle.core.compute import Capabilities, Quote
from oracle.core.policy import MODEL_NOT_ROUTED, NO_PRIVATE_ROUTE


class Strategy(StrEnum):
    ORDERED = "ordered"
    CHEAPEST = "cheapest"
    FASTEST = "fastest"


@dataclass(frozen=True, slots=True)
class Route:
    """One way to run a model. `model` is the provider's own name of it.

    `substitute` marks a route that runs *another* model than the one it stands under: refused unless the request
    allows any model, and then told in the receipt (law 9).

    `max_parallel_jobs` is how many paid jobs of one request may run at once, this one included (law 3). Another one is
    bought when the newest has taken longer than `hedge_percentile` of those measured, or, where too few are measured,
    longer than `hedge_after_seconds`.
    """

    provider: str
    model: str
    max_cost_lamports: int | None = None
    timeout_seconds: float = 120.0
    max_attempts: int = 2
    substitute: bool = False
    max_parallel_jobs: int = 1
    hedge_percentile: float = 0.95
    hedge_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """The routes of one model, as configured."""

    routes: tuple[Route, ...]
    strategy: Strategy = Strategy.ORDERED


def candidates(
    model: str,
    table: Mapping[str, ModelRoutes],
    capabilities: Mapping[str, Capabilities],
    *,
    private: bool,
    any_model: bool,
) -> tuple[Route, ...]:
    """Routes that may serve the request, in declared order. Raises ORC-POLICY-005 or 006 where there is none."""
    declared = table.get(model)
    routes = declared.routes if declared else ()
    if any_model and not routes:
        routes = tuple(route for other in table.values() for route in other.routes)
    elif not any_model:
        routes = tuple(route for route in routes if not route.substitute)
    if not routes:
        raise MODEL_NOT_ROUTED(f"model {model!r}")
    if private:
        routes = tuple(route for route in routes if not capabilities[route.provider].prompts_public)
        if not routes:
            raise NO_PRIVATE_ROUTE(f"model {model!r}")
    return routes


def ranked(
    routes: Sequence[Route],
    strategy: Strategy,
    quotes: Mapping[Route, Quote],
    seconds: Mapping[Route, float],
) -> tuple[Route, ...]:
    """`routes` in the order in which they are tried, without those over their own price cap.

    A route without a quote is not tried by price, and one without a measured latency counts as its time-out:
    an unknown route must never win against a known one.
    """
    affordable = [
        route
        for route in routes
        if route in quotes
        and (route.max_cost_lamports is None or quotes[route].cost_lamports <= route.max_cost_lamports)
    ]
    match strategy:
        case Strategy.ORDERED:
            return tuple(affordable)
        case Strategy.CHEAPEST:
            return tuple(sorted(affordable, key=lambda route: quotes[route].cost_lamports))
        case Strategy.FASTEST:
            return tuple(sorted(affordable, key=lambda route: seconds.get(route, route.timeout_seconds)))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` of `values` lie (nearest rank); None of no values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def may_hedge(live: Sequence[Route], candidate: Route) -> bool:
    """Whether `candidate` may be bought beside the jobs that run: every one of their routes must say so."""
    return all(route.max_parallel_jobs > len(live) for route in (*live, candidate))


def is_slow(route: Route, seconds: float, measured: Sequence[float]) -> bool:
    """Whether a job that has run for so long is slower than its route usually is."""
    usual = percentile(measured, route.hedge_percentile)
    patience = route.hedge_after_seconds if usual is None else usual
    return patience is not None and seconds > patience


# Behind the name: the date or number of a snapshot, a revision, `latest`, or the quantisation of a weights file.
# Never a word: gpt-4o-mini is not gpt-4o, llama3:70b not llama3, and llama-guard not llama.
_SNAPSHOT: Final = re.compile(
    r"-\d{4}-\d{2}-\d{2}|[-@](\d{8}|\d{6}|\d{4}|0\d\d)|@[0-9a-f]{7,40}|[-:@]latest|[-.](i?q\d(_\w+)?|b?f16|fp16|f32)",
    re.ASCII,
)
_WEIGHTS: Final = ".gguf"


def is_same_model(expected: str, reported: str) -> bool:
    """Whether the model that a provider says it ran is the one its route names.

    Providers report a path, a file name or a dated snapshot of the name they were given; anything else is another
    model, and passing it off as the one that was asked for would break law 9.
    """
    want, got = (model.casefold().replace("\\", "/") for model in (expected, reported))
    if got == want:
        return True
    (owner, name), (other_owner, other_name) = _owner_and_name(want), _owner_and_name(got)
    if not name or (owner and other_owner and owner != other_owner):
        return False
    return other_name == name or (
        other_name.startswith(name) and _SNAPSHOT.fullmatch(other_name, len(name)) is not None
    )


def _owner_and_name(model: str) -> tuple[str, str]:
    """The two halves of `owner/name`; of the path of a file, whose directories say nothing, only the name."""
    owner, _, name = model.rpartition("/")
    is_path = model.startswith(("/", ".", "~")) or name.endswith(_WEIGHTS)
    return "" if is_path else owner, name.removesuffix(_WEIGHTS)
