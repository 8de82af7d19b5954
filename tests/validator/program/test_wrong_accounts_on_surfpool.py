"""The tests of `test_wrong_accounts.py`, on Surfpool."""

import pytest
from test_wrong_accounts import *  # noqa: F403

pytestmark = pytest.mark.validator
