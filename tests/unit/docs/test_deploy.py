"""What deploy/ watches is what the daemon exposes, and what it starts is what exists."""

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from docs_pages import ROOT
from prometheus_client.parser import text_string_to_metric_families
from solders.keypair import Keypair

from oracle.api.metrics import render
from oracle.chain.clock import SlotClock
from oracle.chain.program import idl
from oracle.chain.rpc.pool import EndpointConfig, Pool
from oracle.chain.signer import KeypairSigner
from oracle.chain.watcher import Stats
from oracle.cli.app import app
from oracle.config import Config
from oracle.core.endpoints import Health
from oracle.core.errors import CATALOGUE
from oracle.core.lifecycle import State
from oracle.pipeline import prices
from oracle.pipeline.clock import Clock
from oracle.pipeline.context import Context
from oracle.pipeline.fees import Fees
from oracle.store import migrate
from oracle.store.engine import Store
from oracle.store.schema import LedgerKind

DEPLOY = ROOT / "deploy"
ALERTS = (DEPLOY / "prometheus/alerts.yml").read_text()
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
UNIT = (DEPLOY / "inference-oracle.service").read_text()
SIGNER_UNIT = (DEPLOY / "inference-oracle-signer.service").read_text()

_METRIC = re.compile(r"\b(oracle_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(?:=~|=|!=|!~)"([^"]*)"')


@pytest.fixture
async def exposed(tmp_path: Path) -> dict[str, set[str]]:
    """Labels of every metric that a daemon exposes, by name."""
    url = f"sqlite:///{tmp_path / 'oracle.sqlite'}"
    await asyncio.to_thread(migrate.upgrade, url)
    store, pool, clock = await Store.open(url), Pool([EndpointConfig("http://127.0.0.1:9")]), Clock()
    await pool.check()
    rpc = pool.client
    signer = KeypairSigner(Keypair())
    context = Context(
        config=Config(),
        store=store,
        rpc=rpc,
        program_id=idl.program_id(),
        signer=signer,
        queues=(),
        providers={},
        sources={},
        routes={},
        slots=SlotClock(),
        fees=Fees(rpc, signer.public_key, Config().settlement, clock),
        rates=prices.live(Config().rates, clock.monotonic),
        instance="test",
        clock=clock,
        pool=pool,
        sight=Stats(lag_seconds={"push": 0.4, "scan": 8.0}),
        wallet_lamports=1,
    )
    context.restarts["admit"] = 1
    try:
        body, _ = await render(context)
    finally:
        await store.close()
        await rpc.close()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Every PromQL expression under deploy/, with where it stands."""
    for rule in re.split(r"^ +- alert: ", ALERTS, flags=re.MULTILINE)[1:]:
        expression = rule.split("expr:")[1].split("labels:")[0]
        yield f"alert {rule.split()[0]}", expression
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]


def matchers(expression: str) -> Iterator[tuple[str, str, str]]:
    for name, labels in _METRIC.findall(expression):
        yield name, "", ""
        for label, values in _MATCHER.findall(labels):
            for value in values.split("|"):
                yield name, label, value


def test_alerts_and_dashboard_ask_for_metrics_and_labels_that_exist(exposed: dict[str, set[str]]) -> None:
    asked = [(where, *matcher) for where, expression in queries() for matcher in matchers(expression)]
    assert len(asked) > 20
    of_prometheus = {"instance", "job", ""}
    wrong = [
        (where, name, label)
        for where, name, label, _ in asked
        if name not in exposed or label not in exposed[name] | of_prometheus
    ]
    assert not wrong


def test_alerts_and_dashboard_ask_for_states_that_exist() -> None:
    known = {
        "state": {state.value for state in State},
        "kind": {kind.value for kind in LedgerKind},
        "health": {health.value for health in Health},
        "channel": {"push", "scan"},
    }
    wrong = [
        (where, value)
        for where, expression in queries()
        for _, label, value in matchers(expression)
        if label in known and value not in known[label]
    ]
    assert not wrong


def test_every_metric_is_documented(exposed: dict[str, set[str]]) -> None:
    page = (ROOT / "docs/reference/http.md").read_text()
    in_page = [name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in exposed]
    assert not [name for name in in_page if f"`{name}" not in page]


def test_a_code_named_under_deploy_exists() -> None:
    named = set(re.findall(r"ORC-[A-Z]+-\d{3}", ALERTS))
    assert named
    assert not named - CATALOGUE.keys()


def test_the_units_start_commands_that_exist() -> None:
    starts = re.findall(r"^ExecStart(?:Pre)?=\S+/oracle (.*)$", UNIT + SIGNER_UNIT, re.MULTILINE)
    assert len(starts) == 3
    for line in starts:
        command, words = typer.main.get_command(app), shlex.split(line)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("oracle", words)


def test_the_unit_leaves_the_daemon_its_time_to_drain() -> None:
    (stop_seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert int(stop_seconds) > Config().daemon.drain_seconds + 10
    (grace_seconds,) = re.findall(r"stop_grace_period: (\d+)s", (DEPLOY / "docker/compose.yaml").read_text())
    assert int(grace_seconds) > Config().daemon.drain_seconds + 10


def test_the_image_copies_what_exists() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "docker/Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert sources
    assert not [source for source in sources if not (ROOT / source).exists()]
    allowed = (DEPLOY / "docker/Dockerfile.dockerignore").read_text().split()
    assert not [source for source in sources if f"!{source}" not in allowed]
