"""`oracle providers try` runs one real job, spends nothing unasked, and leaves nothing running."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from provider_stand import Stand, open_stand

from oracle.pipeline import trial

pytestmark = pytest.mark.localnet

NETWORKS = ("nosana", "ionet", "ionet-cloud", "render", "openai")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with open_stand(tmp_path, *NETWORKS) as stand:
        yield stand


@pytest.mark.parametrize("name", [*NETWORKS, "deployment"])
async def test_a_job_runs_end_to_end_and_every_step_is_told(stand: Stand, name: str) -> None:
    await stand.create_database()
    stand.provider(name)
    ran = await stand.run("try", name, "--yes", "--json")
    assert ran.status == 0, ran.err
    tried = ran.document
    assert tried["answer"]
    assert tried["is_same_model"] is True
    assert tried["output_tokens"] > 0
    steps = [step["step"] for step in tried["steps"]]
    told = ["asked", "quoted", "job", "succeeded", "answer", "model run", "tokens", "cost"]
    assert [step for step in steps if step in told] == told
    assert ("public" in steps) is (name in ("nosana", "render", "deployment"))
    booked = await stand.booked()
    if name == "openai":
        assert (tried["cost_lamports"], booked) == (0, [])
        return
    (entry,) = booked
    assert (entry.lamports, entry.provider, entry.requester) == (-tried["cost_lamports"], name, "trial")
    assert tried["key"] in (entry.note or "")
    assert 0 <= tried["cost_lamports"] <= tried["quote"]["cost_lamports"]
    if name in ("ionet-cloud", "deployment"):
        assert steps[-1] == "given back"
        assert (await stand.rows())[name]["rentals"] == []


async def test_nothing_is_spent_before_somebody_has_said_yes(stand: Stand) -> None:
    refused = await stand.run("try", "nosana", stdin="n\n")
    assert (refused.status, "quoted" in refused.out) == (1, True)
    assert "ORC-CLI-009" in refused.err
    as_json = await stand.run("try", "nosana", "--json")
    assert (as_json.status, '"ORC-CLI-009"' in as_json.err) == (1, True)
    capped = await stand.run("try", "nosana", "--yes", "--max-lamports", "1")
    assert (capped.status, capped.refusal) == (1, "ORC-PIPE-031")
    assert not stand.emulators["nosana"].books()["jobs"]
    agreed = await stand.run("try", "nosana", stdin="y\n")
    assert agreed.status == 0
    assert "not booked" in agreed.out
    assert len(stand.emulators["nosana"].books()["jobs"]) == 1


async def test_a_trial_counts_in_the_budgets_and_keeps_within_them(stand: Stand) -> None:
    await stand.create_database()
    stand.provider("nosana", daily_budget_lamports=10)
    ran = await stand.run("try", "nosana", "--yes")
    assert (ran.status, ran.refusal) == (1, "ORC-POLICY-022")
    assert not stand.emulators["nosana"].books()["jobs"]
    assert await stand.booked() == []


async def test_a_purchase_whose_answer_is_lost_is_looked_up_and_never_made_again(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LOOK_SECONDS", 0.1)
    stand.provider("render", look_seconds=0.1)
    stand.emulators["render"].faults.add("lose_answer", on="POST *jobs")
    ran = await stand.run("try", "render", "--yes", "--json")
    assert ran.status == 0, ran.err
    assert "unclear" in [step["step"] for step in ran.document["steps"]]
    assert len(stand.emulators["render"].books()["jobs"]) == 1


async def test_the_job_of_an_earlier_trial_is_found_by_its_key(stand: Stand) -> None:
    first = (await stand.run("try", "nosana", "--yes", "--json")).document
    again = await stand.run("try", "nosana", "--key", first["key"], "--json")
    assert again.status == 0, again.err
    assert (again.document["answer"], again.document["quote"]) == (first["answer"], None)
    assert len(stand.emulators["nosana"].books()["jobs"]) == 1
    chat = await stand.run("try", "ionet", "--key", first["key"])
    assert (chat.status, chat.refusal) == (1, "ORC-PIPE-034")


async def test_what_goes_wrong_is_told_with_its_code(stand: Stand) -> None:
    stand.emulators["ionet"].faults.add("unauthorized", count=None)
    assert (await stand.run("try", "ionet", "--yes")).refusal == "ORC-PROVIDER-007"
    assert (await stand.run("try", "nobody")).refusal == "ORC-CLI-008"
    assert (await stand.run("try", "nosana", "--yes", "-m", "unlisted")).refusal == "ORC-PROVIDER-010"


@pytest.mark.parametrize(("name", "number"), [("nosana", signal.SIGINT), ("ionet-cloud", signal.SIGTERM)])
async def test_interrupted_it_calls_the_job_off_and_gives_back_what_it_rented(
    stand: Stand, name: str, number: signal.Signals
) -> None:
    stand.model.word_seconds = 5.0
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oracle", "providers", "try", name, "--yes", "-c", str(stand.write())),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(60):
        async for line in process.stdout:
            lines.append(line.decode())
            if "running" in lines[-1]:
                process.send_signal(number)
        assert await process.wait() == 130
    assert "called off" in "".join(lines)
    if name == "nosana":
        (job,) = stand.emulators["nosana"].books()["jobs"]
        assert job["state"] in ("STOPPED", "COMPLETED", "CANCELLED")
    else:
        assert "given back" in "".join(lines)
        assert (await stand.rows())[name]["rentals"] == []
