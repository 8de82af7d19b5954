"""A scan of fifty thousand open requests does not stop everything else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.localnet

MOST_STALL_SECONDS = 0.05


@pytest.fixture
def benchmark_of_scans() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "scan.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_scans", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def test_the_event_loop_is_never_away_for_fifty_milliseconds(benchmark_of_scans: ModuleType) -> None:
    with benchmark_of_scans.serving(50_000) as url:
        (_, stall), (_, baseline_stall) = await benchmark_of_scans.compared(url, 50_000)
    assert stall < MOST_STALL_SECONDS < baseline_stall
