"""From settings to a provider: every mistake named, no secret repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from provider_wire import COMPLETION, STREAM, TASK, Wire, answer
from pydantic import SecretStr

from oracle.core.compute import IdempotencyKey, JobState, Recovery
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.chat import ChatCompute
from oracle.providers.registry import build, parse
from oracle.providers.secrets import read_secret


def refused(settings: dict[str, Any]) -> OracleError:
    with pytest.raises(OracleError) as caught:
        parse(settings)
    return caught.value


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kind": "opanai"}, "kind"),
        ({}, "kind"),
        ({"kind": "openai", "max_concurent_jobs": 3}, "max_concurent_jobs"),
        ({"kind": "openai", "max_concurrent_jobs": 0}, "max_concurrent_jobs"),
        ({"kind": "openai", "requests_per_second": -1}, "requests_per_second"),
        ({"kind": "openai", "model_prices": {"m": {"input_usd_per_million_tokens": "NaN"}}}, "model_prices.m"),
    ],
)
def test_a_wrong_option_is_named(settings: dict[str, Any], named: str) -> None:
    found = refused(settings)
    assert found.error is errors.SETTINGS_INVALID
    assert named in found.detail


def test_a_secret_in_a_wrong_place_is_not_repeated() -> None:
    assert "hunter2" not in str(refused({"kind": "openai", "api_key": ["hunter2"]}))
    assert "hunter2" not in str(refused({"kind": "openai", "apikey": "hunter2"}))
    assert "hunter2" not in repr(parse({"kind": "openai", "api_key": "hunter2"}))


def test_a_secret_is_read_from_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-file\n")
    assert read_secret("api_key", SecretStr(" sk-value "), None, None, {}) == "sk-value"
    assert read_secret("api_key", None, file, None, {}) == "sk-file"
    assert read_secret("api_key", None, None, "KEY", {"KEY": "sk-env"}) == "sk-env"
    assert read_secret("api_key", None, None, None, {"KEY": "sk-env"}) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"two\nlines", "clé".encode()])
def test_a_file_without_a_usable_secret_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(OracleError) as caught:
        read_secret("api_key", None, file, None, {})
    assert caught.value.error is errors.SECRET_MISSING
    assert "lines" not in caught.value.detail


def test_a_secret_that_is_not_there_is_told(tmp_path: Path) -> None:
    for file, variable in [(tmp_path / "none", None), (tmp_path, None), (None, "NONE")]:
        with pytest.raises(OracleError) as caught:
            read_secret("api_key", None, file, variable, {})
        assert caught.value.error is errors.SECRET_MISSING


def test_a_secret_named_twice_is_ambiguous() -> None:
    with pytest.raises(OracleError) as caught:
        read_secret("api_key", SecretStr("a"), None, "KEY", {"KEY": "b"})
    assert caught.value.error is errors.SETTINGS_INVALID


def built(wire: Wire, **settings: Any) -> ChatCompute:
    compute = build("example", {"kind": "openai", **settings}, transport=wire.transport, environ={"KEY": "sk-env"})
    assert isinstance(compute, ChatCompute)
    return compute


async def test_a_provider_calls_with_its_key_and_headers() -> None:
    wire = Wire(answer({"data": []}))
    compute = built(wire, base_url="https://api.example/v1", api_key_env="KEY", organization="org-1", project="p-1")
    await compute.models()
    headers = wire.requests[0].headers
    assert headers["authorization"] == "Bearer sk-env"
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "p-1")


async def test_a_provider_without_a_key_sends_none() -> None:
    wire = Wire(answer({"data": []}))
    await built(wire).models()
    assert "authorization" not in wire.requests[0].headers


@pytest.mark.parametrize(
    ("server", "limit", "extra"),
    [
        ("openai", "max_completion_tokens", set()),
        ("other", "max_tokens", set()),
        ("ollama", "max_tokens", set()),
        ("vllm", "max_tokens", {"top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"}),
        ("llamacpp", "max_tokens", {"top_k", "min_p", "repeat_penalty", "cache_prompt", "stream_options"}),
    ],
)
async def test_each_server_is_asked_the_way_it_wants(server: str, limit: str, extra: set[str]) -> None:
    wire = Wire(answer(STREAM if server == "llamacpp" else COMPLETION))
    await built(wire, server=server).chat.complete(TASK)
    common = {"model", "messages", "stream", "temperature", "top_p", "seed"}
    assert set(wire.body()) == common | {limit} | extra


async def test_an_option_of_the_operator_wins_over_the_default_of_a_server() -> None:
    wire = Wire(answer(STREAM))
    compute = built(wire, server="llamacpp", token_limit_field="max_completion_tokens", extra_body={"top_k": 5})
    await compute.chat.complete(TASK)
    assert (wire.body()["top_k"], wire.body()["max_completion_tokens"]) == (5, 32)


async def test_only_a_free_server_is_called_again_after_a_lost_answer() -> None:
    wire = Wire(answer(COMPLETION))
    assert built(wire).capabilities.recovery is Recovery.NEITHER
    free = built(wire, free=True)
    assert free.capabilities.recovery is Recovery.REPEAT
    assert (await free.quote(TASK)).cost_lamports == 0


async def test_a_model_without_a_price_is_not_quoted() -> None:
    wire = Wire(answer(COMPLETION))
    with pytest.raises(OracleError) as caught:
        await built(wire).quote(TASK)
    assert caught.value.error is errors.PRICE_UNKNOWN


async def test_a_built_provider_runs_a_job_to_its_end() -> None:
    compute = built(Wire(answer(COMPLETION)))
    handle = await compute.submit(TASK, IdempotencyKey("k"))
    while (state := (await compute.poll([handle]))[handle].state) in (JobState.QUEUED, JobState.RUNNING):
        await compute._jobs["k"].runner if compute._jobs["k"].runner else None
    assert state is JobState.SUCCEEDED
    assert (await compute.fetch(handle)).model_run == "gpt-x-2026-08-01"
    await compute.close()
