"""Keys in AWS KMS and Google Cloud KMS: the vendors' own clients against servers that speak their wire protocols."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from solders.signature import Signature

from oracle.api.server import serving
from oracle.chain.signing import remote
from oracle.chain.signing.aws_kms import AwsKms
from oracle.chain.signing.gcp_kms import GcpKms
from oracle.chain.signing.remote import Backend, RemoteSigner
from oracle.core.errors import OracleError
from oracle.localnet.emulators.kms import ACCESS_KEY, AWS_KEY, GCP_KEY, Kms, aws_fault, gcp_fault

pytestmark = pytest.mark.localnet

MESSAGE = b"\x80 a message of some length"
Make = Callable[[], Backend]


@pytest.fixture(scope="session")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def kms() -> Kms:
    return Kms()


@pytest.fixture
async def url(kms: Kms) -> AsyncIterator[str]:
    async with serving(kms.app(), "127.0.0.1", 0) as address:
        yield address


@pytest.fixture(params=["aws", "gcp"])
def make(
    request: pytest.FixtureRequest, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str
) -> Make:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "aws":
        for name, value in {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL_KMS": url,
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        return lambda: AwsKms(AWS_KEY)
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": private_key,
        "client_email": "oracle@p.iam.gserviceaccount.com",
        "token_uri": f"{url}/token",
    }
    path = tmp_path / "account.json"
    path.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return lambda: GcpKms(GCP_KEY, url)


@pytest.fixture
async def signer(make: Make) -> AsyncIterator[RemoteSigner]:
    opened = await RemoteSigner.open(make())
    yield opened
    await opened.close()


def transient(make: Make) -> list[tuple[int, object]]:
    if isinstance(make(), AwsKms):
        codes = ("ThrottlingException", "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException")
        return [aws_fault(code) for code in codes] + [aws_fault("Unheard", 503)]
    return [gcp_fault(429, "RESOURCE_EXHAUSTED"), gcp_fault(503, "UNAVAILABLE"), gcp_fault(500, "INTERNAL")]


def lasting(make: Make) -> list[tuple[int, object]]:
    if isinstance(make(), AwsKms):
        codes = ("AccessDeniedException", "DisabledException", "KMSInvalidStateException", "InvalidKeyUsageException")
        return [aws_fault(code) for code in codes]
    return [gcp_fault(403, "PERMISSION_DENIED"), gcp_fault(400, "FAILED_PRECONDITION")]


async def code_of(work: Awaitable[object]) -> str:
    with pytest.raises(OracleError) as raised:
        await work
    return raised.value.code


async def test_a_message_is_signed_with_the_key_that_never_leaves(signer: RemoteSigner, kms: Kms) -> None:
    assert signer.public_key == kms.keypair.pubkey()
    signature = await signer.sign(MESSAGE)
    assert Signature.from_bytes(signature).verify(kms.keypair.pubkey(), MESSAGE)
    assert kms.signed == [MESSAGE]
    assert signer.trouble is None


async def test_what_passes_is_tried_again(signer: RemoteSigner, kms: Kms, make: Make) -> None:
    for fault in transient(make):
        kms.faults = [fault]
        assert len(await signer.sign(MESSAGE)) == 64, fault
    assert signer.trouble is None


async def test_silence_is_cut_and_the_question_asked_again(
    signer: RemoteSigner, kms: Kms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ATTEMPT_SECONDS", 1.0)
    kms.faults = [2.0]
    assert len(await signer.sign(MESSAGE)) == 64


async def test_a_service_that_stays_away_is_a_coded_error_and_ready_finds_it_back(
    signer: RemoteSigner, kms: Kms, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", remote.ATTEMPT_SECONDS + 1.0)
    kms.faults = [transient(make)[0]] * 20
    assert await code_of(signer.sign(MESSAGE)) == "ORC-SIGNER-005"
    assert "ORC-SIGNER-005" in (signer.trouble or "")
    assert await code_of(signer.ready()) == "ORC-SIGNER-005"
    kms.faults = []
    await signer.ready()
    assert signer.trouble is None


async def test_a_refusal_is_told_at_once_and_not_repeated(signer: RemoteSigner, kms: Kms, make: Make) -> None:
    for fault in lasting(make):
        kms.faults, before = [fault], len(kms.asked)
        assert await code_of(signer.sign(MESSAGE)) == "ORC-SIGNER-006"
        assert len(kms.asked) == before + 1
        assert "by an emulator" in (signer.trouble or "")


@pytest.mark.parametrize("fault", ["wrong_signature", "short_signature"])
async def test_a_signature_that_does_not_verify_is_never_used(signer: RemoteSigner, kms: Kms, fault: str) -> None:
    kms.faults = [fault]
    assert await code_of(signer.sign(MESSAGE)) == "ORC-SIGNER-007"
    assert len(await signer.sign(MESSAGE)) == 64


async def test_a_page_of_html_is_no_answer(signer: RemoteSigner, kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    kms.faults = ["html"]
    assert len(await signer.sign(MESSAGE)) == 64
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", remote.ATTEMPT_SECONDS + 1.0)
    kms.faults = ["html"] * 20
    assert await code_of(signer.sign(MESSAGE)) == "ORC-SIGNER-005"


async def test_a_name_that_leads_to_another_key_by_now_is_found_out(signer: RemoteSigner, kms: Kms, make: Make) -> None:
    from solders.keypair import Keypair

    kms.keypair = Keypair()
    assert await code_of(signer.sign(MESSAGE)) == "ORC-SIGNER-007"
    assert await code_of(signer.ready()) == "ORC-SIGNER-007"


async def test_a_key_of_another_kind_is_refused_at_start(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    p256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200") + bytes(65)
    monkeypatch.setattr(Kms, "encoded_key", p256)
    assert await code_of(RemoteSigner.open(make())) == "ORC-SIGNER-008"


async def test_a_key_that_is_not_there_is_refused_at_start(make: Make, url: str) -> None:
    missing: Backend = AwsKms("alias/none") if isinstance(make(), AwsKms) else GcpKms(GCP_KEY[:-1] + "9", url)
    assert await code_of(RemoteSigner.open(missing)) == "ORC-SIGNER-006"


async def test_no_secret_is_shown(signer: RemoteSigner, kms: Kms, make: Make, private_key: str) -> None:
    kms.faults = [lasting(make)[0]]
    with pytest.raises(OracleError) as raised:
        await signer.sign(MESSAGE)
    shown = f"{raised.value} {raised.value!r} {signer!r} {signer.trouble}"
    assert not any(secret in shown for secret in ("ya29", "secret", private_key.splitlines()[1]))


async def test_a_service_that_is_not_there_is_a_coded_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", remote.ATTEMPT_SECONDS + 1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    away = make() if isinstance(make(), AwsKms) else GcpKms(GCP_KEY, "http://127.0.0.1:9")
    assert await code_of(RemoteSigner.open(away)) == "ORC-SIGNER-005"


async def test_credentials_that_are_missing_or_wrong_are_a_coded_error(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASTRANGER")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))

    async def opened() -> None:
        await RemoteSigner.open(make())

    assert await code_of(opened()) == "ORC-SIGNER-006"
