"""Whatever comes in is refused in the network's words: an emulator's own fault would look like one of the network's."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import orjson
import pytest
from nosana_user import loopback

from oracle.localnet.emulators.ionet import Ionet, IonetCloud
from oracle.localnet.emulators.nosana import Nosana
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.server import Emulator, serve

pytestmark = pytest.mark.localnet

VALUES: list[Any] = [None, True, -1, 0, 1.5, 10**30, "", "x", "é\u2028\x00", [], [None], {}, {"a": {"b": []}}, [[[]]]]
CHAT = {
    "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "messages": [{"role": "user", "content": "x"}],
    "temperature": 0,
    "seed": 1,
    "max_tokens": 5,
    "stop": "x",
    "stream": False,
    "stream_options": None,
    "response_format": None,
}
LISTING = {
    "ipfsHash": "QmSMXKpPP9P4yuGuR1pdgfY7dYpGNcdY5mmFLeRKryc9oq",
    "market": "nvidia-3060",
    "timeout": 3600,
    "node": "x",
}
DEPLOYMENT = {
    "name": "n",
    "market": "nvidia-3060",
    "replicas": 1,
    "timeout": 60,
    "strategy": "SIMPLE",
    "job_definition": {"version": "0.1", "type": "container", "ops": []},
    "autostart": True,
}
RENTAL = {
    "resource_private_name": "n",
    "duration_hours": 1,
    "gpus_per_container": 1,
    "hardware_id": 12,
    "location_ids": [1],
    "container_config": {"traffic_port": 8080},
    "registry_config": {"image_url": "x"},
}
NOSANA_ROUTES = {
    "/jobs/list": LISTING,
    "/jobs/list/batch": {"jobs": [LISTING]},
    "/jobs/assign/batch": {"jobs": [LISTING]},
    "/jobs/extend/batch": {"jobs": [{"jobAddress": "x", "seconds": 60}]},
    "/jobs/stop/batch": {"jobs": [{"jobAddress": "x"}]},
    "/jobs/x/extend": {"seconds": 60},
    "/jobs/x/stop": {},
    "/jobs/batch": {"addresses": ["x"]},
    "/auth/validate-api-key": {"apiKey": "x"},
    "/deployments/create": DEPLOYMENT,
    "/pinning/pinJSONToIPFS": {},
}
EMULATORS: list[tuple[type[Any], dict[str, str], dict[str, Any]]] = [
    (Nosana, {"authorization": "Bearer nos_localnet", "idempotency-key": "k"}, NOSANA_ROUTES),
    (
        Ionet,
        {"authorization": "Bearer io-v2-localnet"},
        {"/v1/chat/completions": CHAT, "/v1/embeddings": {"model": "m", "input": "x"}},
    ),
    (
        IonetCloud,
        {"x-api-key": "io-cloud-localnet"},
        {"/deploy": RENTAL, "/deployment/x/extend": {"duration_hours": 1}},
    ),
    (ScriptedOpenAI, {}, {"/v1/chat/completions": CHAT, "/v1/embeddings": {"model": "m", "input": "x"}}),
]


def hostile_bodies(good: dict[str, Any]) -> list[bytes]:
    """No JSON, no object, and the good body with one field replaced by something else, or gone."""
    bodies = [b"", b"\xff\xfe", b"{", b'{"a":' * 500, *map(orjson_or_python, VALUES)]
    for name, value in itertools.product(good, VALUES):
        bodies.append(orjson_or_python({**good, name: value}))
    return bodies + [orjson_or_python({k: v for k, v in good.items() if k != name}) for name in good]


def orjson_or_python(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return str(value).replace("'", '"').encode()


@pytest.mark.parametrize(("emulator", "headers", "routes"), EMULATORS, ids=lambda one: getattr(one, "__name__", ""))
async def test_no_body_makes_an_emulator_fall_over(
    model: tuple[ScriptedOpenAI, str],
    emulator: type[Any],
    headers: dict[str, str],
    routes: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    made: Emulator = emulator() if emulator is ScriptedOpenAI else emulator(model[1])
    async with serve(made) as running, loopback(running) as http:
        for path, good in routes.items():
            for body in hostile_bodies(good):
                answer = await http.post(path, content=body, headers=headers)
                assert answer.status_code < 500, (path, body[:200], answer.text)
                assert answer.headers["content-type"].startswith(("application/json", "text/event-stream"))
    assert caplog.records == []
