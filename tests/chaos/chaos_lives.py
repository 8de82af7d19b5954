"""Lives of a daemon in a scenario: recorded, or ended at a point and begun again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chaos_scenarios import Scenario
from chaos_town import Oracle, Town

KILLED = -9
LATE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A life to be ended: in which scenario, and at the how-manieth time that the point is reached."""

    point: str
    scenario: Scenario
    nth: int = 1

    def __str__(self) -> str:
        return f"[{self.scenario.name}] {self.point}:{self.nth}"


async def recorded(town: Town, scenario: Scenario, name: str) -> list[str]:
    """The points that a scenario reaches, in their order."""
    oracle = await town.oracle(name, queues=(scenario.queue,), network=scenario.network, **scenario.settings)
    file = oracle.directory / "points"
    script = await begun(oracle, scenario)
    oracle.launch(record=file)
    await script
    await oracle.at_rest()
    # Not those of a stop: the lives that follow are not stopped.
    reached = file.read_text().splitlines()
    status = await oracle.daemon.stop()
    assert status == 0, f"{scenario.name} stopped with {status}:\n{oracle.tail()}"
    passed_by = set(scenario.passes) - set(reached)
    assert not passed_by, f"{scenario.name} did not come by {', '.join(sorted(passed_by))}"
    return reached


async def killed(town: Town, kills: Sequence[Kill], name: str) -> list[Kill]:
    """One oracle in the scenario of these kills, killed at one after another, then started once more until everything
    has ended. Each life ends first what the one before has left, and then gets a new request, unless its crash has come
    by then. Returns the kills whose points were not reached.

    Raises `AssertionError` where not everything ends.
    """
    scenario = kills[0].scenario
    oracle = await town.oracle(name, queues=(scenario.queue,), network=scenario.network, **scenario.settings)
    scripts, missed = [await begun(oracle, scenario)], []
    for kill in kills:
        oracle.launch(crash_at=f"{kill.point}:{kill.nth}")
        crashed = await crash(oracle, lambda: are_over(oracle, scripts))
        if not crashed and kill is not kills[0]:
            scripts.append(asyncio.create_task(scenario.play(oracle)))
            crashed = await crash(oracle, lambda: are_over(oracle, scripts))
        if not crashed and not await crashes_late(oracle):
            missed.append(kill)
            await oracle.daemon.kill()
    oracle.launch()
    await asyncio.gather(*scripts)
    await oracle.at_rest()
    await oracle.daemon.kill()
    return missed


async def begun(oracle: Oracle, scenario: Scenario) -> asyncio.Task[None]:
    """Start the script, and bring the oracle to where the watched life begins."""
    script = asyncio.create_task(scenario.play(oracle))
    if scenario.crash_first:
        oracle.launch(crash_at=scenario.crash_first)
        has_crashed = await crash(oracle, lambda: are_over(oracle, [script])) or await crashes_late(oracle)
        assert has_crashed, f"{scenario.name}: the first crash did not come"
    return script


async def crash(oracle: Oracle, is_over: Callable[[], bool], *, look_seconds: float = 0.2) -> bool:
    """Wait for the crash; False where everything has ended without one."""
    while True:
        try:
            status = await oracle.daemon.wait(look_seconds)
        except TimeoutError:
            if is_over():
                return False
        else:
            assert status == KILLED, f"{oracle.name} ended with {status}:\n{oracle.tail()}"
            return True


async def crashes_late(oracle: Oracle) -> bool:
    """Whether the crash comes now that all is at rest: its point may lie behind the very write that has ended all."""
    return await crash(oracle, lambda: True, look_seconds=LATE_SECONDS)


def are_over(oracle: Oracle, scripts: Sequence[asyncio.Task[None]]) -> bool:
    return all(script.done() for script in scripts) and not oracle.unfinished()
