"""Finds and starts Surfpool: a real validator's runtime and RPC, written by others, for tests marked `validator`.

    with running_surfpool() as surfpool:      # raises SurfpoolUnavailable, with the reason, where there is none
        surfpool.load_program(program_id, elf)
        AsyncClient(surfpool.rpc_url)

It is looked for in the environment variable `SURFPOOL_HOST` (the path of a `surfnet-host`), then beside the project in
`../shared/validator/surfnet-host`, then as `surfpool` on PATH. Start it once for a test session: the fixture `surfpool`
of tests/conftest.py does.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import orjson
from solders.pubkey import Pubkey

from oracle.localnet.ports import free_port

BPF_LOADER = "BPFLoader2111111111111111111111111111111111"
_BESIDE_PROJECT = Path(__file__).parents[3] / "shared" / "validator" / "surfnet-host"
_START_SECONDS = 90  # the first start unpacks the program
_STOP_SECONDS = 5


class SurfpoolUnavailable(Exception):
    """There is no Surfpool here, or it does not start; the text says why."""


@dataclass(frozen=True, slots=True)
class Surfpool:
    """A running Surfpool. Its WebSocket is on the next port."""

    port: int

    @property
    def rpc_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port + 1}"

    def call(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call; raises `RuntimeError` with the error of an answer."""
        body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        # A bare connection: tests make thousands of calls, and a client around each would take most of their time.
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            answer = orjson.loads(connection.getresponse().read())
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def set_account(self, address: Pubkey, *, lamports: int, data: bytes, owner: str, executable: bool = False) -> None:
        """Overwrites an account, whatever the rules."""
        account = {"lamports": lamports, "data": data.hex(), "owner": owner, "executable": executable}
        self.call("surfnet_setAccount", str(address), account)

    def load_program(self, address: Pubkey, elf: bytes) -> None:
        """Places a program at an address without a deployment."""
        self.set_account(address, lamports=10**10, data=elf, owner=BPF_LOADER, executable=True)


@contextmanager
def running_surfpool(slot_milliseconds: int = 400, environment: Mapping[str, str] | None = None) -> Iterator[Surfpool]:
    """Starts Surfpool on two free ports and stops it in the end. Raises `SurfpoolUnavailable`, or ORC-LOCALNET-004."""
    port = free_port(neighbours=1)
    command = _command(port, slot_milliseconds, os.environ if environment is None else environment)
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        except OSError as error:
            raise SurfpoolUnavailable(f"{command[0]} does not start: {error}") from error
        try:
            surfpool = Surfpool(port)
            if (failure := _wait_until_it_makes_slots(surfpool, process)) is not None:
                output.seek(0)
                said = output.read()[-500:].decode(errors="replace").strip()
                raise SurfpoolUnavailable(f"{command[0]} {failure}: {said}")
            yield surfpool
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _command(port: int, slot_milliseconds: int, environment: Mapping[str, str]) -> list[str]:
    host = environment.get("SURFPOOL_HOST") or (str(_BESIDE_PROJECT) if _BESIDE_PROJECT.exists() else None)
    if host is not None:
        return [host, str(port), str(slot_milliseconds)]
    if (surfpool := shutil.which("surfpool", path=environment.get("PATH"))) is not None:
        options = ["--offline", "--no-tui", "--no-deploy", "--no-studio", "--slot-time", str(slot_milliseconds)]
        return [surfpool, "start", *options, "--port", str(port), "--ws-port", str(port + 1)]
    raise SurfpoolUnavailable("SURFPOOL_HOST is not set, and there is no surfpool on PATH")


def _wait_until_it_makes_slots(surfpool: Surfpool, process: subprocess.Popen[bytes]) -> str | None:
    # With the first slot that it makes, the block height of Surfpool 1.7.0 falls from 31 to 1: nobody may ask before.
    first_slot: int | None = None
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"ended with status {process.returncode}"
        with suppress(OSError, HTTPException, ValueError, RuntimeError):
            with socket.create_connection(("127.0.0.1", surfpool.port + 1), timeout=5):
                slot = surfpool.call("getSlot", {"commitment": "confirmed"})
            first_slot = slot if first_slot is None else first_slot
            if slot > first_slot:
                return None
        time.sleep(0.05)
    return f"made no slot within {_START_SECONDS} seconds"
