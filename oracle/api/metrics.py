"""Prometheus metrics: read from the database and the context at each scrape, so that they survive a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Connection

from oracle.api import cluster_metrics
from oracle.core.lifecycle import State
from oracle.core.routing import percentile
from oracle.pipeline import choice
from oracle.pipeline.context import Context
from oracle.providers.price_feed import LiveRates
from oracle.store import ledger, requests
from oracle.store.schema import LedgerKind


async def render(context: Context) -> tuple[bytes, str]:
    """The exposition text and its media type."""

    def read(c: Connection) -> tuple[dict[State, int], dict[LedgerKind, int]]:
        return requests.counts(c), {kind: ledger.sum(c, kind=kind) for kind in LedgerKind}

    counts, sums = await context.store.read(read)
    routes = {(route.provider, route.model) for model in context.routes.values() for route in model.routes}
    seconds = {route: await choice.measured(context, *route) for route in sorted(routes)}
    settling = await choice.measured_settling(context)
    registry = CollectorRegistry()
    registry.register(
        _Collected([*_families(context, counts, sums), *_of_providers(context, seconds), *_settling(settling)])
    )
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _families(context: Context, counts: dict[State, int], sums: dict[LedgerKind, int]) -> Iterator[Metric]:
    states = GaugeMetricFamily("oracle_requests", "Requests by state.", labels=["state"])
    for state, count in counts.items():
        states.add_metric([state], count)
    yield states
    money = GaugeMetricFamily(
        "oracle_ledger_lamports", "Lamports booked so far, money out negative, by kind.", labels=["kind"]
    )
    for kind, lamports in sums.items():
        money.add_metric([kind], lamports)
    yield money
    yield GaugeMetricFamily("oracle_slot", "Current slot, as estimated.", value=context.slot())
    yield GaugeMetricFamily("oracle_slot_seconds", "Measured length of a slot.", value=context.slots.slot_seconds)
    yield CounterMetricFamily("oracle_commits", "Database commits of this process.", value=context.store.commits)
    restarts = CounterMetricFamily("oracle_loop_restarts", "Loops that died and were restarted.", labels=["loop"])
    for name, count in context.restarts.items():
        restarts.add_metric([name], count)
    yield restarts
    yield from cluster_metrics.families(context)


def _of_providers(context: Context, seconds: Mapping[tuple[str, str], Sequence[float]]) -> Iterator[Metric]:
    breakers = context.breakers
    paused = GaugeMetricFamily("oracle_provider_paused", "1 where nothing is bought from it now.", labels=["provider"])
    opened = CounterMetricFamily("oracle_breaker_opened", "How often its breaker has opened.", labels=["provider"])
    for name, breaker in breakers.by_provider.items():
        paused.add_metric([name], float(breakers.why(name) is not None))
        opened.add_metric([name], breaker.opened)
    yield paused
    yield opened
    yield GaugeMetricFamily(
        "oracle_wallet_low", "1 while nothing is bought for want of SOL.", value=float(breakers.wallet is not None)
    )
    took = GaugeMetricFamily(
        "oracle_job_seconds",
        "Seconds that the newest hundred jobs took, where at least five have succeeded.",
        labels=["provider", "model", "quantile"],
    )
    for (provider, model), values in seconds.items():
        for share in (0.5, 0.95):
            if (value := percentile(values, share)) is not None:
                took.add_metric([provider, model, str(share)], value)
    yield took
    yield from _prices(context.rates)


def _settling(seconds: Sequence[float]) -> Iterator[Metric]:
    took = GaugeMetricFamily(
        "oracle_settling_seconds",
        "Seconds from the answer to the landed settlement, of the newest hundred of the last hour, from five on.",
        labels=["quantile"],
    )
    for share in (0.5, 0.95):
        if (value := percentile(seconds, share)) is not None:
            took.add_metric([str(share)], value)
    yield took


def _prices(rates: LiveRates) -> Iterator[Metric]:
    usd = GaugeMetricFamily("oracle_price_usd", "USD that one is reckoned with.", labels=["coin"])
    age = GaugeMetricFamily("oracle_price_age_seconds", "How old the price is that is read.", labels=["coin"])
    for each in rates.all:
        if each.price.usd is not None:
            usd.add_metric([each.coin], float(each.price.usd))
            if each.reader is not None:
                age.add_metric([each.coin], each.price.age_seconds(each.now()))
    yield usd
    yield age


class _Collected:
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
