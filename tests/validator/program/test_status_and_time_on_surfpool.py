"""The tests of `test_status_and_time.py`, on Surfpool."""

import pytest
from test_status_and_time import *  # noqa: F403

pytestmark = pytest.mark.validator
