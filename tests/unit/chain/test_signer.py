"""The operator's key is used, and never shown."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from pathlib import Path

import pytest
from solders.keypair import Keypair
from solders.signature import Signature

from oracle.chain import signer
from oracle.chain.signer import KeypairSigner
from oracle.core.errors import OracleError


@pytest.fixture
def keypair() -> Keypair:
    return Keypair()


def secrets_of(keypair: Keypair) -> list[str]:
    """Every way in which the secret key may be written down."""
    return [
        str(keypair),
        keypair.to_json(),
        keypair.to_json()[1:-1][:60],
        bytes(keypair).hex(),
        keypair.secret().hex(),
        repr(keypair.secret()),
    ]


def file(directory: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path = directory / "key.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("form", ["json", "json with spaces", "base58", "with a byte order mark"])
async def test_a_key_is_read_in_every_form_that_is_common(tmp_path: Path, keypair: Keypair, form: str) -> None:
    written = {
        "json": keypair.to_json(),
        "json with spaces": json.dumps(list(bytes(keypair)), indent=1) + "\n",
        "base58": f"  {keypair}\n",
        "with a byte order mark": "\ufeff" + keypair.to_json(),
    }
    found = signer.from_file(file(tmp_path, written[form]))
    assert found.public_key == keypair.pubkey()
    assert Signature(await found.sign(b"message")).verify(keypair.pubkey(), b"message")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o602, 0o610, 0o777])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, keypair: Keypair, mode: int) -> None:
    path = file(tmp_path, keypair.to_json(), mode)
    with pytest.raises(OracleError, match=f"ORC-SIGNER-003.*{mode:04o}"):
        signer.from_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_of_its_owner_alone_is_taken(tmp_path: Path, keypair: Keypair, mode: int) -> None:
    assert signer.from_file(file(tmp_path, keypair.to_json(), mode)).public_key == keypair.pubkey()


def test_a_key_that_is_not_there_is_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORACLE_TEST_KEY", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    for read in (
        lambda: signer.from_file(tmp_path / "none.json"),
        lambda: signer.from_file(tmp_path),
        lambda: signer.from_environment("ORACLE_TEST_KEY"),
        lambda: signer.from_credential("operator"),
    ):
        with pytest.raises(OracleError, match="ORC-SIGNER-001"):
            read()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(OracleError, match="ORC-SIGNER-001"):
        signer.from_credential("operator")


def test_a_key_comes_from_the_environment_or_from_systemd(
    tmp_path: Path, keypair: Keypair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORACLE_TEST_KEY", str(keypair))
    assert signer.from_environment("ORACLE_TEST_KEY").public_key == keypair.pubkey()
    # systemd makes credentials readable by the service alone, whatever their mode says.
    (tmp_path / "operator").write_text(keypair.to_json())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert signer.from_credential("operator").public_key == keypair.pubkey()


def garbage(keypair: Keypair) -> dict[str, bytes]:
    """Nearly a key each, so that an error which quotes its input would give most of the key away."""
    numbers = list(bytes(keypair))
    other = list(bytes(Keypair()))
    return {
        "nothing": b"",
        "space": b" \n",
        "half": json.dumps(numbers[:32]).encode(),
        "cut": keypair.to_json()[:-1].encode(),
        "one too many": json.dumps([*numbers, 0]).encode(),
        "halves that disagree": json.dumps(numbers[:32] + other[32:]).encode(),
        "a number too large": json.dumps([*numbers[:63], 256]).encode(),
        "a negative number": json.dumps([*numbers[:63], -1]).encode(),
        "a fraction": json.dumps([*numbers[:63], 0.5]).encode(),
        "texts": json.dumps([str(n) for n in numbers]).encode(),
        "an object": json.dumps({"key": numbers}).encode(),
        "nested": b"[" * 50_000,
        "base58, cut": str(keypair)[:-4].encode(),
        "base58, too long": (str(keypair) * 3).encode(),
        "base58 with a zero": (str(keypair)[:-1] + "0").encode(),
        "a public key": str(keypair.pubkey()).encode(),
        "hex": bytes(keypair).hex().encode(),
        "raw bytes": bytes(keypair),
        "not text": b"\xff" * 64,
        "twelve words": b"abandon " * 12,
        "huge": b"1" * 1_000_000,
    }


@pytest.mark.parametrize("kind", garbage(Keypair()))
def test_what_is_no_key_is_refused_and_never_repeated(
    tmp_path: Path, keypair: Keypair, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = garbage(keypair)[kind]
    with pytest.raises(OracleError) as caught:
        signer.from_file(file(tmp_path, content))
    assert caught.value.code == "ORC-SIGNER-002"
    shown = "".join(traceback.format_exception(caught.value)) + "".join(capfd.readouterr())
    told = content.decode(errors="replace").strip()
    for at in range(0, len(told) - 12, 7):
        assert told[at : at + 12] not in shown
    assert not any(secret in shown for secret in secrets_of(keypair))


def test_a_signer_never_shows_its_key(keypair: Keypair) -> None:
    held = KeypairSigner(keypair)
    shown = f"{held} {held!r} {held!s} {[held]} { ({'signer': held})!r} {dir(held)}"
    assert not any(secret in shown for secret in secrets_of(keypair))
    assert str(keypair.pubkey()) in repr(held)
    assert not hasattr(held, "__dict__")


def test_a_signer_is_neither_pickled_nor_copied(keypair: Keypair) -> None:
    held = KeypairSigner(keypair)
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret") as caught:
            take(held)
        assert not any(secret in str(caught.value) for secret in secrets_of(keypair))
