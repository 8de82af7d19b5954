"""One job on one host: its operations, one after another, and the result document they leave (§3.7, §7.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from oracle.localnet.emulators.ionet.containers import Served
from oracle.localnet.emulators.nosana.container import ContainerError, run_container
from oracle.localnet.emulators.nosana.results import LogLine, extract
from oracle.localnet.emulators.upstream import ModelServer

LOG_LINES_KEPT = 24_999
BLANK = {"status": "", "startTime": 0, "endTime": 0, "opStates": []}
"""What a host leaves that was restarted after the job's time was over."""


class Mishap(StrEnum):
    """What the emulator was told to let happen to the operations of a job."""

    OPERATION_FAILS = "operation_fails"
    """The container exits with `exit_code`, having written `text` to stderr; the job completes all the same."""
    IMAGE_MISSING = "image_missing"
    OUT_OF_MEMORY = "out_of_memory"
    LOSES_LOGS = "loses_logs"
    """Of log lines that come more than once only the last is kept."""
    LOSES_OUTPUT = "loses_output"
    """The first line of stdout is missing, as often as it was written."""
    CORRUPTS_OUTPUT = "corrupts_output"
    """The last character of the first line of stdout is another one, as often as it was written."""
    HANGS = "hangs"
    """The container starts and never ends, until the job's timeout does."""


class Ending(StrEnum):
    """Why a flow was ended from outside."""

    EXPIRED = "expired"
    STOPPED = "stopped"
    QUIT = "quit"


@dataclass(slots=True)
class _Operation:
    id: str
    group: str
    container: str | None = None
    status: str = "running"
    start: float = 0.0
    end: float | None = None
    exit_code: int | None = None
    logs: list[LogLine] = field(default_factory=list)
    error: ContainerError | None = None
    results: dict[str, Any] | None = None
    ending: Ending | None = None
    out_of_memory: bool = False


class Flow:
    """Runs a valid definition. `now` gives unix seconds; `stderr` and `exit_code` are what a mishap uses."""

    def __init__(
        self,
        definition: dict[str, Any],
        models: ModelServer,
        now: Callable[[], float],
        container_id: str,
        *,
        pace: float = 0.0,
        mishap: Mishap | None = None,
        stderr: str = "",
        exit_code: int = 1,
    ) -> None:
        self._definition = definition
        self._models = models
        self._now = now
        self._container_id = container_id
        self._pace = pace
        self._mishap = mishap
        self._stderr = stderr
        self._exit_code = exit_code
        self._operations: list[_Operation] = []
        self._started = now()
        self.begun = asyncio.Event()
        self.servers: dict[str, Served] = {}
        """The model servers that are reached through an exposed port, by operation."""

    async def run(self) -> None:
        """All operations in their order; a failed one does not keep the next from running."""
        for operation in self._definition["ops"]:
            group = operation.get("execution", {}).get("group", operation["id"])
            state = _Operation(operation["id"], group, start=self._now())
            self._operations.append(state)
            self.begun.set()
            if operation["type"] == "container/run":
                await self._run_container(operation, state)
            else:
                state.exit_code = 0
            state.status = "success" if state.exit_code == 0 else "failed"
            state.end = self._now()
        self.begun.set()

    async def _run_container(self, operation: dict[str, Any], state: _Operation) -> None:
        def log(kind: str, line: str) -> None:
            state.logs.append(LogLine(kind, line + "\n", _rfc3339(self._now())))

        try:
            if self._mishap is Mishap.IMAGE_MISSING:
                raise ContainerError("no such image", 404)
            state.container = self._container_id
            if self._mishap is Mishap.OPERATION_FAILS:
                log("stderr", self._stderr or "Traceback (most recent call last):")
                state.exit_code = self._exit_code
            elif self._mishap is Mishap.OUT_OF_MEMORY:
                state.exit_code, state.out_of_memory = 137, True
            elif self._mishap is Mishap.HANGS:
                await asyncio.Event().wait()
            else:
                state.exit_code = await run_container(
                    operation["args"],
                    self._models,
                    log,
                    pace=self._pace,
                    serve=lambda served: self._serve(operation, served),
                )
        except ContainerError as error:
            state.container, state.exit_code, state.error = None, 2, error
        state.logs = _mangled(state.logs, self._mishap)[-LOG_LINES_KEPT:]
        if state.error is None and "results" in operation:
            state.results = extract(operation["results"], state.logs)

    def _serve(self, operation: dict[str, Any], served: Served | None) -> None:
        if served is None:
            self.servers.pop(operation["id"], None)
        elif "expose" in operation["args"]:
            self.servers[operation["id"]] = served

    def end(self, why: Ending) -> dict[str, Any]:
        """The document of a flow that was ended from outside, at whatever point it was."""
        statuses = {Ending.EXPIRED: "success", Ending.STOPPED: "stopped", Ending.QUIT: "failed"}
        for state in self._operations:
            if state.end is None:
                state.status, state.exit_code = statuses[why], 0 if why is Ending.EXPIRED else 143
                state.end, state.ending = self._now(), why
        return self.document(statuses[why])

    def document(self, status: str = "success") -> dict[str, Any]:
        """`success` means no more than that the flow was not aborted (§3.7)."""
        return {
            "status": status,
            "startTime": _milliseconds(self._started),
            "endTime": _milliseconds(self._now()),
            "opStates": [_as_json(state) for state in self._operations],
        }


