"""Changes the core in a thousand ways, one at a time, and tells which changes its tests do not notice.

Fails where they notice less than the target, and where a change that survives is not listed with a reason in
tests/mutants.toml, or is listed there and does not survive. `--judge` takes the results of the last run as they are;
`--page` writes docs/reference/mutation.md from them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "mutants.toml"
PAGE = ROOT / "docs" / "reference" / "mutation.md"
RESULTS = ROOT / "mutants"
TARGET = 0.85

HEAD = """\
# Mutation score of the core

`make mutants` (and with it `make test-all`) changes `oracle/core` in more than a thousand ways, one at a time: `<` for
`<=`, `or` for `and`, 31 for 30, None for an argument, another text. For each change it runs those tests of
`tests/unit/core` that reach the changed function. A change is noticed where one of them fails, or never ends.
Otherwise it has survived: a test is missing, or the change makes no difference. Constants, properties and the classes'
fields are not changed.

The run fails where fewer than 85 % of the changes are noticed. It also fails where one survives that is not listed
in `tests/mutants.toml` with a reason, and where one that is listed there does not survive.
"""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change. `change` is its diff, without the context: it outlives a renumbering. Empty where it was noticed."""

    module: str
    function: str
    noticed: bool
    change: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.function, self.change


Reasons = Mapping[tuple[str, str], str]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--judge", action="store_true", help="take the results of the last run")
    options.add_argument("--page", action="store_true", help="write docs/reference/mutation.md")
    asked = options.parse_args()
    os.chdir(ROOT)
    if not asked.judge:
        run_mutmut()
    mutants = list(results())
    if not mutants:
        print("No results: run without --judge.")
        return 1
    reasons = listed(LIST.read_text())
    print(table(mutants))
    if asked.page:
        PAGE.write_text(page(mutants, reasons))
    faults = judge(mutants, reasons)
    print(*faults, sep="\n")
    return 1 if faults else 0


def run_mutmut() -> None:
    """From scratch: mutmut does not try a change again because a test has changed."""
    shutil.rmtree(RESULTS, ignore_errors=True)
    # Its progress is one line that is written over and over: of use to a person, and to no log.
    hidden = None if sys.stdout.isatty() else subprocess.PIPE
    run = subprocess.run([sys.executable, "-m", "mutmut", "run"], stdout=hidden, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"mutmut ended with {run.returncode}: {(run.stdout or '')[-4000:]}")


def results() -> Iterator[Mutant]:
    """What mutmut has found out."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.format_utils import orig_function_and_class_names_from_key

    for meta in sorted(RESULTS.rglob("*.py.meta")):
        path = meta.relative_to(RESULTS).with_suffix("")
        found = SourceFileMutationData(path=path)
        found.load()
        module = ".".join(path.with_suffix("").parts)
        for name, exit_code in found.exit_code_by_key.items():
            status = status_by_exit_code[exit_code]
            if status in ("not checked", "check was interrupted by user"):
                raise SystemExit(f"{name}: {status}")
            function, owner = orig_function_and_class_names_from_key(name)
            full_name = ".".join(filter(None, (module, owner, function)))
            if status in ("killed", "timeout"):
                yield Mutant(module, full_name, noticed=True)
            else:
                yield Mutant(module, full_name, noticed=False, change=bare(get_diff_for_mutant(name, path=path)))


def bare(diff: str) -> str:
    """The changed lines alone, however deep they are indented."""
    changed = [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in changed)


def listed(text: str) -> Reasons:
    """The survivors that are known, each with its reason."""
    return {
        (function, change.strip()): group["reason"]
        for group in tomllib.loads(text).get("survivors", [])
        for function, changes in group["changes"].items()
        for change in changes
    }


def judge(mutants: Iterable[Mutant], reasons: Reasons, target: float = TARGET) -> list[str]:
    """What speaks against the tests."""
    mutants = list(mutants)
    survivors = [mutant for mutant in mutants if not mutant.noticed]
    score = 1 - len(survivors) / len(mutants)
    faults = [f"{score:.1%} of the changes are noticed, and {target:.0%} must be."] if score < target else []
    for mutant in survivors:
        if mutant.key not in reasons:
            faults.append(f"Survives, and is not listed with a reason: {mutant.function}\n{mutant.change}")
    alive = {mutant.key for mutant in survivors}
    for function, change in (key for key in reasons if key not in alive):
        faults.append(f"Is listed, and does not survive: {function}\n{change}")
    return faults


def table(mutants: Iterable[Mutant]) -> str:
    every: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    for mutant in mutants:
        for row in (mutant.module, "all"):
            every[row] += 1
            noticed[row] += mutant.noticed
    rows = [
        f"| {row:<24} | {every[row]:>7} | {noticed[row]:>7} | {every[row] - noticed[row]:>8} | "
        f"{noticed[row] / every[row]:>7.1%} |"
        for row in sorted(every, key=lambda row: (row == "all", row))
    ]
    return "\n".join(
        [f"| {'Module':<24} | Changes | Noticed | Survived | Score   |", "|---|---:|---:|---:|---:|", *rows]
    )


def page(mutants: Iterable[Mutant], reasons: Reasons) -> str:
    last = f"## The last run\n\n{datetime.now(UTC):%Y-%m-%d}, all of it:\n\n{table(mutants)}\n"
    return f"{HEAD}\n{last}\n{survivors(reasons)}"


def survivors(reasons: Reasons) -> str:
    """The last section of the page."""
    sections = ["## What survives, and why\n"]
    for reason in dict.fromkeys(reasons.values()):
        sections.append(f"{reason}\n")
        for (function, change), why in reasons.items():
            if why == reason:
                sections.append(f"`{function}`:\n\n```diff\n{change}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    sys.exit(main())
