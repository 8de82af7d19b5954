"""The tests of `test_money.py`, on Surfpool."""

import pytest
from test_money import *  # noqa: F403

pytestmark = pytest.mark.validator
