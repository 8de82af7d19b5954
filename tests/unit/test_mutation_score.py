"""A change to the core that no test notices fails the mutation run, unless it is listed with a reason."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "scripts" / "mutation_score.py"))
CHANGE = "- return a < b\n+ return a <= b"
LISTED = """
[[survivors]]
reason = "They are never equal."
[survivors.changes]
"core.f" = ['''
- return a < b
+ return a <= b
''']
"""
REASONS = SCRIPT["listed"](LISTED)


def mutants(noticed: int, **survivors: str) -> list[Any]:
    make = SCRIPT["Mutant"]
    every = [make("core", f"core.{name}", False, change) for name, change in survivors.items()]
    return every + [make("core", "core.g", True)] * noticed


def test_a_score_at_the_target_with_every_survivor_explained_is_good() -> None:
    assert SCRIPT["judge"](mutants(1, f=CHANGE), REASONS, target=0.5) == []


def test_a_score_below_the_target_fails() -> None:
    assert SCRIPT["judge"](mutants(1, f=CHANGE), REASONS, target=0.51) == [
        "50.0% of the changes are noticed, and 51% must be."
    ]


def test_a_survivor_that_is_not_listed_fails_and_is_shown() -> None:
    for survivor in ({"f": CHANGE.replace("<=", "!=")}, {"h": CHANGE}):
        faults = SCRIPT["judge"](mutants(99, f=CHANGE) + mutants(0, **survivor), REASONS)
        (name, change), *_ = survivor.items()
        assert faults == [f"Survives, and is not listed with a reason: core.{name}\n{change}"]


def test_a_change_that_is_listed_and_noticed_fails() -> None:
    assert SCRIPT["judge"](mutants(9), REASONS) == [f"Is listed, and does not survive: core.f\n{CHANGE}"]


def test_a_change_is_named_by_its_lines_without_their_depth_and_context() -> None:
    diff = "--- core.py\n+++ core.py\n@@ -1,3 +1,3 @@\n def f(a, b):\n-    return a < b\n+    return a <= b"
    assert SCRIPT["bare"](diff) == CHANGE
    assert REASONS == {("core.f", CHANGE): "They are never equal."}


def test_every_module_has_a_row_and_the_last_row_is_all() -> None:
    rows = SCRIPT["table"](mutants(3, f=CHANGE)).splitlines()[2:]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        ["core", "4", "3", "1", "75.0%"],
        ["all", "4", "3", "1", "75.0%"],
    ]


def test_the_page_names_every_survivor_that_is_listed_with_its_reason() -> None:
    reasons = SCRIPT["listed"](SCRIPT["LIST"].read_text())
    assert SCRIPT["PAGE"].read_text().endswith(SCRIPT["survivors"](reasons)), (
        "run python scripts/mutation_score.py --page"
    )
