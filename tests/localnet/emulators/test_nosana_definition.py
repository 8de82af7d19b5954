"""What a host accepts as a job definition (nosana.md §3.1 to §3.6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nosana_template as template
import pytest

from oracle.localnet.emulators.nosana.definition import validate


def rich() -> dict[str, Any]:
    """Uses every field of §3."""
    return {
        "version": "0.1",
        "type": "container",
        "meta": {"trigger": "t", "system_requirements": {"required_vram": 4}, "list": ["a", 1], "number": 1.5},
        "global": {"image": "i", "gpu": False, "entrypoint": ["e"], "env": {"A": "b"}, "variables": {"v": "w"}},
        "logistics": {
            "send": {"type": "api", "args": {"endpoint": "x"}},
            "receive": {"type": "api-listen", "args": {}},
        },
        "deployment_id": "d",
        "ssh": {"public_keys": ["k"]},
        "ops": [
            {"id": "volume", "type": "container/create-volume", "args": {"name": "v"}},
            {
                "id": "run",
                "type": "container/run",
                "args": {
                    "image": "i",
                    "cmd": "echo",
                    "entrypoint": "sh",
                    "env": {"A": "b"},
                    "gpu": True,
                    "work_dir": "/",
                    "volumes": [{"name": "v", "dest": "/v"}],
                    "expose": [
                        8000,
                        "8001-8002",
                        {
                            "port": 8003,
                            "type": "webapi",
                            "health_checks": [
                                {
                                    "type": "http",
                                    "path": "/",
                                    "method": "GET",
                                    "expected_status": 200,
                                    "continuous": False,
                                }
                            ],
                        },
                    ],
                    "private": True,
                    "resources": [
                        {"type": "S3", "target": "/t", "url": "u", "files": ["f"], "allowWrite": True},
                        {"type": "HF", "repo": "r", "target": "/t", "revision": "main"},
                        {"type": "Ollama", "model": "m"},
                    ],
                    "authentication": {"docker": {"username": "u", "password": "p"}},
                    "restart_policy": {"policy": "on-failure", "restart_tries": 3},
                    "aliases": ["a"],
                },
                "results": {"plain": "^x", "filtered": {"regex": "y", "logType": ["stdout", "stderr"]}},
                "execution": {
                    "group": "g",
                    "depends_on": ["volume"],
                    "stop_if_dependent_stops": True,
                    "timeout": 60,
                },
            },
        ],
    }


@pytest.mark.parametrize("definition", [template.SPEC_EXAMPLE, rich(), template.inference()])
def test_a_good_definition_is_accepted(definition: dict[str, Any]) -> None:
    assert validate(definition) == []


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    *way, last, value = path

    def change(definition: dict[str, Any]) -> None:
        for step in way:
            definition = definition[step]
        definition[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "path", "expected"),
    [
        (lambda d: d["ops"][1]["args"].pop("image"), "$input.ops[1].args.image", "string"),
        (put("version", "0.2"), "$input.version", '"0.1"'),
        (put("surprise", 1), "$input.surprise", "undefined"),
        (put("ops", 1, "args", "memory", 4), "$input.ops[1].args.memory", "undefined"),
        (put("ops", 1, "args", "env", "N", 3), "$input.ops[1].args.env.N", "string"),
        (put("ops", 1, "args", "gpu", "yes"), "$input.ops[1].args.gpu", "boolean"),
        (put("ops", 1, "args", "cmd", [1]), "$input.ops[1].args.cmd", "(Array<string> | string)"),
        (put("ops", 1, "type", "container/stop"), "$input.ops[1].type", '"container/run" | "container/create-volume"'),
        (put("ops", 1, "results", "plain", 3), "$input.ops[1].results.plain", "(OperationResult | string)"),
        (put("ops", {}), "$input.ops", "Array"),
        (put("ops", 0, "id", "run"), "$input.ops[1].id", "a unique id without spaces"),
        (put("ops", 0, "id", "a b"), "$input.ops[0].id", "a unique id without spaces"),
        (put("meta", "flag", True), "$input.meta.flag", "(string | number | Array | object)"),
        (put("meta", "deep", {"a": {"b": 1}}), "$input.meta.deep", "(string | number | Array | object)"),
    ],
)
def test_a_bad_definition_is_refused_where_it_is_bad(change: Callable[[Any], Any], path: str, expected: str) -> None:
    definition = rich()
    change(definition)
    assert validate(definition) == [{"path": path, "expected": expected}]


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_what_is_no_object_is_refused(value: object) -> None:
    assert validate(value) == [{"path": "$input", "expected": "object"}]
