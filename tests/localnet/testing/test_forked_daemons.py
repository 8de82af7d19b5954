"""Daemons that tests fork, and what becomes of them."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from solders.keypair import Keypair

pytestmark = pytest.mark.localnet

LAUNCH = """
import sys, pathlib
from oracle.testing.crashing import Life
from oracle.testing.forked import ForkedDaemon

here = pathlib.Path(sys.argv[1])
daemon = ForkedDaemon(here / "log", here)
daemon.launch(Life(here / "oracle.toml"))
print(daemon.pid, flush=True)
sys.stdin.read()
"""
CONFIG = """
[cluster]
rpc = ["http://127.0.0.1:{port}"]
[operator]
keypair = "operator.json"
queues = ["{queue}"]
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells of the end of a process that is no child")
def test_a_daemon_does_not_outlive_the_process_that_has_launched_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.settimeout(60)
        key = Keypair()
        (tmp_path / "operator.json").write_text(json.dumps(list(bytes(key))))
        (tmp_path / "operator.json").chmod(0o600)
        (tmp_path / "oracle.toml").write_text(CONFIG.format(port=deaf.getsockname()[1], queue=key.pubkey()))
        command = [sys.executable, "-c", LAUNCH, str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            daemon = os.pidfd_open(int(parent.stdout.readline()))
            connection, _ = deaf.accept()
            assert not has_ended(daemon, 0.0), "it waits for an answer"
            parent.kill()
            # By itself it would give up after half a minute.
            assert has_ended(daemon, 8.0)
            connection.close()
            os.close(daemon)


def has_ended(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])
