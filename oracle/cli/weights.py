"""The small model's weights, fetched with a bar the first time."""

from __future__ import annotations

import os
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from oracle.cli.output import stderr
from oracle.model.weights import ensure_weights, weights_directory


def fetch_weights() -> Path:
    """The model's weights, with a bar while they are downloaded for the first time."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), transient=True, console=stderr
    ) as progress:
        task = progress.add_task("model weights", total=None)
        return ensure_weights(
            weights_directory(os.environ),
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
