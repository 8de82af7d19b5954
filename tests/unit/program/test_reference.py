"""The reference page tells the program as it was built: its IDL and the page agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from oracle import resources

PAGE = (Path(__file__).resolve().parents[3] / "docs/reference/program.md").read_text()
IDL = json.loads(resources.idl().read_text())
TYPES = {kind["name"]: kind["type"] for kind in IDL["types"]}
SIZES = {"u8": 1, "bool": 1, "u16": 2, "u32": 4, "u64": 8, "i64": 8, "pubkey": 32}
DISCRIMINATOR_BYTES = 8


def test_every_error_is_listed_with_its_number_and_message() -> None:
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", section("Errors"), re.MULTILINE)
    assert listed == [(str(error["code"]), error["name"], error["msg"]) for error in IDL["errors"]]


@pytest.mark.parametrize("account", ["Queue", "Operator", "Request"])
def test_every_field_is_listed_at_its_offset(account: str) -> None:
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \|", subsection(account), re.MULTILINE)
    assert sorted((int(offset), name) for offset, name in listed) == sorted(fields_of(account, DISCRIMINATOR_BYTES))


def test_every_instruction_is_listed_with_its_accounts() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]+) \|", section("Instructions"), re.MULTILINE)
    listed = {name: [account_flags(account) for account in accounts.split(", ")] for name, accounts in rows}
    assert listed == {
        instruction["name"]: [
            ("w" if account.get("writable") else "") + ("s" if account.get("signer") else "")
            for account in instruction["accounts"]
        ]
        for instruction in IDL["instructions"]
    }


def test_every_event_is_listed_with_its_fields() -> None:
    listed = {
        name: [field.split(" ")[0] for field in fields.split(", ")]
        for names, fields in re.findall(r"^\| (`.+`) \| (.+) \|$", section("Events"), re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert listed == {
        event["name"]: [field["name"] for field in TYPES[event["name"]]["fields"]] for event in IDL["events"]
    }


def fields_of(name: str, offset: int) -> list[tuple[int, str]]:
    """Every field of the type and of the types in it, with its offset from the start of the account."""
    found = []
    for field in TYPES[name]["fields"]:
        found.append((offset, field["name"]))
        if isinstance(field["type"], dict) and "defined" in field["type"]:
            found += fields_of(field["type"]["defined"]["name"], offset)
        offset += size_of(field["type"])
    return found


def size_of(kind: Any) -> int:
    match kind:
        case str():
            return SIZES[kind]
        case {"array": [item, count]}:
            return size_of(item) * int(count)
        case {"defined": {"name": name}}:
            return sum(size_of(field["type"]) for field in TYPES[name]["fields"])
    raise AssertionError(kind)


def account_flags(listed: str) -> str:
    last = listed.split(" ")[-1]
    return last if last in {"w", "s", "ws"} else ""


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def subsection(title: str) -> str:
    return PAGE.partition(f"\n### {title}\n")[2].partition("\n##")[0]
