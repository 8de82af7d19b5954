"""Job definitions, CIDs and result documents of Nosana: golden bytes, and every way a job can end."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nosana_wire import KEY, MODEL, TASK, document, printed
from provider_wire import COMPLETION

from oracle.core.compute import Message, Task
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.providers import errors
from oracle.providers.nosana import definition
from oracle.providers.nosana.cid import cid_v0, is_cid_v0
from oracle.providers.nosana.result import completion_of
from oracle.providers.nosana.templates import built_in

IMAGE = "docker.io/vllm/vllm-openai:v0.9.2"

# §7.2 and §7.5, byte for byte.
PINNED = (
    b'{"version":"0.1","type":"container","meta":{"trigger":"python","task_id":"task-0001"},"ops":[{"type":"container/run",'
    b'"id":"main","args":{"image":"docker.io/library/python:3.12-slim","cmd":["python","-c","print(\'RESULT 42\')"],'
    b'"gpu":true},"results":{"answer":{"regex":"^RESULT (\\\\S+)","logType":["stdout"]}}}]}'
)
RESULT = (
    b'{"status":"success","startTime":1785000000000,"endTime":1785000120000,"opStates":[{"operationId":"main",'
    b'"group":"main","providerId":"c0ffee000001","status":"success","startTime":1785000060000,"endTime":1785000119000,'
    b'"exitCode":0,"logs":[{"type":"stdout","log":"RESULT 42\\n","timestamp":"2026-07-25T17:21:58.500000000Z"}],'
    b'"errors":[],"results":{"answer":["RESULT 42","42"]},"diagnostics":{"reason":{"hostShutDown":false,'
    b'"jobStopped":false,"jobExpired":false}}}]}'
)
STUB = (
    b'{"version":"0.1","type":"container","meta":{"trigger":"cli"},"logistics":{"send":{"type":"api-listen","args":{}},'
    b'"receive":{"type":"api-listen","args":{}}},"ops":[]}'
)


@pytest.mark.parametrize(
    ("content", "cid"),
    [
        (b"hello world", "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"),
        (STUB, "QmYBbVdWFgfoTEdPT7mnaXJz6zQzfKb1Pts4A5B9kDMBph"),
        (PINNED, "QmSMXKpPP9P4yuGuR1pdgfY7dYpGNcdY5mmFLeRKryc9oq"),
        (RESULT, "QmVPY2crumfDnT1i7ETSQFG4cWQtmD9LzUCDSQ2a7dTCc8"),
    ],
)
def test_a_cid_is_known_before_the_document_is_pinned(content: bytes, cid: str) -> None:
    assert cid_v0(content) == cid
    assert is_cid_v0(cid)


def test_a_document_of_more_than_one_block_has_no_cid_here() -> None:
    assert is_cid_v0(cid_v0(bytes(262_144)))
    with pytest.raises(ValueError, match="262145"):
        cid_v0(bytes(262_145))


@pytest.mark.parametrize(
    "text", ["", "Qm", "QmSMXKpPP9P4yuGuR1pdgfY7dYpGNcdY5mmFLeRKryc9o0", "bafy" + "a" * 55, None, 7]
)
def test_what_is_no_cid_is_not_taken_for_one(text: Any) -> None:
    assert not is_cid_v0(text)


VLLM = built_in("vllm", image=IMAGE)


def built(task: Task = TASK, **options: Any) -> Any:
    return orjson.loads(definition.build(task, KEY, built_in(**{"name": "vllm", **options}), min_vram_gb=8))


def test_a_definition_carries_the_key_the_body_and_a_constant_script() -> None:
    found = built()
    assert {name: found[name] for name in ("version", "type", "meta")} == {
        "version": "0.1",
        "type": "container",
        "meta": {"trigger": "inference-oracle", "task": KEY, "system_requirements": {"required_vram": 8}},
    }
    (operation,) = found["ops"]
    args = operation["args"]
    assert (operation["type"], operation["id"], args["image"], args["gpu"]) == (
        "container/run",
        "inference",
        IMAGE,
        True,
    )
    assert args["entrypoint"] == ["/bin/sh", "-c"]
    assert set(args["env"]) == {"ORACLE_MODEL", "ORACLE_BODY", "ORACLE_MAX_SECONDS"}
    assert (args["env"]["ORACLE_MODEL"], args["env"]["ORACLE_MAX_SECONDS"]) == (MODEL, "120")
    body = json.loads(base64.b64decode(args["env"]["ORACLE_BODY"]))
    assert body["messages"] == [{"role": "user", "content": "What is six times seven?"}]
    assert (body["model"], body["max_tokens"], body["seed"], body["stream"]) == (MODEL, 32, 7, False)
    assert operation["results"] == {
        "part": {"regex": "^ORACLE_PART \\d+ \\d+ \\S+", "logType": ["stdout"]},
        "end": {"regex": "^ORACLE_END \\d+ \\d+ [0-9a-f]{64}", "logType": ["stdout"]},
    }


@pytest.mark.parametrize(
    ("engine", "server"), [("vllm", "vllm serve "), ("llamacpp", "/app/llama-server -hf ")], ids=["vllm", "llamacpp"]
)
def test_each_engine_starts_its_own_server(engine: str, server: str) -> None:
    (script,) = built(name=engine)["ops"][0]["args"]["cmd"]
    assert script.splitlines()[1].startswith(server)
    assert "{{" not in script
    assert "'%{http_code}'" in script


def test_the_script_of_the_definition_is_what_a_shell_runs(tmp_path: Path) -> None:
    """A real shell runs the script, with stand-ins for the server, curl and sleep; what it prints is read back."""
    (script,) = built()["ops"][0]["args"]["cmd"]
    tools = {
        "vllm": "exec sleep-for-real 30",
        "curl": 'for last; do :; done; case "$last" in */health) exit 0;; esac\n'
        'while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done\n'
        'cp "$BODY_FILE" "$out"; printf 200',
        "sleep": "exit 0",
        "sleep-for-real": 'exec "$(command -v -p sleep)" "$@"',
    }
    for name, text in tools.items():
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\n" + text + "\n")
        tool.chmod(0o755)
    # The script's own files go where this test may write.
    local = script.replace("/tmp/", f"{tmp_path}/")
    (tmp_path / "reply.json").write_bytes(REPLY)
    env = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "ORACLE_MODEL": MODEL,
        "ORACLE_BODY": base64.b64encode(b"{}").decode(),
        "ORACLE_MAX_SECONDS": "5",
        "BODY_FILE": str(tmp_path / "reply.json"),
    }
    ran = subprocess.run(
        ["/bin/sh", "-c", local], env=env, capture_output=True, text=True, timeout=60, start_new_session=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    found = document(results={}, logs=[{"type": "stdout", "log": line + "\n"} for line in lines])
    assert completion_of(found).text == "42"


REPLY = orjson.dumps({**COMPLETION, "model": MODEL, "padding": "x" * 2000})


def test_the_same_purchase_is_the_same_document_and_another_is_another() -> None:
    first = definition.build(TASK, KEY, VLLM, min_vram_gb=8)
    assert definition.build(TASK, KEY, VLLM, min_vram_gb=8) == first
    other = definition.build(TASK, KEY + "0", VLLM, min_vram_gb=8)  # type: ignore[arg-type]
    assert cid_v0(other) != cid_v0(first)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50))
def test_no_prompt_reaches_the_shell_or_the_interpolation_of_the_host(prompt: str) -> None:
    raw = definition.build(replace(TASK, messages=(Message("user", prompt),)), KEY, VLLM, min_vram_gb=8)
    assert b"%%" not in raw
    assert orjson.loads(raw)["ops"][0]["args"]["cmd"] == built()["ops"][0]["args"]["cmd"]


def test_a_prompt_too_large_for_a_variable_is_refused_before_it_is_paid_for() -> None:
    with pytest.raises(OracleError) as caught:
        built(replace(TASK, messages=(Message("user", "x" * 98_300),)))
    assert caught.value.error is errors.INPUT_TOO_LARGE
    built(replace(TASK, messages=(Message("user", "x" * 97_000),)))


@pytest.mark.parametrize("model", ["", "a b", "a%%b", "$(reboot)", "-flag", "a\nb", "x" * 300])
def test_a_model_that_is_no_repository_is_refused(model: str) -> None:
    with pytest.raises(OracleError) as caught:
        built(replace(TASK, model=model))
    assert caught.value.error is errors.DEFINITION_INVALID


def test_the_key_is_found_in_a_definition_however_rest_hands_it_out() -> None:
    raw = definition.build(TASK, KEY, VLLM, min_vram_gb=8)
    assert definition.key_of(orjson.loads(raw)) == KEY
    assert definition.key_of(raw.decode()) == KEY
    for foreign in (
        None,
        "",
        "{",
        "[]",
        {},
        {"meta": 7},
        {"meta": {"trigger": "cli", "task": KEY}},
        orjson.loads(PINNED),
    ):
        assert definition.key_of(foreign) is None


def failure(found: Any) -> OracleError:
    with pytest.raises(OracleError) as caught:
        completion_of(found)
    return caught.value


def test_an_answer_is_put_together_from_what_was_printed() -> None:
    found = completion_of(document())
    assert (found.text, found.model, found.output_tokens) == ("42", MODEL, 5)


PARTS, ENDS = printed(REPLY)


@pytest.mark.parametrize(
    "changes",
    [
        {"results": {"part": PARTS, "end": ENDS}, "logs": []},
        {"results": {}, "logs": [{"type": "stdout", "log": line + "\n"} for line in PARTS + ENDS]},
        {"results": {"part": PARTS[::2][::-1] + PARTS[1::2], "end": ENDS[:1]}, "logs": []},
        {
            "results": {"part": "Invalid regular expression", "end": ENDS},
            "logs": [{"type": "stdout", "log": "\n".join(PARTS)}],
        },
        {
            "results": {"part": PARTS[:3], "end": []},
            "logs": [{"type": "stdout", "log": line} for line in PARTS[3:] + ENDS[:1]],
        },
    ],
    ids=["results", "logs", "out of order", "a broken regex", "half here, half there"],
)
def test_lines_that_a_host_lost_in_one_place_are_taken_from_another(changes: dict[str, Any]) -> None:
    assert completion_of(document(REPLY, **changes)).text == "42"


@pytest.mark.parametrize(
    "changes",
    [
        {"results": {"part": PARTS[1:2], "end": ENDS}, "logs": []},
        {"results": {"part": PARTS, "end": []}, "logs": []},
        {"results": {"part": [PARTS[0].replace("A", "B", 5), *PARTS[1:6]], "end": ENDS}, "logs": []},
        {"results": {"part": ["ORACLE_PART 1 1 !!!"], "end": [f"ORACLE_END 200 1 {'0' * 64}"]}, "logs": []},
        {"results": {"part": [], "end": [f"ORACLE_END 200 0 {hashlib.sha256(b'x').hexdigest()}"]}, "logs": []},
        {"results": None, "logs": None},
        {"results": {"part": [7], "end": {}}, "logs": [7, {"type": "stderr", "log": ENDS[0]}]},
    ],
)
def test_an_output_that_is_not_whole_is_never_an_answer(changes: dict[str, Any]) -> None:
    found = failure(document(REPLY, **changes))
    assert (found.error, found.verdict) == (errors.OUTPUT_DAMAGED, Verdict.RETRY)


REASONS = "diagnostics__reason__"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # The table of §3.7: every one of these is COMPLETED on chain, and most say `success`.
        (document(exitCode=1, status="failed", results={}, logs=[]), errors.JOB_FAILED),
        (document(exitCode=70, status="failed", results={}, logs=[]), errors.JOB_FAILED),
        (
            document(exitCode=137, status="failed", results={}, logs=[], diagnostics__state__OOMKilled=True),
            errors.JOB_FAILED,
        ),
        (document(**{f"{REASONS}jobExpired": True}), errors.JOB_TIMED_OUT),
        (document(**{f"{REASONS}jobStopped": True}), errors.JOB_STOPPED),
        (document(**{f"{REASONS}hostShutDown": True}), errors.HOST_FAILED),
        (document() | {"status": "stopped"}, errors.JOB_STOPPED),
        (document(exitCode=None), errors.JOB_FAILED),
        (document(status="failed"), errors.JOB_FAILED),
        (
            {"status": "validation-error", "errors": [{"path": "$input.ops[0]"}], "opStates": []},
            errors.DEFINITION_INVALID,
        ),
        ({"status": "", "startTime": 0, "endTime": 0, "opStates": []}, errors.HOST_FAILED),
        ({"status": "success", "opStates": []}, errors.HOST_FAILED),
        ({"status": "stopped", "opStates": []}, errors.JOB_STOPPED),
        ({"status": "logistics-error"}, errors.HOST_FAILED),
        (json.loads(RESULT), errors.HOST_FAILED),
        ({}, errors.HOST_FAILED),
        ([], errors.HOST_FAILED),
        (None, errors.HOST_FAILED),
        ({"opStates": [None, 7, {"operationId": "inference"}]}, errors.JOB_FAILED),
        (document(diagnostics=None, exitCode=0), None),
    ],
)
def test_a_job_is_judged_by_its_operation_and_not_by_its_state(found: Any, expected: ErrorCode | None) -> None:
    if expected is None:
        assert completion_of(found).text == "42"
    else:
        assert failure(found).error is expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            404,
            {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError"}},
            errors.MODEL_UNAVAILABLE,
        ),
        (400, {"error": {"message": "too long", "type": "BadRequestError", "code": 400}}, errors.REQUEST_REFUSED),
        (500, {"error": {"message": "engine dead", "type": "InternalServerError"}}, errors.UNAVAILABLE),
        (504, "<html>", errors.UNAVAILABLE),
    ],
)
def test_a_refusal_of_the_model_server_is_told_as_such(status: int, body: Any, expected: ErrorCode) -> None:
    assert failure(document(orjson.dumps(body), status)).error is expected


@pytest.mark.parametrize("changes", [{"exitCode": 0}, {"status": "success"}, {"exitCode": 0, "status": "success"}])
def test_a_refusal_is_no_answer_whatever_the_host_says_of_it(changes: dict[str, Any]) -> None:
    assert failure(document(orjson.dumps({"error": {"message": "no"}}), 400, **changes)).error is errors.REQUEST_REFUSED


def test_an_answer_that_is_not_finished_is_no_answer_here_either() -> None:
    unfinished = orjson.dumps(orjson.loads(orjson.dumps(COMPLETION).replace(b'"stop"', b"null")))
    assert failure(document(unfinished)).error is errors.ANSWER_INCOMPLETE
    assert failure(document(b"not JSON")).error is errors.ANSWER_INCOMPLETE


def test_what_a_host_says_of_a_failure_is_told_shortly() -> None:
    pull = [{"event": "operation-error", "message": "(HTTP code 404) no such image", "code": 404}]
    found = failure(document(exitCode=2, status="failed", results={}, logs=[], errors=pull))
    assert found.detail == "exit code 2, (HTTP code 404) no such image"
    long = failure(document(exitCode=2, status="failed", results={}, logs=[], error={"message": "x\n" * 5000}))
    assert len(long.detail) < 250
