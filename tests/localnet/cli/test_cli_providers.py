"""`oracle providers` asks everybody at once, and whoever does not answer is one row that says what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import settings_file
from command import oracle
from pipeline_world import World
from provider_stand import Stand, open_stand

from oracle.core.policy import BALANCE_LOW
from oracle.localnet.emulators.exhibits import EXHIBITS
from oracle.localnet.ports import free_port
from oracle.pipeline import survey

pytestmark = pytest.mark.localnet

WRONG_KEY = "wrong-key-0123456789"


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with open_stand(tmp_path) as stand:
        yield stand


async def test_everybody_who_is_well_has_a_row_with_all_that_can_be_known(stand: Stand) -> None:
    shown, document = await stand.run(), await stand.run("--json")
    assert (shown.status, document.status) == (0, 0)
    assert document.document["ok"] is True
    rows = {row["name"]: row for row in document.document["providers"]}
    assert set(rows) == {*EXHIBITS, "deployment"}
    assert {line.split()[0] for line in shown.out.splitlines()[1:]} == set(rows)
    assert all(row["reachable"] and row["error"] is None for row in rows.values())
    # Neither a server of one's own nor the public data of Helium takes a key.
    assert {name for name, row in rows.items() if row["authenticated"] is None} == {"openai", "helium"}
    assert rows["nosana"]["balance"] == {"amount": 10.0, "unit": "USD"}
    assert rows["ionet"]["models"][0]["price"] is not None
    assert all(
        row["quotes"][0]["cost_lamports"] > 0 for name, row in rows.items() if EXHIBITS.get(name) and row["balance"]
    )
    assert [market["slug"] for market in rows["nosana"]["markets"] if market["is_chosen"]]
    assert not [books for books in map(_bought, stand.emulators.values()) if books]


async def test_a_wrong_key_is_reachable_and_not_authenticated_and_never_shown(stand: Stand) -> None:
    for name in ("nosana", "ionet", "ionet-cloud", "deployment"):
        stand.provider(name, api_key=WRONG_KEY)
    stand.provider("render", secret_key=WRONG_KEY)
    stand.settings["sources"]["beemaps"]["api_key"] = WRONG_KEY
    wrong = {"nosana", "ionet", "ionet-cloud", "deployment", "render", "beemaps"}
    ran = await stand.run("--json")
    rows = {row["name"]: row for row in ran.document["providers"]}
    assert ran.status == 1
    assert {name for name, row in rows.items() if row["authenticated"] is False} == wrong
    assert {rows[name]["error"]["code"] for name in wrong} == {"ORC-PROVIDER-007"}
    assert all(rows[name]["reachable"] for name in wrong)
    assert rows["openai"]["error"] is None
    text = await stand.run()
    assert WRONG_KEY not in ran.out + text.out + text.err
    assert text.out.count("Make a new key") == len(wrong)


async def test_who_does_not_answer_is_one_row_with_its_code_and_keeps_nobody_else_waiting(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = survey._asked

    async def impatient_with_the_silent_one(name: str, question: Any) -> Any:
        monkeypatch.setattr(survey, "SECONDS", 2.0 if name == "render" else 60.0)
        return await asked(name, question)  # which looks at it before anybody else has a turn

    monkeypatch.setattr(survey, "_asked", impatient_with_the_silent_one)
    stand.provider("openai", base_url=f"http://127.0.0.1:{free_port()}/v1")
    stand.emulators["ionet"].faults.add("html", count=None, status=200)
    stand.emulators["render"].faults.add("hang", count=None)
    stand.emulators["ionet-cloud"].faults.add("error", count=None, status=503)
    stand.provider("deployment", api_key_env="ORACLE_TEST_UNSET")
    del stand.settings["providers"]["deployment"]["api_key"]
    ran = await stand.run("--json")
    rows = {row["name"]: row for row in ran.document["providers"]}
    told = {name: (row["reachable"], row["error"]["code"]) for name, row in rows.items() if row["error"]}
    assert told == {
        "openai": (False, "ORC-PROVIDER-001"),
        "ionet": (False, "ORC-PROVIDER-005"),
        "render": (False, "ORC-PIPE-030"),
        "ionet-cloud": (True, "ORC-PROVIDER-002"),
        "deployment": (None, "ORC-PROVIDER-021"),
    }
    assert all(row["error"]["remedy"] for row in rows.values() if row["error"])
    assert rows["nosana"]["balance"]


async def test_one_provider_is_shown_in_full_with_the_markets_and_the_chosen_one(stand: Stand) -> None:
    shown = await stand.run("show", "nosana")
    assert shown.status == 0
    chosen = [line for line in shown.out.splitlines() if line.startswith(">")]
    assert len(chosen) == 1
    assert "NVIDIA" in chosen[0]
    assert "Models" in shown.out
    assert (await stand.run("show", "helium")).status == 0
    unknown = await stand.run("show", "nobody")
    assert (unknown.status, unknown.refusal) == (1, "ORC-CLI-008")


async def test_who_is_paid_on_chain_says_what_is_missing_for_that(stand: Stand) -> None:
    nosana = stand.settings["providers"]["nosana"]
    onchain = {name: nosana[name] for name in ("base_url", "pinning_url", "gateway_url", "pinata_jwt")}
    stand.settings["providers"] = {"chain": onchain | {"kind": "nosana_onchain"}}
    assert (await stand.rows())["chain"]["error"]["code"].startswith("ORC-STORE-")
    await stand.create_database()
    assert (await stand.rows())["chain"]["error"]["code"].startswith("ORC-SIGNER-")


async def test_doctor_asks_a_provider_of_rented_servers_for_more_than_its_settings(stand: Stand) -> None:
    stand.provider("ionet-cloud", api_key=WRONG_KEY)
    ran = await oracle("doctor", "-c", stand.write(), "--json")
    found = {check["name"]: check for check in ran.document["checks"]}
    assert found["provider ionet-cloud"]["health"] == "failed"
    assert "ORC-PROVIDER-007" in found["provider ionet-cloud"]["detail"]
    assert found["provider nosana"]["health"] == "ok"


async def test_a_daemon_that_runs_lends_its_measurements_and_says_whom_it_leaves_alone(world: World) -> None:
    config = settings_file.write(world.directory / "oracle.toml", world.settings)
    async with world.daemon() as daemon:
        await world.ended(await world.submit())
        daemon.context.breakers.hold("scripted", BALANCE_LOW("scripted: 1 USD, below 5"))
        running = await oracle("providers", "-c", config, "--json")
        shown = await oracle("providers", "-c", config)
    alone = await oracle("providers", "-c", config, "--json")
    for ran in (running, alone):
        (row,) = ran.document["providers"]
        (measured,) = row["measured"]
        assert (measured["jobs"], measured["success_rate"]) == (1, 1.0)
        assert measured["p50_seconds"] == measured["p95_seconds"] >= 0
    assert BALANCE_LOW.code in running.document["providers"][0]["paused"]
    assert "the daemon buys nothing there now" in shown.out
    assert alone.document["providers"][0]["paused"] is None


def _bought(emulator: object) -> object:
    books = emulator.books() if hasattr(emulator, "books") else {}
    return books.get("jobs") or books.get("rentals") or books.get("deployments")
