"""systemd is told when the daemon is ready, and when it stops; where nobody listens it makes no difference."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import settings_file
from pipeline_world import World

from oracle.pipeline.systemd import notify
from oracle.testing.daemon import running_daemon

pytestmark = pytest.mark.localnet


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_a_state_is_one_datagram(listener: socket.socket) -> None:
    notify("READY=1")
    assert listener.recv(100) == b"READY=1"


def test_a_socket_without_a_name_in_the_file_system_is_reached_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"oracle-test-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("READY=1")
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("path", ["", "/no/such/socket", "relative", "/" + "a" * 300, "@nobody-listens-here"])
def test_where_nobody_listens_nothing_happens(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    notify("READY=1")


async def test_a_daemon_says_when_it_is_ready_and_when_it_begins_to_stop(world: World, listener: socket.socket) -> None:
    path = settings_file.write(world.directory / "oracle.toml", world.settings)
    log = world.directory / "daemon.log"
    base_uri = world.settings["operator"]["base_uri"]
    async with running_daemon(path, base_uri, log, {"XDG_RUNTIME_DIR": str(world.directory)}) as daemon:
        assert listener.recv(100) == b"READY=1"
        assert await daemon.stop() == 0
        assert listener.recv(100) == b"STOPPING=1"
