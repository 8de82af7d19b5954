"""How Surfpool is found, and what is said where it is not."""

import stat
from pathlib import Path

import pytest

from oracle.testing import surfpool
from oracle.testing.surfpool import SurfpoolUnavailable, running_surfpool

pytestmark = pytest.mark.localnet


@pytest.fixture(autouse=True)
def nothing_beside_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(surfpool, "_BESIDE_PROJECT", tmp_path / "absent")


def executable(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_where_there_is_none_the_reason_says_what_was_looked_for(tmp_path: Path) -> None:
    with (
        pytest.raises(SurfpoolUnavailable, match="SURFPOOL_HOST is not set, and there is no surfpool on PATH"),
        running_surfpool(environment={"PATH": str(tmp_path)}),
    ):
        pass


def test_a_host_that_is_named_but_absent_is_told(tmp_path: Path) -> None:
    host = tmp_path / "surfnet-host"
    with (
        pytest.raises(SurfpoolUnavailable, match="does not start"),
        running_surfpool(environment={"SURFPOOL_HOST": str(host)}),
    ):
        pass


def test_a_host_that_ends_at_once_is_told_with_what_it_said(tmp_path: Path) -> None:
    host = executable(tmp_path / "surfnet-host", 'echo "no such instruction: $1 $2"; exit 3')
    with (
        pytest.raises(SurfpoolUnavailable, match=r"ended with status 3: no such instruction: \d+ 250"),
        running_surfpool(slot_milliseconds=250, environment={"SURFPOOL_HOST": str(host)}),
    ):
        pass


def test_a_surfpool_on_the_path_is_started_offline_on_two_ports(tmp_path: Path) -> None:
    executable(tmp_path / "surfpool", 'echo "$*"; exit 4')
    with (
        pytest.raises(SurfpoolUnavailable, match=r"status 4: start --offline .*--port (\d+) --ws-port \d+"),
        running_surfpool(environment={"PATH": str(tmp_path)}),
    ):
        pass
