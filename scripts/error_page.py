"""Writes docs/reference/errors.md from the codes in the source; a test compares the two."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import oracle
from oracle.core.errors import CATALOGUE, ErrorCode, Verdict

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "errors.md"

HEAD = """\
# Error codes

Every error that the oracle shows, logs or writes into a journal has a code. It never changes its meaning.

*Next* says what the daemon does by itself: **retry** within the request's budget, **give up** (the request ends as its
rules say), or **unknown**: the side effect may have happened, so it is looked up before anything is repeated.
"""

_NEXT = {Verdict.RETRY: "retry", Verdict.GIVE_UP: "give up", Verdict.UNKNOWN: "unknown"}


def catalogue() -> dict[str, ErrorCode]:
    """Every code of the package, in order. Modules of extras that are not installed have none of their own."""
    for module in pkgutil.walk_packages(oracle.__path__, "oracle."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return dict(sorted(CATALOGUE.items()))


def page() -> str:
    sections = [HEAD]
    room = None
    for code in catalogue().values():
        if room != (room := code.code.split("-")[1]):
            sections.append(f"## {room}\n")
        sections.append(
            f"### {code.code}\n\n**{code.title}.** {code.cause}\n\n"
            f"*Remedy*: {code.remedy}\n\n*Next*: {_NEXT[code.verdict]}\n"
        )
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page())
