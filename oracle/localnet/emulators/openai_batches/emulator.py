"""The emulator as a whole: keys, files, batches and their list."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from oracle.localnet.emulators.faults import Fault, Faults, Wire, wire_kinds
from oracle.localnet.emulators.openai_batches.batches import Batch, BatchFault, BatchTimings
from oracle.localnet.emulators.openai_batches.lines import parts, read_lines
from oracle.localnet.emulators.records import Records
from oracle.localnet.emulators.upstream import ModelServer, ModelServerUnreachable

ENDPOINT = "/v1/chat/completions"
FILE_BYTES = 200 * 1024 * 1024
METADATA_PAIRS, NAME_CHARACTERS, VALUE_CHARACTERS = 16, 64, 512
AT_ONCE = BatchTimings()


class OpenAIBatches:
    """Give it to `server.serve`. Requests run on the OpenAI-compatible server at `model_url`, when somebody asks after
    a batch whose time to run is over.

    `models` maps the name that a request may give to the model server's own; empty takes any as it is.
    """

    def __init__(
        self,
        model_url: str,
        *,
        models: Mapping[str, str] | None = None,
        api_key: str = "sk-localnet",
        timings: BatchTimings = AT_ONCE,
        state_directory: Path | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.faults = Faults(wire_kinds(("batch", BatchFault)))
        self._models = ModelServer(model_url, models or {})
        self._api_key = api_key
        self._timings = timings
        self._now = now
        self._records = Records(state_directory, "openai-batches")
        self._batches = {key: Batch(**record) for key, record in self._records.read("batch")}

    def routes(self) -> ASGIApp:
        return Router(
            [
                Route("/files", self._upload, methods=["POST"]),
                Route("/files/{id}", self._file),
                Route("/files/{id}/content", self._content),
                Route("/batches", self._create, methods=["POST"]),
                Route("/batches", self._list),
                Route("/batches/{id}", self._read),
                Route("/batches/{id}/cancel", self._cancel, methods=["POST"]),
                Route("/models", self._list_models),
            ],
            redirect_slashes=False,
        )

    def canonical_path(self, path: str) -> str:
        return path.removeprefix("/v1").rstrip("/") or "/"

    def books(self) -> dict[str, Any]:
        """Every batch, and every request that was executed, with its tokens."""
        now = self._now()
        return {
            "batches": [batch.as_json(now) for batch in self._batches.values()],
            "executed": [record for _, record in self._records.read("executed")],
        }

    def refusal(self, fault: Fault) -> Response:
        match fault.kind:
            case Wire.RATE_LIMIT:
                headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
                return _error(429, fault.text or "Rate limit reached", "requests", "rate_limit_exceeded", headers)
            case Wire.OUT_OF_CREDITS:
                text = "You exceeded your current quota, please check your plan and billing details."
                return _error(fault.status or 429, text, "insufficient_quota", "insufficient_quota")
            case Wire.UNAUTHORIZED:
                return _unauthorized()
        return _error(fault.status or 500, fault.text or "The server had an error.", "server_error", None)

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        await self._models.close()
        self._records.close()

    # --- files ---

    async def _upload(self, request: Request) -> Response:
        if (refused := self._refuse_key(request)) is not None:
            return refused
        form = parts(request.headers.get("content-type", ""), await request.body())
        if form.get("purpose") != b"batch" or "file" not in form:
            return _error(400, "purpose must be batch, and a file given", "invalid_request_error", "invalid_value")
        if len(form["file"]) > FILE_BYTES:
            return _error(400, "The file is larger than 200 MB", "invalid_request_error", "invalid_value")
        return JSONResponse(self._file_json(self._keep_file(form["file"])))

    async def _file(self, request: Request) -> Response:
        return self._refuse_key(request) or self._found(request, "file", lambda key: JSONResponse(self._file_json(key)))

    async def _content(self, request: Request) -> Response:
        def answer(key: str) -> Response:
            return Response(self._records.raw("file", key), media_type="application/octet-stream")

        return self._refuse_key(request) or self._found(request, "file", answer)

    # --- batches ---

    async def _create(self, request: Request) -> Response:
        if (refused := self._refuse_key(request)) is not None:
            return refused
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            return _error(400, "We could not parse the JSON body of your request.", "invalid_request_error", None)
        if (complaint := _complaint(body)) is not None:
            return _error(400, complaint, "invalid_request_error", "invalid_value")
        content = self._records.raw("file", body["input_file_id"])
        if content is None:
            return _error(
                400, f"No such File object: {body['input_file_id']}", "invalid_request_error", "invalid_value"
            )
        lines, errors = read_lines(content, body["endpoint"])
        model = lines[0]["body"]["model"] if lines else ""
        fault = self.faults.take("batch", model)
        now, times = self._now(), self._timings
        in_progress_at = now + times.validate_seconds
        finalizing_at = in_progress_at + times.run_seconds
        ended_at = finalizing_at + times.finalize_seconds
        kind = fault.kind if fault else None
        batch = Batch(
            id=f"batch_{self._records.count('batch') + 1}",
            input_file_id=body["input_file_id"],
            endpoint=body["endpoint"],
            metadata=body.get("metadata"),
            total=len(lines),
            created_at=now,
            in_progress_at=in_progress_at,
            finalizing_at=finalizing_at,
            ended_at=now + 86_400 if kind == BatchFault.EXPIRES else ended_at,
            cancel_seconds=times.cancel_seconds,
            listed_at=now + (fault.seconds if fault and kind == BatchFault.UNLISTED else 0.0),
            errors=[] if kind == BatchFault.FAILS else errors or None,
            fault=kind,
        )
        return JSONResponse(self._put(batch).as_json(now))

    async def _list(self, request: Request) -> Response:
        if (refused := self._refuse_key(request)) is not None:
            return refused
        limit, after = request.query_params.get("limit", "20"), request.query_params.get("after")
        if not limit.isdecimal() or not 1 <= int(limit) <= 100:
            return _error(400, "Invalid 'limit'", "invalid_request_error", "invalid_value")
        newest = [batch for batch in reversed(self._batches.values()) if self._now() >= batch.listed_at]
        start = next((n + 1 for n, batch in enumerate(newest) if batch.id == after), 0) if after else 0
        page = newest[start : start + int(limit)]
        data = [batch.as_json(self._now()) for batch in page]
        return JSONResponse({"object": "list", "data": data, "has_more": start + int(limit) < len(newest)})

    async def _read(self, request: Request) -> Response:
        if (refused := self._refuse_key(request)) is not None:
            return refused
        batch = self._batches.get(request.path_params["id"])
        if batch is None:
            return _not_found(request)
        if not batch.is_executed and batch.status(self._now()) in ("completed", "expired", "cancelled"):
            batch = await self._execute(batch)
        return JSONResponse(batch.as_json(self._now()))

    async def _cancel(self, request: Request) -> Response:
        if (refused := self._refuse_key(request)) is not None:
            return refused
        batch = self._batches.get(request.path_params["id"])
        if batch is None:
            return _not_found(request)
        if batch.status(self._now()) in ("failed", "completed", "expired", "cancelled"):
            return _error(409, "Cannot cancel a batch that has ended", "invalid_request_error", None)
        if batch.cancelled_at is None:
            batch = self._put(replace(batch, cancelled_at=self._now()))
        return JSONResponse(batch.as_json(self._now()))

    async def _execute(self, batch: Batch) -> Batch:
        """Runs what was run of it, and writes both files: the order is not preserved (§4.2)."""
        content = self._records.raw("file", batch.input_file_id)
        lines, _ = read_lines(content or b"", batch.endpoint)
        status = batch.status(self._now())
        ran = lines if status == "completed" else lines[: len(lines) // 2]
        unfit = "batch_expired" if status == "expired" else "batch_cancelled"
        output: list[dict[str, Any]] = []
        error = [_never(line, unfit) for line in lines[len(ran) :]]
        for n, line in enumerate(ran):
            if n == 0 and batch.fault == BatchFault.MISSING_LINE:
                continue
            fails = n == 0 and batch.fault in (BatchFault.LINE_FAILS, BatchFault.LINE_FAILS_IN_OUTPUT)
            done = _refused_line(line) if fails else await self._answered(batch, line)
            is_good = done["response"]["status_code"] == 200 or batch.fault == BatchFault.LINE_FAILS_IN_OUTPUT
            (output if is_good else error).append(done)
        failed = len(error)
        if batch.fault == BatchFault.DOUBLED_LINES:
            output += [*map(_refused_line, lines), _refused_line({"custom_id": "nobody"})]
        has_files = batch.fault != BatchFault.NO_FILES
        return self._put(
            replace(
                batch,
                output_file_id=self._write(output[::-1]) if has_files and output else None,
                error_file_id=self._write(error[::-1]) if has_files and error else None,
                completed=len(lines) - failed,
                failed=failed,
                is_executed=True,
            )
        )

    async def _answered(self, batch: Batch, line: dict[str, Any]) -> dict[str, Any]:
        asked = line["body"]["model"]
        if self._models.models and asked not in self._models.models:
            return _refused_line(line, 404, f"The model `{asked}` does not exist.", "model_not_found")
        limit = line["body"].get("max_completion_tokens") or line["body"].get("max_tokens")
        body = {name: value for name, value in line["body"].items() if name != "max_completion_tokens"}
        body |= {"model": self._models.models.get(asked, asked)} | ({"max_tokens": limit} if limit else {})
        try:
            answer = await self._models.post("/chat/completions", body)
        except ModelServerUnreachable:
            return _refused_line(line, 500, "The server had an error.", None)
        said = answer.json()
        if answer.status == 200:
            said["model"] = asked
            record = {"batch": batch.id, "custom_id": line["custom_id"], "usage": said.get("usage")}
            self._records.put("executed", f"{batch.id} {line['custom_id']}", record)
        return _line(line, {"status_code": answer.status, "request_id": "req_1", "body": said})

    async def _list_models(self, request: Request) -> Response:
        if (refused := self._refuse_key(request)) is not None:
            return refused
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "localnet"} for name in self._models.models]
        return JSONResponse({"object": "list", "data": data})

    # --- what several routes need ---

    def _refuse_key(self, request: Request) -> Response | None:
        is_right = request.headers.get("authorization") == f"Bearer {self._api_key}"
        return None if is_right else _unauthorized()

    def _found(self, request: Request, kind: str, answer: Callable[[str], Response]) -> Response:
        key = request.path_params["id"]
        return _not_found(request) if self._records.raw(kind, key) is None else answer(key)

    def _keep_file(self, content: bytes) -> str:
        key = f"file-{self._records.count('file') + 1}"
        self._records.put("file", key, content)
        return key

    def _write(self, lines: list[dict[str, Any]]) -> str:
        return self._keep_file(b"".join(orjson.dumps(line) + b"\n" for line in lines))

    def _file_json(self, key: str) -> dict[str, Any]:
        return {
            "id": key,
            "object": "file",
            "bytes": len(self._records.raw("file", key) or b""),
            "created_at": int(self._now()),
            "filename": "oracle.jsonl",
            "purpose": "batch",
            "status": "processed",
            "expires_at": None,
        }

    def _put(self, batch: Batch) -> Batch:
        self._batches[batch.id] = batch
        self._records.put("batch", batch.id, asdict(batch))
        return batch


def _complaint(body: Any) -> str | None:
    """What is wrong with the body of a creation."""
    if not isinstance(body, dict) or not isinstance(body.get("input_file_id"), str):
        return "input_file_id is required"
    if body.get("endpoint") != ENDPOINT:
        return "The emulator serves chat completions only"
    if body.get("completion_window") != "24h":
        return "completion_window must be 24h"
    metadata = body.get("metadata")
    if metadata is None:
        return None
    if not isinstance(metadata, dict) or len(metadata) > METADATA_PAIRS:
        return f"metadata has at most {METADATA_PAIRS} pairs"
    for name, value in metadata.items():
        if len(name) > NAME_CHARACTERS or not isinstance(value, str) or len(value) > VALUE_CHARACTERS:
            return f"metadata: {name[:NAME_CHARACTERS]} is too long, or no string"
    return None


def _line(line: Mapping[str, Any], response: Any, error: Any = None) -> dict[str, Any]:
    return {"id": "batch_req_1", "custom_id": line["custom_id"], "response": response, "error": error}


def _refused_line(
    line: Mapping[str, Any],
    status: int = 400,
    message: str = "Invalid value",
    code: str | None = "invalid_value",
) -> dict[str, Any]:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return _line(line, {"status_code": status, "request_id": "req_1", "body": body})


def _never(line: Mapping[str, Any], code: str) -> dict[str, Any]:
    return _line(line, None, {"code": code, "message": "This request could not be executed."})


def _error(
    status: int, message: str, kind: str, code: str | None, headers: Mapping[str, str] | None = None
) -> Response:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error}, status, headers)


def _unauthorized() -> Response:
    return _error(401, "Incorrect API key provided: sk-tes***0001.", "invalid_request_error", "invalid_api_key")


def _not_found(request: Request) -> Response:
    return _error(404, f"No such object: {request.path_params['id']}", "invalid_request_error", None)
