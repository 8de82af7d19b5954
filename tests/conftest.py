"""What every test may ask for."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from oracle.testing.surfpool import Surfpool, SurfpoolUnavailable, running_surfpool

UNIT = Path(__file__).parent / "unit"
_SAID = "said"

# How long one example takes says how busy the machine is, and nothing about the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A worker of pytest-xdist is told 80 columns, and commands would fold what they print into a pipe.
os.environ.pop("COLUMNS", None)

# A shell that runs the tests in the background lets them ignore Ctrl-C, and every process that they start would inherit
# that and never be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests last: their files are short, so that the workers of pytest-xdist end together."""
    items.sort(key=lambda item: UNIT in item.path.parents)


@pytest.fixture
def say(record_property: Callable[[str, str], None]) -> Callable[[str], None]:
    """Tells a figure or a seed in the summary, whether the test passes or not: pytest-xdist swallows what its workers
    print."""
    return lambda text: record_property(_SAID, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for what, text in report.user_properties if report.when == "call" else ():
                if what == _SAID:
                    terminalreporter.write_line(f"{report.nodeid}: {text}")


@pytest.fixture(scope="session")
def surfpool() -> Iterator[Surfpool]:
    """One Surfpool for the whole session, with 100 ms slots; whoever asks for it is skipped where there is none."""
    try:
        with running_surfpool(slot_milliseconds=100) as running:
            yield running
    except SurfpoolUnavailable as reason:
        pytest.skip(f"no Surfpool: {reason}")
