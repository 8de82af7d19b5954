"""The local model as a process of its own that speaks OpenAI's API on a loopback port.

Why not in this process, where xllamacpp would run too (measured with 2026.10.11549):
- closing a server with a request in flight does not return, so a daemon could not stop; a process can be killed;
- loading holds the GIL for the whole 0.3 to 0.7 s, and no other loop of the daemon runs;
- a failed assertion in C++ ends the process, and the one that signs settlements must not end with a model;
- its log goes to file descriptor 2, whatever Python does with `sys.stderr`.
It costs an interpreter's start, 0.1 s, and its 20 MB.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from oracle.model.chat import Completion, EventStream, Message, completion_of, refusal, request_body
from oracle.model.errors import ANSWER_BROKEN, EXTRA_MISSING, NOT_RUNNING, START_FAILED
from oracle.model.pinned import SMOLLM2, TRAINED_CONTEXT_TOKENS

DEFAULT_MAX_TOKENS: Final = 256
"""How long an answer may get where a request does not say: a small model may repeat itself without end."""

DEFAULT_SEED: Final = 1

_BETWEEN_BYTES_SECONDS: Final = 300.0
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL")


class LocalModel:
    """A llama.cpp server in a child process: `with` or `async with` starts and stops it.

    It answers one request at a time, in the order they came. It may be started again after it was stopped or has died,
    and is then at another port. `threads` is 1 because a second one makes it slower wherever the cores are shared: the
    two wait for each other in busy loops (97 tokens per second became 2 to 36).
    """

    def __init__(
        self, weights: Path, *, threads: int = 1, context_tokens: int = 2048, start_timeout_seconds: float = 60.0
    ) -> None:
        """`weights` come from `ensure_weights`. A prompt and its answer share `context_tokens`."""
        if threads < 1 or not 0 < context_tokens <= TRAINED_CONTEXT_TOKENS or start_timeout_seconds <= 0:
            raise ValueError(f"{threads=}, {context_tokens=} or {start_timeout_seconds=} is out of range")
        self._weights = weights
        self._threads = threads
        self._context_tokens = context_tokens
        self._start_timeout_seconds = start_timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._last_words: deque[bytes] = deque(maxlen=8)
        self._listener = threading.Thread()
        self._address = ""

    @property
    def model_id(self) -> str:
        """The name that the server gives in `/models` and in every answer, whatever name was asked for."""
        return SMOLLM2.model_id

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`, to which clients append `/chat/completions`. Raises ORC-MODEL-007."""
        return f"{self._origin()}/v1"

    @property
    def health_url(self) -> str:
        """Answers 200 while the model serves. Raises ORC-MODEL-007."""
        return f"{self._origin()}/health"

    @property
    def alive(self) -> bool:
        return self._process is not None and bool(self._address) and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The child process, to look at its memory; `None` where there is none."""
        return None if self._process is None else self._process.pid

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        temperature: float = 0.0,
        seed: int = DEFAULT_SEED,
    ) -> Completion:
        """Answers a chat. A cancelled call stops the computation too, so set a deadline with `asyncio.timeout`.

        Where the messages do not begin with a system message, the model's own template adds one. Raises ORC-MODEL-007
        to 010, the last also after five minutes without a byte, be they spent in the queue.
        """
        body = request_body(
            messages, max_tokens=max_tokens, temperature=temperature, seed=seed, context_tokens=self._context_tokens
        )
        url = f"{self.base_url}/chat/completions"
        # `trust_env` off, or HTTP_PROXY would carry prompts off this machine; no TLS, so no certificates to load.
        client = httpx.AsyncClient(
            trust_env=False, verify=False, timeout=httpx.Timeout(_BETWEEN_BYTES_SECONDS, connect=5.0)
        )
        stream = EventStream()
        events: list[dict[str, Any]] = []
        try:
            async with client, client.stream("POST", url, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise refusal(response.status_code, await response.aread())
                async for data in response.aiter_bytes():
                    events.extend(stream.feed(data))
        except httpx.TimeoutException as error:
            raise ANSWER_BROKEN(f"{type(error).__name__} after {_BETWEEN_BYTES_SECONDS:g} s") from error
        except httpx.TransportError as error:
            raise NOT_RUNNING(self._obituary() or type(error).__name__) from error
        return completion_of(events)

    def start(self) -> None:
        """Returns when the model answers. Does nothing while it runs. Raises ORC-MODEL-005 or 006."""
        if self.alive:
            return
        process = self._spawn()
        try:
            self._address = self._await_address(process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the process at once, and any request in flight with it; it has no state to lose. May be called twice."""
        process, self._process, self._address = self._process, None, ""
        if process is None:
            return
        process.kill()
        process.wait()
        self._listener.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        if not self.alive:
            process = self._spawn()
            try:
                self._address = await asyncio.to_thread(self._await_address, process)
            except BaseException:  # cancelled, too: the kill also ends the wait in that thread
                self.stop()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.stop()  # what is left of one that died
        if importlib.util.find_spec("xllamacpp") is None:
            raise EXTRA_MISSING()
        settings = {
            "weights": str(self._weights),
            "model_id": self.model_id,
            "threads": self._threads,
            "context_tokens": self._context_tokens,
            "max_tokens": DEFAULT_MAX_TOKENS,
            "seed": DEFAULT_SEED,
        }
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "oracle.model.child", json.dumps(settings)],
            stdin=subprocess.PIPE,  # its end tells the child that we are gone
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Our environment may hold keys, which C++ that parses strangers' prompts has no use for; and settings of
            # llama.cpp, which would change its answers.
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            start_new_session=True,  # Ctrl-C is for the daemon, which stops the model when it has drained
        )
        self._process = process
        self._last_words.clear()
        self._listener = threading.Thread(target=self._last_words.extend, args=(process.stderr,), daemon=True)
        self._listener.start()
        return process

    def _await_address(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        watchdog = threading.Timer(self._start_timeout_seconds, process.kill)
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        if not line:
            process.wait()
            self._listener.join()
            raise START_FAILED(f"within {self._start_timeout_seconds:g} s; {self._obituary()}")
        return str(json.loads(line)["address"])

    def _origin(self) -> str:
        if not self.alive:
            raise NOT_RUNNING(self._obituary())
        return self._address

    def _obituary(self) -> str:
        """How the process ended and what llama.cpp said last; empty while it runs or where there never was one."""
        if self._process is None or (code := self._process.poll()) is None:
            return ""
        end = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
        words = b"".join(self._last_words).decode(errors="replace").strip()
        return f"{end}: {words}" if words else end
