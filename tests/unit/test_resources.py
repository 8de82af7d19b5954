"""Files beside the code: found in a checkout and in an installed wheel, and missed with a code."""

from __future__ import annotations

from pathlib import Path

import pytest

from oracle import resources
from oracle.core.errors import OracleError


def test_the_checkout_holds_what_the_oracle_needs() -> None:
    assert resources.idl().name == "inference_oracle.json"
    assert resources.bytecode().read_bytes()[:4] == b"\x7fELF"


def test_the_data_of_a_wheel_comes_before_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in ("wheel", "checkout"):
        (tmp_path / root / "migrations").mkdir(parents=True)
    monkeypatch.setattr(resources, "_WHEEL", tmp_path / "wheel")
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path / "checkout")
    assert resources.migrations() == tmp_path / "wheel" / "migrations"


def test_a_missing_file_is_named_with_a_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_WHEEL", tmp_path / "wheel")
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path / "checkout")
    with pytest.raises(OracleError, match=r"oracle\.example\.toml") as caught:
        resources.example_config()
    assert caught.value.code == "ORC-RESOURCES-001"
