"""The configuration: what is wrong is found before it costs anything, what is secret is never repeated."""

from __future__ import annotations

import itertools
import re
import runpy
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr

from oracle.config import Config, load, parse, sections
from oracle.core.errors import OracleError
from oracle.providers import settings
from oracle.providers.registry import ProviderSettings
from oracle.providers.sources import settings as source_settings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "oracle.example.toml"
SECRET = "sk-0123456789-do-not-repeat"
KEY = "3uCYrQfP5ASDEUDbRhMRiPNdNKQnUPSyDbEyGjZ5jCwS"
OTHER = "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin"


def complaint(document: dict[str, Any]) -> str:
    with pytest.raises(OracleError) as caught:
        parse(document)
    assert caught.value.code == "ORC-CONFIG-003"
    assert SECRET not in str(caught.value)
    return caught.value.detail


def with_model(**route: Any) -> dict[str, Any]:
    routes = [{"provider": "here", "model": "m", **route}]
    return {"providers": {"here": {"kind": "local"}}, "models": {"m": {"routes": routes}}}


# --- the example


def options_of(model: type[BaseModel], table: str) -> Iterator[tuple[str, str, Any]]:
    """Every option of a section: the table it stands in, its name, its default (`...` where it must be given)."""
    for name, field in model.model_fields.items():
        inner = [a for a in itertools.chain([field.annotation], get_args(field.annotation)) if _is_model(a)]
        if inner:
            yield from options_of(inner[0], f"{table}.{name}")
        else:
            yield table, name, ... if field.is_required() else field.get_default(call_default_factory=True)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def kinds(module: ModuleType = settings) -> dict[str, type[BaseModel]]:
    """Every provider that has settings, by its kind, as the room of providers declares them."""
    found = [value for value in vars(module).values() if _is_model(value) and "kind" in value.model_fields]
    return {get_args(model.model_fields["kind"].annotation)[0]: model for model in found}


def all_options() -> Iterator[tuple[str, str, Any]]:
    for name, field in Config.model_fields.items():
        if _is_model(field.annotation):
            yield from options_of(field.annotation, name)
    for kind, model in kinds().items():
        yield from options_of(model, f"providers.{kind}")
    for kind, model in kinds(source_settings).items():
        yield from options_of(model, f"sources.{kind}")
    yield from options_of(sections.ModelSettings, "models")


def used_tables() -> str:
    """The example with every table that is commented out whole put to use."""
    blocks = EXAMPLE.read_text().split("\n\n")
    return "\n\n".join(re.sub(r"(?m)^# ", "", b) if re.search(r"(?m)^# \[", b) else b for b in blocks)


def documented() -> dict[tuple[str, str], tuple[str | None, str]]:
    """What the example says, read as text: for each table and option its value (None: commented out) and its remark."""
    found: dict[tuple[str, str], tuple[str | None, str]] = {}
    table, remark = "", ""
    for line in used_tables().splitlines():
        commented = line.startswith("# ")
        text = line.removeprefix("# ")
        if header := re.fullmatch(r"\[+(.+?)\]+", text):
            # A model's name is the user's: `models."gpt".routes` documents `models.routes`.
            table, remark = re.sub(r'\."[^"]*"', "", header[1]), ""
        elif option := re.fullmatch(r"(\w+) = (.+)", text):
            found[table, option[1]] = (None if commented else option[2], remark)
            remark = ""
        else:
            remark += text.removeprefix("# ") if commented else ""
    return found


def plain(value: Any) -> Any:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case Enum():
            return value.value
        case Decimal():
            return float(value)
        case list():
            return [plain(item) for item in value]
    return value


def test_the_example_has_every_option_with_its_default_and_a_sentence() -> None:
    said = documented()
    for table, name, default in all_options():
        assert (table, name) in said, f"[{table}] {name} is not in oracle.example.toml"
        value, remark = said[table, name]
        assert len(remark) > 10, f"[{table}] {name} is not explained"
        assert remark.endswith("."), f"[{table}] {name}: {remark}"
        if default is None:
            assert value is None, f"[{table}] {name} is unset by default"
        elif default is not ... and default != {}:
            assert value is not None, f"[{table}] {name} has a default"
            assert tomllib.loads(f"v = {value}")["v"] == plain(default), f"[{table}] {name}"


