"""Both emulators run their jobs on the real model, end to end over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator

import nosana_template as template
import orjson
import pytest
from nosana_user import loopback, served_nosana

from oracle.core.errors import OracleError
from oracle.localnet.emulators.ionet import Ionet
from oracle.localnet.emulators.server import serve
from oracle.model.errors import DOWNLOAD_FAILED
from oracle.model.server import LocalModel
from oracle.model.weights import ensure_weights, weights_directory

pytestmark = [pytest.mark.localnet, pytest.mark.model]

CHAT = template.chat("What is the capital of France? Answer in one short sentence.", max_tokens=24)


@pytest.fixture(scope="module")
def smollm2() -> Iterator[LocalModel]:
    try:
        weights = ensure_weights(weights_directory(os.environ))
    except OracleError as error:
        if error.error is DOWNLOAD_FAILED:
            pytest.skip(str(error))
        raise
    with LocalModel(weights) as running:
        yield running


async def test_a_nosana_job_and_an_ionet_call_give_the_answer_of_the_real_model(smollm2: LocalModel) -> None:
    async with served_nosana(smollm2.base_url) as user:
        job = await user.ended(await user.post(template.inference(body=CHAT)), seconds=60)
        (state,) = job["jobResult"]["opStates"]
        answer = template.answer_in(state["results"])
    assert (state["status"], state["exitCode"]) == ("success", 0)
    assert answer is not None
    by_nosana = orjson.loads(answer)
    assert by_nosana["model"] == template.REPOSITORY
    assert "Paris" in by_nosana["choices"][0]["message"]["content"]

    async with serve(Ionet(smollm2.base_url)) as running, loopback(running) as http:
        key = {"authorization": "Bearer io-v2-localnet"}
        whole = (await http.post("/v1/chat/completions", json=CHAT, headers=key, timeout=60)).json()
        stream = await http.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=key, timeout=60)
        books = (await http.get("/_emulator/books")).json()
    assert whole["choices"][0]["message"]["content"] == by_nosana["choices"][0]["message"]["content"]
    assert whole["usage"]["prompt_tokens"] == by_nosana["usage"]["prompt_tokens"]
    events = [orjson.loads(line[6:]) for line in stream.text.split("\n\n")[:-2]]
    pieces = [choice["delta"].get("content") or "" for event in events for choice in event["choices"]]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert events[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    assert [inference["outcome"] for inference in books["inferences"]] == ["answered", "answered"]
