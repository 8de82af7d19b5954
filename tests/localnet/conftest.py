"""A whole oracle, for every test here that wants one: see pipeline/pipeline_world.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "pipeline"))

from pipeline_world import terms, world

__all__ = ["terms", "world"]