def test_the_example_has_no_option_that_does_not_exist() -> None:
    exist = {(table, name) for table, name, _ in all_options()}
    assert set(documented()) <= exist


def test_every_kind_of_provider_can_be_configured() -> None:
    union, *_ = get_args(ProviderSettings)
    assert set(kinds().values()) == set(get_args(union))


def test_every_kind_of_data_network_can_be_configured() -> None:
    union, *_ = get_args(source_settings.SourceSettings)
    assert set(kinds(source_settings).values()) == set(get_args(union))


@pytest.mark.parametrize("name", ["Bee", "bee.maps", "bee/maps", "1bee", "helium"])
def test_the_name_of_a_data_network_is_one_that_a_query_can_say_and_no_other_network_has(name: str) -> None:
    assert "sources" in complaint({"sources": {name: {"kind": "beemaps", "api_key": SECRET}}})


def test_paths_of_data_networks_are_relative_to_the_file() -> None:
    config = parse({"sources": {"web": {"kind": "grass", "files": "collected"}}}, base=ROOT)
    assert isinstance(config.sources["web"], source_settings.GrassSettings)
    assert config.sources["web"].files == ROOT / "collected"


def test_the_example_says_what_the_source_says() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "example_config.py"))
    assert EXAMPLE.read_text() == script["page"](), "run python scripts/example_config.py"


def test_the_example_loads_and_means_the_defaults() -> None:
    loaded, bare = load(EXAMPLE), parse({}, base=ROOT)
    assert {provider.kind for provider in loaded.providers.values()} == set(kinds())
    for name in Config.model_fields:
        if name not in ("providers", "sources", "models"):
            assert getattr(loaded, name) == getattr(bare, name)
    for kind, provider in loaded.providers.items():
        needed = {
            name: getattr(provider, name) for name, field in kinds()[kind].model_fields.items() if field.is_required()
        }
        assert provider == kinds()[kind](**needed)
    assert loaded.sources == {kind: model() for kind, model in kinds(source_settings).items()}


def commented_options() -> list[int]:
    """Lines with an option that stands alone; those of a table that is commented out whole go together."""
    lines = EXAMPLE.read_text().splitlines()
    return [at for at, line in enumerate(lines) if re.match(r"# \w+ = ", line) and not lines[at - 1].startswith("# #")]


