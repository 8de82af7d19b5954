"""The tests of `test_bounds.py`, on Surfpool."""

import pytest
from test_bounds import *  # noqa: F403

pytestmark = pytest.mark.validator

del test_at_the_end_of_all_slots_nothing_wraps  # noqa: F821  # it takes the embedded machine to the last slot there is
