"""One local model for all provider tests that need a real one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from oracle.model.server import LocalModel
from oracle.model.weights import ensure_weights, weights_directory


@pytest.fixture(scope="session")
def model() -> Iterator[LocalModel]:
    with LocalModel(ensure_weights(weights_directory(os.environ))) as running:
        yield running
