"""Templates of job definitions, and the validator that every definition passes before anything is paid."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from nosana_wire import KEY, MODEL, TASK, document

from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.nosana import definition, schema, templates
from oracle.providers.nosana.result import completion_of
from oracle.providers.nosana.templates import OPERATION, Template, TemplateName, built_in, from_file
from oracle.providers.registry import build

NOTEBOOK = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()

# nosana.md §7.2, §7.4 and §3.9: what live posts looked like.
SPEC_EXAMPLE: dict[str, Any] = {
    "version": "0.1",
    "type": "container",
    "meta": {"trigger": "python", "task_id": "task-0001"},
    "ops": [
        {
            "type": "container/run",
            "id": "main",
            "args": {
                "image": "docker.io/library/python:3.12-slim",
                "cmd": ["python", "-c", "print('RESULT 42')"],
                "gpu": True,
            },
            "results": {"answer": {"regex": "^RESULT (\\S+)", "logType": ["stdout"]}},
        }
    ],
}
JUPYTER_FIXTURE = {
    "version": "0.1",
    "type": "container",
    "meta": {"trigger": "dashboard", "system_requirements": {"required_vram": 4}},
    "ops": [
        {
            "id": "Pytorch",
            "type": "container/run",
            "args": {
                "image": "docker.io/nosana/pytorch-jupyter:2.0.0",
                "gpu": True,
                "expose": 8888,
                "cmd": ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--allow-root"],
            },
        }
    ],
}
EVERYTHING = {
    "version": "0.1",
    "type": "container",
    "meta": {"trigger": "x", "tags": ["a", 1], "system_resources": {"required_vram": 4, "unit": "GB"}, "share": 0.5},
    "global": {"image": "i", "gpu": True, "entrypoint": ["a"], "env": {}, "work_dir": "/", "variables": {"a": "b"}},
    "deployment_id": "d",
    "ops": [
        {"id": "disk", "type": "container/create-volume", "args": {"name": "models"}},
        {
            "id": "server",
            "type": "container/run",
            "args": {
                "image": "docker.io/example/server:1",
                "volumes": [{"name": "models", "dest": "/models"}],
                "expose": [
                    {
                        "port": 8000,
                        "type": "api",
                        "health_checks": [
                            {
                                "type": "http",
                                "path": "/health",
                                "method": "GET",
                                "expected_status": 200,
                                "continuous": False,
                            },
                            {"type": "websocket", "expected_response": "ok", "continuous": True},
                        ],
                    },
                    "9000-9010",
                ],
                "private": True,
                "aliases": ["api"],
                "resources": [
                    {"type": "S3", "target": "/a", "buckets": [{"url": "s3://x", "files": ["f"]}], "allowWrite": True},
                    {"type": "HF", "repo": "o/r", "target": "/b", "files": ["model.safetensors"]},
                    {"type": "Ollama", "model": "smollm2:135m"},
                ],
                "authentication": {"docker": {"username": "u", "password": "p"}},
                "restart_policy": {"policy": "on-failure", "restart_tries": 3},
            },
        },
        {
            "id": "client",
            "type": "container/run",
            "args": {"image": "i", "env": {"HOST": "%%ops.server.host%%"}, "restart_policy": "no", "expose": 1},
            "results": {"all": "RESULT", "end": {"regex": "END\\$", "logType": ["stdout", "stderr"]}},
            "execution": {"group": "g", "depends_on": ["server"], "stop_if_dependent_stops": True},
        },
    ],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The example of the specification with one thing changed, or taken away where the value is `...`."""
    found = copy.deepcopy(SPEC_EXAMPLE)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    inner: Any = found
    for step in way:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return found


