"""What an operator runs beside the daemon: `config`, `db`, `list`, `inspect`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import settings_file
from command import oracle
from pipeline_world import World
from solders.keypair import Keypair

from oracle.config import load
from oracle.core.lifecycle import State
from oracle.store import migrate

pytestmark = pytest.mark.localnet

KEY = str(Keypair().pubkey())


async def test_a_minimal_configuration_is_written_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "oracle.toml"
    ran = await oracle("config", "init", path, "-u", "devnet", "-k", 'odd "name".json', "-q", KEY)
    assert ran.status == 0, ran.err
    assert f"oracle config check --config {path}" in ran.out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = load(path)
    assert config.cluster.rpc[0].get_secret_value() == "https://api.devnet.solana.com"
    assert config.operator.keypair == tmp_path / 'odd "name".json'
    assert config.operator.queues == [KEY]
    checked = await oracle("config", "check", "--config", path)
    assert (checked.status, f"{path} is valid" in checked.out) == (0, True)
    as_json = await oracle("config", "check", "--config", path, "--json")
    assert as_json.document["ok"] is True


async def test_a_configuration_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "oracle.toml"
    path.write_text("mine")
    ran = await oracle("config", "init", path)
    assert (ran.status, ran.refusal) == (1, "ORC-CLI-001")
    assert path.read_text() == "mine"
    nowhere = await oracle("config", "init", tmp_path / "no" / "such" / "oracle.toml")
    assert (nowhere.status, nowhere.refusal) == (1, "ORC-CLI-004")


async def test_a_configuration_that_explains_everything_is_written_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "oracle.toml"
    assert (await oracle("config", "init", path, "--full")).status == 0
    load(path)
    assert "daily_budget_lamports" in path.read_text()
    assert (await oracle("config", "check", "-c", path)).status == 0


async def test_what_cannot_be_configured_is_refused_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "oracle.toml"
    ran = await oracle("config", "init", path, "-u", "ftp://rpc.example/secret-key")
    assert (ran.status, ran.refusal) == (1, "ORC-CONFIG-003")
    assert "secret-key" not in ran.err
    assert (await oracle("config", "init", path, "-q", "nonsense")).status == 2
    assert not path.exists()


async def test_a_wrong_configuration_is_told_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "oracle.toml"
    path.write_text('[policy]\nmin_fee_lamport = 5\n[cluster]\nrpc = ["ftp://secret"]\n')
    ran = await oracle("config", "check", "-c", path)
    assert (ran.status, ran.refusal) == (1, "ORC-CONFIG-003")
    assert "policy.min_fee_lamport: no such option; is min_fee_lamports meant?" in ran.err
    assert "cluster.rpc.0: expected http:// or https:// and a host" in ran.err
    as_json = await oracle("config", "check", "-c", path, "--json")
    assert json.loads(as_json.err)["code"] == "ORC-CONFIG-003"
    for command in (("list",), ("doctor",), ("inspect", KEY), ("db", "status"), ("run",)):
        assert (await oracle(*command, "-c", path)).refusal == "ORC-CONFIG-003"
        assert (await oracle(*command, "-c", tmp_path / "none.toml")).refusal == "ORC-CONFIG-001"
    assert (await oracle("list", ORACLE_CONFIG=str(path))).refusal == "ORC-CONFIG-003"


async def test_a_database_is_made_and_its_schema_shown(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'oracle.sqlite'}"
    before = await oracle("db", "status", "--url", url, "--json")
    assert before.status == 1
    made = await oracle("db", "upgrade", "--url", url)
    assert (made.status, "Upgraded the schema from nothing to" in made.out) == (0, True)
    again = await oracle("db", "upgrade", "--url", url, "--json")
    assert again.document == {"from": migrate.HEAD, "to": migrate.HEAD}
    after = await oracle("db", "status", "--url", url, "--json")
    assert (after.status, after.document) == (0, {"current": migrate.HEAD, "head": migrate.HEAD, "ok": True})
    for wrong in ("mysql://user:secret-word@host/db", "nonsense", "sqlite:////no/such/directory/oracle.sqlite"):
        ran = await oracle("db", "upgrade", "--url", wrong)
        assert ran.status == 1
        assert (ran.refusal or "").startswith("ORC-STORE-")
        assert "secret-word" not in ran.err


async def test_requests_are_listed_and_inspected_while_the_daemon_runs(world: World, config: str) -> None:
    async with world.daemon() as daemon:
        assert (await oracle("list", "-c", config)).out == "No requests.\n"
        settled, rejected = await world.submit(nonce=1), await world.submit(model="unheard-of", nonce=2)
        await world.reaches(daemon, settled, State.SETTLED)
        await world.reaches(daemon, rejected, State.REJECTED)
        listed = await oracle("list", "-c", config, "--json")
        assert {row["address"] for row in listed.document} == {str(settled.address), str(rejected.address)}
        only = await oracle("list", "-c", config, "--json", "--state", "settled")
        assert [row["address"] for row in only.document] == [str(settled.address)]
        stranger = await oracle("list", "-c", config, "--json", "--requester", KEY)
        assert stranger.document == []
        newest = await oracle("list", "-c", config, "--json", "-n", 1)
        assert len(newest.document) == 1
        text = await oracle("list", "-c", config)
        assert str(settled.address) in text.out
        assert "ORC-POLICY-005" in text.out
        found = await oracle("inspect", "-c", config, settled.address, "--json")
        shown = await oracle("inspect", "-c", config, settled.address)
        refused = await oracle("inspect", "-c", config, rejected.address)
    document = found.document
    assert [line["new_state"] for line in document["journal"]][-1] == "settled"
    assert document["attempts"][0]["provider"] == "scripted"
    assert document["on_chain"] == "fulfilled"
    assert document["settlements"][0]["signatures"][0]["signature"]
    for part in ("Attempts", "Settlements", "Journal", "computed", "scripted", document["request"]["output_sha256"]):
        assert part in shown.out
    assert "model_unavailable" in refused.out
    assert "Last error" in refused.out
    assert "remedy" in refused.out


async def test_what_the_database_does_not_know_is_told(world: World, config: str) -> None:
    unknown = await oracle("inspect", "-c", config, KEY)
    assert (unknown.status, unknown.refusal) == (1, "ORC-CLI-002")
    assert (await oracle("inspect", "-c", config, "nonsense")).status == 2
    assert (await oracle("list", "-c", config, "--state", "asleep")).status == 2
    assert (await oracle("list", "-c", config, "-n", 0)).status == 2
    missing = settings_file.write(
        world.directory / "other.toml", {**world.settings, "database": {"url": "sqlite:///none.sqlite"}}
    )
    for command in (("list",), ("inspect", KEY)):
        ran = await oracle(*command, "-c", missing)
        assert ran.status == 1
        assert (ran.refusal or "").startswith("ORC-STORE-")
        assert "oracle db upgrade" in ran.err