@pytest.mark.parametrize("at", commented_options())
def test_every_line_that_is_commented_out_may_be_used_as_it_stands(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPC_KEY", "a-key")
    lines = EXAMPLE.read_text().splitlines()
    lines[at] = lines[at].removeprefix("# ")
    parse(tomllib.loads("\n".join(lines)))


def test_every_table_that_is_commented_out_may_be_used_as_it_stands() -> None:
    assert used_tables() != EXAMPLE.read_text()
    parse(tomllib.loads(used_tables()))


def test_every_option_is_read_by_somebody() -> None:
    """An option that nobody reads is a spending cap that caps nothing."""
    sources = [path for path in (ROOT / "oracle").rglob("*.py") if "config" not in path.parts[-2:]]
    text = "\n".join(path.read_text() for path in sources)
    text += (ROOT / "oracle" / "config" / "sections.py").read_text().split("class Config(")[1]
    unread = [f"{table}.{name}" for table, name, _ in all_options() if not re.search(rf"\.{name}\b", text)]
    # A route and a price are handed on whole; `kind` chooses the class.
    assert [o for o in unread if not o.startswith(("models", "providers")) or ".routes." in o] == []


# --- wrong configurations


@pytest.mark.parametrize(
    ("document", "place", "hint"),
    [
        ({"polcy": {}}, "polcy", "policy"),
        ({"policy": {"daily_buget_lamports": 5}}, "policy.daily_buget_lamports", "daily_budget_lamports"),
        ({"providers": {"a": {"kind": "openai", "api_kee": SECRET}}}, "providers.a.api_kee", "api_key"),
        (with_model(max_cost=5), "models.m.routes.0.max_cost", "max_cost_lamports"),
    ],
)
def test_a_misspelt_option_is_named_with_the_one_that_is_meant(document: dict[str, Any], place: str, hint: str) -> None:
    told = complaint(document)
    assert f"{place}: no such option; is {hint} meant?" in told


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"policy": {"daily_budget_lamports": False}}, "policy.daily_budget_lamports"),
        ({"policy": {"min_fee_lamports": "10000"}}, "policy.min_fee_lamports"),
        ({"policy": {"min_fee_lamports": 1.5}}, "policy.min_fee_lamports"),
        ({"policy": {"min_fee_lamports": -1}}, "policy.min_fee_lamports"),
        ({"policy": {"check_fee": "no"}}, "policy.check_fee"),
        ({"policy": {"check_fee": 0}}, "policy.check_fee"),
        ({"policy": {"margin": float("nan")}}, "policy.margin"),
        ({"policy": {"margin": float("inf")}}, "policy.margin"),
        ({"policy": {"margin": -2.0}}, "policy.margin"),
        ({"policy": {"deadline_margin_seconds": float("inf")}}, "policy.deadline_margin_seconds"),
        ({"policy": {"allow_requesters": KEY}}, "policy.allow_requesters"),
        ({"policy": {"deny_requesters": ["not an address"]}}, "policy.deny_requesters.0"),
        ({"policy": []}, "policy"),
        ({"log": {"level": "verbose"}}, "log.level"),
        ({"api": {"port": 70_000}}, "api.port"),
        ({"api": {"port": True}}, "api.port"),
        ({"rates": {"sol_usd": 0}}, "rates.sol_usd"),
        ({"rates": {"sol_usd": float("nan")}}, "rates.sol_usd"),
        ({"rates": {"nos_usd": "cheap"}}, "rates.nos_usd"),
        ({"rates": {"sol_usd_url": f"http://prices.example/{SECRET}"}}, "rates.sol_usd_url"),
        ({"rates": {"sol_usd_url": f"http://127.0.0.1.prices.example/{SECRET}"}}, "rates.sol_usd_url"),
        ({"rates": {"nos_usd_pointer": "nosana/usd"}}, "rates.nos_usd_pointer"),
        ({"rates": {"sol_usd_least": 20, "sol_usd_most": 10}}, "rates"),
        ({"rates": {"sol_usd": 20, "sol_usd_most": 10, "sol_usd_url": "https://prices.example"}}, "rates"),
        ({"rates": {"refresh_seconds": 60, "max_age_seconds": 60}}, "rates"),
        ({"rates": {"max_change_share": 0}}, "rates.max_change_share"),
        ({"cluster": {"rpc": []}}, "cluster.rpc"),
        ({"cluster": {"rpc": f"https://rpc.example/{SECRET}"}}, "cluster.rpc"),
        ({"cluster": {"rpc": [f"ftp://rpc.example/{SECRET}"]}}, "cluster.rpc.0"),
        ({"cluster": {"rpc": [f"https:///{SECRET}"]}}, "cluster.rpc.0"),
        ({"cluster": {"rpc": [f"https://rpc.example:port/{SECRET}"]}}, "cluster.rpc.0"),
        ({"cluster": {"rpc": [f"https://[rpc/{SECRET}"]}}, "cluster.rpc.0"),
        ({"cluster": {"websocket": f"https://rpc.example/{SECRET}"}}, "cluster.websocket"),
        ({"cluster": {"program_id": "short"}}, "cluster.program_id"),
        ({"cluster": {"program_id": "é" * 44}}, "cluster.program_id"),
        ({"cluster": {"genesis_hash": "short"}}, "cluster.genesis_hash"),
        ({"operator": {"queues": [KEY, "nonsense"]}}, "operator.queues.1"),
        ({"operator": {"queues": [KEY, KEY]}}, "operator.queues"),
        ({"operator": {"keypair": 5}}, "operator.keypair"),
        ({"operator": {"keypair_env": [SECRET]}}, "operator.keypair_env"),
        ({"operator": {"base_uri": "oracle.example"}}, "operator.base_uri"),
        ({"operator": {"base_uri": "https://user:pass@oracle.example"}}, "operator.base_uri"),
        ({"operator": {"base_uri": "https://oracle.example/?a=b"}}, "operator.base_uri"),
        ({"operator": {"base_uri": "https://oracle.example/" + "a" * 128}}, "operator.base_uri"),
        ({"database": {"url": f"mysql://user:{SECRET}@host/db"}}, "database.url"),
        ({"database": {"url": "sqlite:///:memory:"}}, "database.url"),
        ({"database": {"url": "sqlite://"}}, "database.url"),
        ({"database": {"url": "sqlite:///"}}, "database.url"),
        ({"database": {"url": ""}}, "database.url"),
        ({"providers": {"a": {"kind": SECRET}}}, "providers.a"),
        ({"providers": {"a": {"base_url": "https://x"}}}, "providers.a"),
        ({"providers": {"a": "local"}}, "providers.a"),
        ({"providers": {"a": {"kind": "openai", "api_key": 5}}}, "providers.a.api_key"),
        ({"providers": {"a": {"kind": "local", "threads": 0}}}, "providers.a.threads"),
        ({"models": {"m": {}}}, "models.m.routes"),
        ({"models": {"m": {"routes": []}}}, "models.m.routes"),
        (with_model(timeout_seconds=0), "models.m.routes.0.timeout_seconds"),
        (with_model(timeout_seconds=90_001), "models.m.routes.0.timeout_seconds"),
        (with_model(max_attempts=0), "models.m.routes.0.max_attempts"),
        ({"daemon": {"lease_seconds": 30}}, "daemon.lease_seconds"),
        ({"gateway": {"keys": {"a b": {}}}}, "gateway.keys.a b.[key]"),
        ({"gateway": {"keys": {"a": {"sha256": SECRET}}}}, "gateway.keys.a.sha256"),
        ({"gateway": {"keys": {"a": {"concurrent": 0}}}}, "gateway.keys.a.concurrent"),
        ({"gateway": {"queue": "nonsense"}}, "gateway.queue"),
        ({"daemon": {"concurrency": 0}}, "daemon.concurrency"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_where_it_stands(document: dict[str, Any], place: str) -> None:
    assert any(line.startswith(f"{place}: ") for line in map(str.strip, complaint(document).splitlines()))


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ({"operator": {"keypair": "a.json", "keypair_env": "B"}}, "only one of"),
        ({"operator": {"keypair_env": "A", "keypair_credential": "B"}}, "only one of"),
        ({"models": {"m": {"routes": [{"provider": "nobody", "model": "m"}]}}}, "no [providers.nobody] section"),
        ({"daemon": {"lease_seconds": 100}, "input": {"timeout_seconds": 100}}, "must outlive"),
        ({"policy": {"allow_requesters": [KEY, OTHER], "deny_requesters": [OTHER]}}, "both in"),
        (
            {
                "providers": {"here": {"kind": "local"}},
                "models": {"m": {"routes": [{"provider": "here", "model": "m"}] * 2}},
            },
            "two routes",
        ),
        ({"gateway": {"keypair": "a.json", "keypair_env": "B"}}, "only one of"),
        ({"gateway": {"keys": {"a": {"key_env": "A", "key_file": "b"}}}}, "only one of"),
        ({"gateway": {"keys": {"a": {"record": True, "private": True, "lamports_per_day": 1}}}}, "private forbids"),
        ({"gateway": {"keys": {"a": {"record": True}}}}, "set lamports_per_day"),
        ({"gateway": {"keys": {"a": {"record": True, "lamports_per_day": 1}}}}, "needs gateway.keypair"),
        ({"gateway": {"keys": {"a": {"models": ["m"]}}}}, "no [models] section for m"),
    ],
)
def test_options_that_contradict_one_another_are_refused(document: dict[str, Any], what: str) -> None:
    assert what in complaint(document)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    told = complaint({"api": {"port": -1}, "log": {"level": "loud"}, "cluster": {"rpcs": []}})
    places = [line.split(":")[0] for line in told.split("\n  ") if line]
    assert sorted(places) == ["api.port", "cluster.rpcs", "log.level"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"[cluster\n", "ORC-CONFIG-002"),
        (b'[cluster]\nrpc = ["https://rpc.example/' + SECRET.encode() + b"]\n", "ORC-CONFIG-002"),
        (b"a = 1\na = 2\n", "ORC-CONFIG-002"),
        (b"\xff\xfe\x00", "ORC-CONFIG-002"),
        (b"a = " + b"[" * 100_000, "ORC-CONFIG-002"),
        (b"\x00", "ORC-CONFIG-002"),
        (b"when = 2026-01-01\n", "ORC-CONFIG-003"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "oracle.toml").write_bytes(content)
    with pytest.raises(OracleError) as caught:
        load(tmp_path / "oracle.toml")
    assert caught.value.code == code
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_there_is_told_how_to_be_made(tmp_path: Path) -> None:
    for path in (tmp_path / "oracle.toml", tmp_path):
        with pytest.raises(OracleError) as caught:
            load(path)
        assert caught.value.code == "ORC-CONFIG-001"
    assert "oracle config init" in caught.value.error.remedy