@pytest.mark.parametrize("valid", [SPEC_EXAMPLE, JUPYTER_FIXTURE, EVERYTHING], ids=["7.2", "7.4", "everything"])
def test_what_the_specification_allows_is_valid(valid: dict[str, Any]) -> None:
    schema.validate(valid)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", "0.2"),
        ("version", 0.1),
        ("type", "vm"),
        ("ops", []),
        ("ops", ...),
        ("surprise", 1),
        ("ssh", {"public_keys": []}),
        ("meta.flag", True),
        ("meta.deep", {"a": {"b": 1}}),
        ("meta.none", None),
        ("ops.0.id", "two words"),
        ("ops.0.id", ""),
        ("ops.0.id", ...),
        ("ops.0.type", "container/explode"),
        ("ops.0.extra", 1),
        ("ops.0.args.image", ...),
        ("ops.0.args.image", ""),
        ("ops.0.args.imagee", "x"),
        ("ops.0.args.gpu", "yes"),
        ("ops.0.args.gpu", 1),
        ("ops.0.args.cmd", ["a", 1]),
        ("ops.0.args.env", {"A": 1}),
        ("ops.0.args.env", {"A": "x" * 131_069}),
        ("ops.0.args.env", {"A": "50%%"}),
        ("ops.0.args.env", {"A": "%%secrets.x%%"}),
        ("ops.0.args.expose", {"port": 1, "kind": "api"}),
        ("ops.0.args.expose", {"port": 1, "health_checks": [{"type": "http", "path": "/", "method": "GET"}]}),
        ("ops.0.args.expose", True),
        ("ops.0.args.volumes", [{"name": "nobody-made-it", "dest": "/x"}]),
        ("ops.0.args.resources", [{"type": "FTP", "target": "/x"}]),
        ("ops.0.args.resources", [{"type": "HF", "repo": "o/r"}]),
        ("ops.0.args.restart_policy", "sometimes"),
        ("ops.0.args.restart_policy", {"policy": "always", "restart_tries": 1}),
        ("ops.0.results.answer", {"regex": "x"}),
        ("ops.0.results.answer", {"regex": "x", "logType": ["console"]}),
        ("ops.0.results.answer", "^RESULT (\\S+)$"),
        ("ops.0.execution", {"timeout": 5}),
        ("ops.0.execution", {"depends_on": ["nobody"]}),
        ("ops.0.execution", {"depends_on": ["main"]}),
        ("ops", [SPEC_EXAMPLE["ops"][0]] * 2),
        ("logistics", {"send": {"type": "carrier-pigeon", "args": {}}, "receive": {"type": "api", "args": {}}}),
    ],
    ids=str,
)
def test_what_hosts_would_refuse_or_run_as_something_else_is_refused_first(path: str, value: Any) -> None:
    with pytest.raises(OracleError) as raised:
        schema.validate(changed(path, value))
    assert raised.value.error is errors.DEFINITION_INVALID
    assert len(str(raised.value)) < 400


def test_a_refusal_does_not_repeat_what_is_there() -> None:
    with pytest.raises(OracleError) as raised:
        schema.validate(changed("ops.0.args.env", {"PROMPT": ["a secret prompt"]}))
    assert "secret" not in str(raised.value)


def shipped(name: TemplateName) -> Template:
    command = "cat" if name == "container" else None
    image = "docker.io/library/debian:12" if name == "container" else None
    return built_in(name, image=image, command=command, notebook=NOTEBOOK if name == "jupyter" else None)


@pytest.mark.parametrize("name", ["vllm", "llamacpp", "ollama", "container", "jupyter"])
def test_every_shipped_template_is_valid_and_carries_the_request(name: TemplateName) -> None:
    found = json.loads(definition.build(TASK, KEY, shipped(name), min_vram_gb=8))
    (operation,) = found["ops"]
    assert operation["id"] == OPERATION
    assert operation["results"] == dict(templates.RESULTS)
    env = operation["args"]["env"]
    body = json.loads(base64.b64decode(env["ORACLE_BODY"]))
    assert body["messages"] == [{"role": "user", "content": "What is six times seven?"}]
    assert env["ORACLE_MODEL"] == MODEL
    assert found["meta"]["task"] == KEY
    assert "What is six" not in json.dumps(operation["args"]["cmd"])


def test_filling_a_template_leaves_the_template_as_it_was() -> None:
    template = shipped("vllm")
    before = copy.deepcopy(dict(template.document))
    definition.build(TASK, KEY, template, min_vram_gb=8)
    assert template.document == before


