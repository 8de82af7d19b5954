"""A port that is drawn now is free when a server is started on it later."""

import socket
from pathlib import Path

import pytest

from oracle.core.errors import OracleError
from oracle.localnet import ports

pytestmark = pytest.mark.localnet
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_no_outgoing_connection_is_ever_given_a_port_that_was_drawn() -> None:
    first_ephemeral = int(RANGE.read_text().split()[0]) if RANGE.exists() else 49_152
    assert all(ports.free_port(neighbours=1) + 1 < first_ephemeral for _ in range(50))


def test_a_port_that_somebody_listens_on_is_not_drawn_nor_is_its_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = ports.free_port(neighbours=1) + 1
    monkeypatch.setattr(ports, "FIRST", taken - 1)
    monkeypatch.setattr(ports, "LAST", taken)
    with socket.create_server(("127.0.0.1", taken)):
        assert {ports.free_port() for _ in range(20)} == {taken - 1}
        with pytest.raises(OracleError, match="ORC-LOCALNET-004"):
            ports.free_port(neighbours=1)