def test_an_empty_file_is_a_configuration_and_so_is_one_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_bytes(b"")
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbf[api]\nport = 1\n")
    assert load(tmp_path / "empty.toml").api.port == 8787
    assert load(tmp_path / "marked.toml").api.port == 1


# --- what a configuration means


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORACLE_TEST_DIRECTORY", "/var/lib/oracle")
    monkeypatch.setenv("HOME", "/home/operator")
    (tmp_path / "oracle.toml").write_text(
        """
        [operator]
        keypair = "key.json"
        [database]
        url = "sqlite:///data/oracle.sqlite"
        [providers.a]
        kind = "openai"
        api_key_file = "~/api-key"
        [providers.b]
        kind = "local"
        directory = "$ORACLE_TEST_DIRECTORY/models"
        """
    )
    config = load(tmp_path / "oracle.toml")
    assert config.operator.keypair == tmp_path / "key.json"
    assert config.database.url == f"sqlite:///{tmp_path}/data/oracle.sqlite"
    a, b = config.providers["a"], config.providers["b"]
    assert isinstance(a, settings.OpenAISettings)
    assert isinstance(b, settings.LocalSettings)
    assert a.api_key_file == Path("/home/operator/api-key")
    assert b.directory == Path("/var/lib/oracle/models")


