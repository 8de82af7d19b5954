"""The committed bytecode and IDL are what the committed sources were built to."""

import hashlib
import json
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

ROOT = Path(__file__).resolve().parents[2]
CHECKSUMS = json.loads((ROOT / "idl/checksums.json").read_text())
REMEDY = "run `make program` and commit idl/"


def test_the_bytecode_and_the_idl_are_those_that_were_built() -> None:
    names = {path.parent.name for path in (ROOT / "programs").rglob("Cargo.toml")}
    assert set(CHECKSUMS["outputs"]) == {f"{name}.{kind}" for name in names for kind in ("so", "json")}, REMEDY
    assert {name: _sha256(ROOT / "idl" / name) for name in CHECKSUMS["outputs"]} == CHECKSUMS["outputs"], REMEDY


def test_no_source_has_changed_since_the_bytecode_was_built() -> None:
    files = [ROOT / name for name in ("Anchor.toml", "Cargo.lock", "Cargo.toml")]
    files += [path for path in (ROOT / "programs").rglob("*") if path.suffix in {".rs", ".toml"}]
    assert {str(path.relative_to(ROOT)): _sha256(path) for path in files} == CHECKSUMS["sources"], REMEDY


@pytest.mark.parametrize("program", ["inference_oracle", "emulators/nosana_jobs"])
def test_the_idl_names_the_program_id_that_the_source_declares(program: str) -> None:
    name = program.rpartition("/")[2]
    address = json.loads((ROOT / f"idl/{name}.json").read_text())["address"]
    assert f'declare_id!("{address}")' in (ROOT / f"programs/{program}/src/lib.rs").read_text()
    assert f'{name} = "{address}"' in (ROOT / "Anchor.toml").read_text()
    assert bytes(Pubkey.from_string(address)) in (ROOT / f"idl/{name}.so").read_bytes()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
