"""The real weights and one running model for the tests of this directory."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oracle.core.errors import OracleError
from oracle.model.errors import DOWNLOAD_FAILED
from oracle.model.server import LocalModel
from oracle.model.weights import ensure_weights, weights_directory


@pytest.fixture(scope="session")
def weights() -> Path:
    try:
        return ensure_weights(weights_directory(os.environ))
    except OracleError as error:
        if error.error is DOWNLOAD_FAILED:
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def model(weights: Path) -> Iterator[LocalModel]:
    """Shared: a test that stops or kills a model starts one of its own."""
    with LocalModel(weights) as running:
        yield running