def validation_error(refusals: list[dict[str, Any]], now: float) -> dict[str, Any]:
    """The document of a job whose definition the host refused."""
    moment = _milliseconds(now)
    return {
        "status": "validation-error",
        "startTime": moment,
        "endTime": moment,
        "errors": refusals,
        "opStates": [],
    }


def without_logs(document: dict[str, Any]) -> dict[str, Any]:
    """The copy that REST shows (§4.4)."""
    return {**document, "opStates": [{**state, "logs": []} for state in document["opStates"]]}


def _as_json(state: _Operation) -> dict[str, Any]:
    reason: dict[str, Any] = {
        "hostShutDown": state.ending is Ending.QUIT,
        "jobStopped": state.ending is Ending.STOPPED,
        "jobExpired": state.ending is Ending.EXPIRED,
    }
    if state.ending is not None:
        reason["reason"] = f"Operation stopped due to flow {state.ending}"
    diagnostics: dict[str, Any] = {"reason": reason}
    if state.status == "failed" and state.container is not None and state.end is not None:
        diagnostics["state"] = {
            "Status": "exited",
            "Running": False,
            "Paused": False,
            "Restarting": False,
            "OOMKilled": state.out_of_memory,
            "Dead": False,
            "Pid": 0,
            "ExitCode": state.exit_code,
            "Error": "",
            "StartedAt": _rfc3339(state.start),
            "FinishedAt": _rfc3339(state.end),
            "RestartCount": 0,
        }
    document: dict[str, Any] = {
        "operationId": state.id,
        "group": state.group,
        "providerId": state.container,
        "status": state.status,
        "startTime": _milliseconds(state.start),
        "endTime": None if state.end is None else _milliseconds(state.end),
        "exitCode": state.exit_code,
        "logs": [{"type": line.type, "log": line.log, "timestamp": line.timestamp} for line in state.logs],
        "errors": [],
    }
    if state.error is not None:
        error = {"event": "operation-error", "message": str(state.error), "code": state.error.code}
        document["errors"] = [error]
    if state.results is not None:
        document["results"] = state.results
    return {**document, "diagnostics": diagnostics}


def _mangled(lines: list[LogLine], mishap: Mishap | None) -> list[LogLine]:
    first = next((line.log for line in lines if line.type == "stdout"), None)
    match mishap:
        case Mishap.LOSES_LOGS:
            return list({(line.type, line.log): line for line in lines}.values())
        case Mishap.LOSES_OUTPUT:
            return [line for line in lines if line.log != first]
        case Mishap.CORRUPTS_OUTPUT:
            return [replace(line, log=_other_end(line.log)) if line.log == first else line for line in lines]
    return lines


def _other_end(line: str) -> str:
    text = line.rstrip("\n")
    return text[:-1] + ("B" if text.endswith("A") else "A") + "\n"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _rfc3339(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"