@pytest.mark.parametrize(
    "options",
    [
        {"template": "container", "image": "docker.io/library/debian:12"},
        {"template": "container", "command": "cat"},
        {"template": "vllm", "command": "cat"},
        {"template": "jupyter"},
        {"template": "jupyter", "notebook": "/no/such/notebook.ipynb"},
        {"template": "vllm", "image": "a; rm -rf /"},
        {"template": "vlm"},
        {"template": "/no/such/template.json"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_a_mistake_in_a_template_is_told_when_the_provider_is_built(options: dict[str, str]) -> None:
    settings = {"kind": "nosana", "api_key": "nos_x", "pinata_jwt": "y", **options}
    with pytest.raises(OracleError) as raised:
        build("nosana", settings, environ={})
    assert raised.value.error in (errors.SETTINGS_INVALID, errors.DEFINITION_INVALID)


def test_a_definition_of_ones_own_keeps_what_is_in_it(tmp_path: Path) -> None:
    own = copy.deepcopy(EVERYTHING)
    own["ops"][2] = {**own["ops"][2], "id": OPERATION, "results": dict(templates.RESULTS)}  # type: ignore[index]
    (tmp_path / "own.json").write_text(json.dumps(own))
    found = json.loads(definition.build(TASK, KEY, from_file(tmp_path / "own.json"), min_vram_gb=8))
    assert [operation["id"] for operation in found["ops"]] == ["disk", "server", OPERATION]
    assert found["ops"][2]["args"]["env"]["HOST"] == "%%ops.server.host%%"
    assert found["ops"][2]["args"]["env"]["ORACLE_MODEL"] == MODEL
    assert found["meta"]["tags"] == ["a", 1]
    assert (found["meta"]["trigger"], found["meta"]["task"]) == ("inference-oracle", KEY)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "7", json.dumps(SPEC_EXAMPLE), json.dumps({**SPEC_EXAMPLE, "surprise": 1}), "[" * 100_000],
    ids=["half", "list", "number", "no inference", "unknown field", "deep"],
)
def test_a_file_that_is_no_template_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "own.json").write_text(content)
    with pytest.raises(OracleError) as raised:
        from_file(tmp_path / "own.json")
    assert raised.value.error in (errors.SETTINGS_INVALID, errors.DEFINITION_INVALID)


def test_results_of_ones_own_are_refused_for_they_would_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps(changed("ops.0.id", OPERATION)))
    with pytest.raises(OracleError) as raised:
        from_file(tmp_path / "own.json")
    assert raised.value.error is errors.DEFINITION_INVALID


def test_the_answer_of_a_text_template_is_its_text_and_the_name_of_its_model() -> None:
    found = completion_of(text_document(b"example/model\nforty\ntwo\n"))
    assert (found.text, found.model, found.finish_reason) == ("forty\ntwo\n", "example/model", "stop")


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"m\n", errors.ANSWER_EMPTY), (b"m\n \n", errors.ANSWER_EMPTY), (b"m\n\xff\xfe", errors.ANSWER_INCOMPLETE)],
)
def test_a_text_template_that_says_nothing_readable_has_no_answer(content: bytes, code: Any) -> None:
    with pytest.raises(OracleError) as raised:
        completion_of(text_document(content))
    assert raised.value.error is code


def test_a_text_template_that_fails_is_judged_by_its_operation() -> None:
    failed = text_document(b"m\nhalf an answer")
    failed["opStates"][0] |= {"status": "failed", "exitCode": 72}
    with pytest.raises(OracleError) as raised:
        completion_of(failed)
    assert raised.value.error is errors.JOB_FAILED


def text_document(content: bytes) -> dict[str, Any]:
    """The result of a job that succeeded and printed this under the status 000."""
    found = document(content)
    (operation,) = found["opStates"]
    for kind in ("logs", "results"):
        operation[kind] = json.loads(json.dumps(operation[kind]).replace("ORACLE_END 200", "ORACLE_END 000"))
    return found
