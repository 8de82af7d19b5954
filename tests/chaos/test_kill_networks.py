"""Kill the daemon before and after everything it does to buy on a network, and ask the network's own books."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from chaos_length import Say
from chaos_matrix import breaches_of_all, points
from chaos_networks import NETWORKS
from chaos_scenarios import PURCHASES, QUICK
from chaos_town import SOON_FINAL, town

pytestmark = [pytest.mark.localnet, pytest.mark.chaos]

OF_SLOWNESS = " follow.resend"
"""A slow machine sends again what has not landed in time, and at another try it has. In `test_kill_matrix` there is a
life whose transactions are lost, and so must be sent again."""


@pytest.mark.timeout(600)
async def test_wherever_the_daemon_is_killed_in_a_purchase_every_law_is_kept_and_nothing_is_left_running(
    tmp_path: Path, say: Say
) -> None:
    began = time.monotonic()
    async with town(tmp_path, config=SOON_FINAL, host=True) as place:
        reached = await points(place, [*QUICK, *PURCHASES])
        known = {scenario: reached[scenario] for scenario in QUICK}
        bought = {scenario: [p for p in reached[scenario] if OF_SLOWNESS not in p] for scenario in PURCHASES}
        killed_at, breaches = await breaches_of_all(place, bought, but=known)
    say(f"{killed_at} crash points in {time.monotonic() - began:.0f} s")
    every = {point for points in bought.values() for point in points}
    for provider in ("nosana", "onchain", *NETWORKS):
        for side in ("before", "after"):
            assert {
                f"{side} provider.submit {provider} submit.call",
                f"{side} provider.fetch {provider} poll.follow",
            } <= every
            assert any(point.startswith(f"{side} http.POST {provider} ") for point in every)
    assert not breaches, "\n".join(breaches)
