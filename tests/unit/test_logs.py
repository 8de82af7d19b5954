"""A log tells what happened, one event a line, and no secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from solders.keypair import Keypair

from oracle.config import Log
from oracle.logs import redact, set_up

SECRET = "sk-0123456789abcdef"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def logged(settings: Log, stream: io.StringIO | None = None, **values: Any) -> str:
    stream = stream or io.StringIO()
    set_up(settings, stream)
    structlog.get_logger("test").warning("what happened", **values)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://rpc.example/v1/{SECRET}", "https://rpc.example/…"),
        (f"https://rpc.example/?api-key={SECRET}", "https://rpc.example/…"),
        (f"https://rpc.example?api-key={SECRET}", "https://rpc.example/…"),
        (f"https://rpc.example#{SECRET}", "https://rpc.example/…"),
        (f"wss://user:{SECRET}@rpc.example:8900/a", "wss://rpc.example:8900/…"),
        (f"postgresql+asyncpg://oracle:{SECRET}@db/oracle", "postgresql+asyncpg://db/…"),
        (f"postgresql://oracle:{SECRET}/@:x@db", "postgresql://db"),
        (f"HTTPS://RPC.example/{SECRET}", "HTTPS://RPC.example/…"),
        ("http://127.0.0.1:8787", "http://127.0.0.1:8787"),
        ("http://127.0.0.1:8787/", "http://127.0.0.1:8787/"),
    ],
)
def test_of_a_url_only_scheme_and_host_are_shown(url: str, shown: str) -> None:
    assert redact(None, "", {"event": "x", "url": url})["url"] == shown
    assert redact(None, "", {"event": f"cannot reach {url} now"})["event"] == f"cannot reach {shown} now"


@pytest.mark.parametrize(
    "value",
    [
        [f"https://rpc.example/{SECRET}"],
        {"endpoint": f"https://rpc.example/{SECRET}"},
        {"deep": [{"api_key": SECRET}]},
        ({"Authorization": f"Bearer {SECRET}"},),
        f"header 'Authorization: Bearer {SECRET}' is refused",
        SecretStr(SECRET),
        [SecretStr(SECRET)],
        ValueError(f"GET https://rpc.example/{SECRET} failed"),
        SECRET.encode(),
    ],
)
def test_a_secret_is_hidden_wherever_it_hides(value: Any) -> None:
    for form in ("json", "console"):
        assert SECRET not in logged(Log(format=form), value=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    ["api_key", "apikey", "API_KEY", "client_secret", "password", "authorization", "private_key", "jwt", "Keypair"],
)
def test_a_value_whose_name_speaks_of_a_secret_is_hidden(name: str) -> None:
    assert SECRET not in logged(Log(format="json"), **{name: SECRET})
    assert SECRET not in logged(Log(format="json"), **{name: [SECRET]})


def test_a_keypair_is_hidden_under_any_name() -> None:
    keypair = Keypair()
    for form in ("json", "console"):
        shown = logged(Log(format=form), who=keypair, all_of_them=[keypair], by_name={"a": keypair})  # type: ignore[arg-type]
        assert str(keypair) not in shown
        assert shown.count("***") == 3


def test_a_traceback_shows_neither_secrets_nor_the_values_of_variables() -> None:
    for form, stream in (("json", io.StringIO()), ("console", Terminal())):
        set_up(Log(format=form), stream)  # type: ignore[arg-type]
        try:
            api_token = SECRET
            raise RuntimeError(f"no answer from https://rpc.example/{api_token}")
        except RuntimeError:
            structlog.get_logger("test").exception("step failed")
        assert SECRET not in stream.getvalue()
        assert "RuntimeError" in stream.getvalue()


def test_what_a_library_logs_goes_the_same_way() -> None:
    stream = io.StringIO()
    set_up(Log(format="json"), stream)
    logging.getLogger("some.library").warning("retrying https://rpc.example/%s", SECRET)
    try:
        raise OSError(f"https://rpc.example/{SECRET}")
    except OSError:
        logging.getLogger("asyncio").exception("task failed")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("httpx").warning("HTTP Request: GET https://rpc.example/%s", SECRET)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["logger"] for line in lines] == ["some.library", "asyncio"]
    assert lines[0]["event"] == "retrying https://rpc.example/…"
    assert "OSError" in lines[1]["exception"]
    assert SECRET not in stream.getvalue()


def test_text_from_outside_cannot_forge_a_line_or_drive_a_terminal() -> None:
    hostile = "no\n2026-01-01T00:00:00Z [info] settled\r\x1b[2J\x1b]0;owned\x07\u2028end\x9b1m"
    for form in ("json", "console"):
        shown = logged(Log(format=form), detail=hostile)  # type: ignore[arg-type]
        assert shown.count("\n") == 1
        assert not {"\x1b", "\r", "\x07", "\x9b", "\u2028"} & set(shown)
        assert "end" in shown


def test_a_lone_surrogate_is_no_reason_to_stop() -> None:
    assert "half" in logged(Log(format="json"), detail="half \ud83d of a smile")
    assert "half" in logged(Log(format="console"), detail="half \ud83d of a smile")


def test_auto_means_json_for_machines_and_plain_text_for_people() -> None:
    assert json.loads(logged(Log(format="auto")))["event"] == "what happened"
    assert "what happened" in logged(Log(format="auto"), Terminal())
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(logged(Log(format="auto"), Terminal()))


def test_less_than_the_level_is_not_logged() -> None:
    assert logged(Log(level="error")) == ""
    assert logged(Log(level="warning")) != ""


def test_what_is_bound_to_a_step_is_in_each_of_its_events() -> None:
    stream = io.StringIO()
    set_up(Log(format="json"), stream)
    with structlog.contextvars.bound_contextvars(request="address", created_slot=5):
        structlog.get_logger("test").info("one")
    structlog.get_logger("test").info("two")
    one, two = map(json.loads, stream.getvalue().splitlines())
    assert (one["request"], one["created_slot"]) == ("address", 5)
    assert "request" not in two
    assert one["level"] == "info"
    assert one["timestamp"].endswith("Z")


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_that_cannot_be_written_stops_nobody(form: Any) -> None:
    set_up(Log(format=form), FullDisk())
    structlog.get_logger("test").warning("what happened")
    logging.getLogger("library").warning("what happened there")
