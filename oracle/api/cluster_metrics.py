"""Metrics of what lies between the daemon and its cluster: endpoints, the watcher's channels, the wallet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from oracle.chain.rpc.meter import Meter
from oracle.chain.rpc.pool import Pool
from oracle.chain.watcher import Stats
from oracle.core.endpoints import Health
from oracle.pipeline.context import Context


def families(context: Context) -> Iterator[Metric]:
    yield from _watching(context.sight, context.slot())
    if context.pool is not None:
        yield from _endpoints(context.pool)
    if context.wallet_lamports is not None:
        yield GaugeMetricFamily(
            "oracle_wallet_lamports", "Lamports of the operator's key.", value=context.wallet_lamports
        )


def _watching(stats: Stats, slot: int) -> Iterator[Metric]:
    behind = GaugeMetricFamily(
        "oracle_watch_lag_slots", "Slots by which a channel is behind the cluster.", labels=["channel"]
    )
    for channel, seen_slot in (("push", stats.push_slot), ("scan", stats.scan_slot)):
        behind.add_metric([channel], max(0, slot - seen_slot))
    yield behind
    lag = GaugeMetricFamily(
        "oracle_sighting_lag_seconds", "Age of the newest sighting when it was made.", labels=["channel"]
    )
    sightings = CounterMetricFamily("oracle_sightings", "Accounts seen to change.", labels=["channel"])
    for name, count in stats.sightings.items():
        sightings.add_metric([name], count)
        if name in stats.lag_seconds:
            lag.add_metric([name], stats.lag_seconds[name])
    yield lag
    yield sightings
    yield GaugeMetricFamily("oracle_push_live", "Whether subscriptions are up.", value=stats.push_is_live)
    yield CounterMetricFamily("oracle_missed_pushes", "Requests found by a scan alone.", value=stats.missed_pushes)
    yield CounterMetricFamily("oracle_scans", "Scans of the program's accounts.", value=stats.scans)
    yield CounterMetricFamily("oracle_scan_failures", "Scans that failed.", value=stats.scan_failures)
    yield GaugeMetricFamily("oracle_scan_seconds", "How long the last scan took.", value=stats.scan_seconds)
    yield GaugeMetricFamily("oracle_scan_accounts", "Accounts that the last scan read.", value=stats.accounts)


def _endpoints(pool: Pool) -> Iterator[Metric]:
    endpoints, meters = pool.view(), pool.meters()
    names = _distinct([endpoint.name for endpoint in endpoints])
    state = GaugeMetricFamily("oracle_rpc_endpoint", "1 for the state it is in.", labels=["endpoint", "health"])
    slot = GaugeMetricFamily("oracle_rpc_endpoint_slot", "Newest slot it has shown.", labels=["endpoint"])
    contradictions = CounterMetricFamily(
        "oracle_rpc_contradictions", "Refused for good what another accepted.", labels=["endpoint"]
    )
    throttled = CounterMetricFamily(
        "oracle_rpc_throttled_seconds", "Time that calls waited for our own limits.", labels=["endpoint"]
    )
    for name, endpoint, health, meter in zip(names, endpoints, pool.health(), meters, strict=True):
        for each in Health:
            state.add_metric([name, each.value], each is health)
        slot.add_metric([name], endpoint.slot)
        contradictions.add_metric([name], endpoint.contradictions)
        throttled.add_metric([name], meter.throttled_seconds)
    yield from (state, slot, contradictions, throttled)
    yield from _calls(names, meters)


def _calls(names: Sequence[str], meters: Sequence[Meter]) -> Iterator[Metric]:
    seconds = HistogramMetricFamily("oracle_rpc_seconds", "How long calls took.", labels=["endpoint", "method"])
    errors = CounterMetricFamily("oracle_rpc_errors", "Calls that failed.", labels=["endpoint", "method", "code"])
    for name, meter in zip(names, meters, strict=True):
        for method, timings in meter.timings.items():
            seconds.add_metric([name, method], timings.cumulative(), timings.sum_seconds)
        for (method, code), count in meter.errors.items():
            errors.add_metric([name, method, code], count)
    yield seconds
    yield errors


def _distinct(names: Sequence[str]) -> list[str]:
    """Two endpoints of one host differ in what must not be shown, so they are numbered."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return numbered
