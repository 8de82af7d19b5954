"""Every benchmark still runs, at a size too small to say anything about speed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PARTS = {"bench.py", "chain_process.py"}
QUICK = {
    "group_commit.py": (["--rows", "20"], "this store, 512 writers at once"),
    "scan.py": (["200"], "baseline"),
}
SLOW = {
    "cost.py": ([], "this oracle, packed"),
    "latency.py": (["1"], "100/s  account visible -> job bought"),
    "scale.py": (["200", "1"], "jobs asked after"),
    "throughput.py": (["20"], "oracle daemon over HTTP"),
}
IN_THE_LONG_RUN = pytest.mark.skipif(os.environ.get("ORACLE_TEST_LENGTH") != "long", reason="`make test-all`")

pytestmark = pytest.mark.localnet


@pytest.mark.parametrize("script", [*QUICK, *(pytest.param(each, marks=IN_THE_LONG_RUN) for each in SLOW)])
def test_a_benchmark_runs_and_prints_its_table(script: str, tmp_path: Path) -> None:
    arguments, line = (QUICK | SLOW)[script]
    command = [sys.executable, BENCHMARKS / script, *arguments]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-2_000:]
    assert line in ran.stdout


def test_every_benchmark_is_run() -> None:
    assert set(QUICK | SLOW) == {script.name for script in BENCHMARKS.glob("*.py")} - PARTS