def test_an_absolute_database_path_stays_as_it_is() -> None:
    assert parse({"database": {"url": "sqlite:////var/lib/o.sqlite"}}).database.url == "sqlite:////var/lib/o.sqlite"


def test_keys_and_passwords_inside_a_url_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPC_KEY", SECRET)
    config = parse(
        {
            "cluster": {"rpc": ["https://rpc.example/?key=${RPC_KEY}"], "websocket": "wss://rpc.example/${RPC_KEY}"},
            "database": {"url": "postgresql+asyncpg://oracle:${RPC_KEY}@host/db"},
        }
    )
    assert config.cluster.rpc[0].get_secret_value() == f"https://rpc.example/?key={SECRET}"
    assert config.cluster.websocket is not None
    assert config.cluster.websocket.get_secret_value() == f"wss://rpc.example/{SECRET}"
    assert config.database.url == f"postgresql+asyncpg://oracle:{SECRET}@host/db"
    assert SECRET not in repr(config)
    assert SECRET not in str(config)


def test_a_variable_that_is_not_set_is_named() -> None:
    told = complaint({"cluster": {"rpc": ["https://rpc.example/${ORACLE_TEST_UNSET}"]}})
    assert "environment variable ORACLE_TEST_UNSET is not set" in told


def test_a_configuration_never_shows_its_secrets() -> None:
    config = parse(
        {
            "cluster": {"rpc": [f"https://rpc.example/{SECRET}"], "websocket": f"wss://rpc.example/{SECRET}"},
            "database": {"url": f"postgresql://oracle:{SECRET}@host/db"},
            "providers": {
                "a": {"kind": "openai", "api_key": SECRET},
                "b": {"kind": "nosana", "api_key": SECRET, "pinata_jwt": SECRET},
            },
        }
    )
    assert SECRET not in f"{config!r} {config} {config.cluster!r} {config.database!r} {config.providers!r}"


def test_margins_in_seconds_become_slots_at_the_measured_slot_time() -> None:
    config = parse({"policy": {"deadline_margin_seconds": 10}})
    assert config.terms(0.4).deadline_margin_slots == 25
    assert config.terms(5.0).deadline_margin_slots == 2
    assert parse({"policy": {"deadline_margin_seconds": 0}}).terms(0.4).deadline_margin_slots == 1
