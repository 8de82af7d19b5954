"""What the metrics say of how far each channel is behind."""

from __future__ import annotations

from oracle.api.cluster_metrics import _watching
from oracle.chain.watcher import Stats


def test_how_far_a_channel_is_behind_is_told_in_slots_and_how_old_its_news_was_in_seconds() -> None:
    stats = Stats(push_slot=95, scan_slot=60)
    stats.sightings.update({"push": 3, "scan": 1})
    stats.lag_seconds["push"] = 0.8
    told = {
        (sample.name, sample.labels["channel"]): sample.value
        for metric in _watching(stats, 100)
        for sample in metric.samples
        if "channel" in sample.labels
    }
    assert told == {
        ("oracle_watch_lag_slots", "push"): 5,
        ("oracle_watch_lag_slots", "scan"): 40,
        ("oracle_sighting_lag_seconds", "push"): 0.8,
        ("oracle_sightings_total", "push"): 3,
        ("oracle_sightings_total", "scan"): 1,
    }
