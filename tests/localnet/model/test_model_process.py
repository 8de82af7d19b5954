"""The model's process: it starts, dies, ends with its parent, and says nothing on the way."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from model_slots import wait_until_busy

from oracle.core.errors import OracleError
from oracle.model import errors
from oracle.model.server import LocalModel

pytestmark = [pytest.mark.localnet, pytest.mark.model]

HELLO = [{"role": "user", "content": "Hello"}]


def wait_until_gone(pid: int, deadline_seconds: float = 60) -> None:
    deadline = time.monotonic() + deadline_seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} is still there")


async def test_it_serves_between_start_and_stop(weights: Path, record_property: Callable[[str, object], None]) -> None:
    begin = time.monotonic()
    async with LocalModel(weights) as model:
        record_property("start_seconds", round(time.monotonic() - begin, 2))
        url, pid = model.health_url, model.pid
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            assert (await client.get(url)).json() == {"status": "ok"}
            assert model.alive
        begin = time.monotonic()
    record_property("stop_seconds", round(time.monotonic() - begin, 3))

    assert not model.alive
    assert pid is not None
    wait_until_gone(pid)


async def test_a_model_started_again_says_the_same(weights: Path) -> None:
    texts = []
    for _ in range(2):
        async with LocalModel(weights) as model:
            texts.append(await model.complete(HELLO, max_tokens=16))

    assert texts[0] == texts[1]


async def test_stopping_does_not_wait_for_a_request_in_flight(weights: Path) -> None:
    with LocalModel(weights) as model:
        request = asyncio.create_task(
            model.complete([{"role": "user", "content": "What is the capital of France?"}], max_tokens=1900)
        )
        await wait_until_busy(model, deadline_seconds=60)
        model.stop()
        with pytest.raises(OracleError) as caught:
            await request

    assert caught.value.error is errors.NOT_RUNNING


async def test_a_model_that_died_says_so_and_can_be_started_again(weights: Path) -> None:
    with LocalModel(weights) as model:
        assert model.pid is not None
        os.kill(model.pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, model.pid, os.WEXITED | os.WNOWAIT)

        with pytest.raises(OracleError) as caught:
            await model.complete(HELLO, max_tokens=1)
        assert caught.value.error is errors.NOT_RUNNING
        assert "signal 9" in caught.value.detail
        assert not model.alive

        model.start()
        assert (await model.complete(HELLO, max_tokens=1)).completion_tokens == 1


def test_starting_twice_keeps_the_one_that_runs(model: LocalModel) -> None:
    pid = model.pid
    model.start()

    assert model.pid == pid


def test_weights_that_are_no_model_are_an_error_in_llama_cpps_words(tmp_path: Path) -> None:
    (tmp_path / "junk.gguf").write_bytes(b"this is no model")
    model = LocalModel(tmp_path / "junk.gguf")

    with pytest.raises(OracleError) as caught:
        model.start()

    assert caught.value.error is errors.START_FAILED
    assert "failed to load model" in caught.value.detail
    assert model.pid is None


def test_a_start_that_takes_too_long_is_given_up(weights: Path) -> None:
    model = LocalModel(weights, start_timeout_seconds=0.001)

    with pytest.raises(OracleError) as caught:
        model.start()

    assert caught.value.error is errors.START_FAILED
    assert model.pid is None


async def test_a_cancelled_start_leaves_no_process(weights: Path) -> None:
    model = LocalModel(weights)
    starting = asyncio.create_task(model.__aenter__())
    await asyncio.sleep(0)  # the process is made before the first wait
    pid = model.pid
    assert pid is not None
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert model.pid is None
    wait_until_gone(pid)


PARENT = """
import sys
from pathlib import Path
from oracle.model.server import LocalModel
model = LocalModel(Path(sys.argv[1]))
model.start()
print(model.pid, flush=True)
sys.stdin.read()
"""


def test_the_model_ends_with_a_parent_that_was_killed(weights: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(weights)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        wait_until_gone(pid)


TALK = """
import asyncio, sys
from pathlib import Path
from oracle.core.errors import OracleError
from oracle.model.server import LocalModel

async def main():
    async with LocalModel(Path(sys.argv[1])) as model:
        await model.complete([{"role": "user", "content": "Hello"}], max_tokens=4)
        try:
            await model.complete([{"role": "user", "content": "word " * 3000}])
        except OracleError:
            pass

asyncio.run(main())
"""


def test_nothing_is_printed(weights: Path) -> None:
    talk = subprocess.run([sys.executable, "-c", TALK, str(weights)], capture_output=True, check=True)

    assert (talk.stdout, talk.stderr) == (b"", b"")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_no_secret_of_the_environment_reaches_the_model(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORACLE_SOME_API_KEY", "a secret")
    with LocalModel(weights) as model:
        environment = Path(f"/proc/{model.pid}/environ").read_bytes()
        command = json.dumps(Path(f"/proc/{model.pid}/cmdline").read_text().split("\0"))

    assert b"a secret" not in environment
    assert "oracle.model.child" in command
