"""Every test of the store that is not about SQLite itself, on PostgreSQL."""

from __future__ import annotations

import pytest
from test_store_allowances import *  # noqa: F403
from test_store_attempts import *  # noqa: F403
from test_store_calls import *  # noqa: F403
from test_store_duties import *  # noqa: F403
from test_store_group_commit import *  # noqa: F403
from test_store_leases import *  # noqa: F403
from test_store_migrations import *  # noqa: F403
from test_store_purchases import *  # noqa: F403
from test_store_recordings import *  # noqa: F403
from test_store_requests import *  # noqa: F403
from test_store_results import *  # noqa: F403
from test_store_schema import *  # noqa: F403
from test_store_settlements import *  # noqa: F403
from test_store_spending import *  # noqa: F403

pytestmark = pytest.mark.postgres
